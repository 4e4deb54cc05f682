"""Hosting: who owns a store's files, and so which attributes they can hold themselves.

A store made by root is *privileged*: every attribute is tried on the file first, and only what
the kernel refuses (no CAP_MKNOD, an unmapped owner in a user namespace, a file system without
xattrs) goes into the sidecar.

A store made by anybody else has an ``owner``. All its files belong to that user natively, and
that stands for 0:0, which most files of an image are, so that most files need no record. They
are natively at least ``u+rw`` (directories ``u+rwx``), as their owner couldn't use them otherwise.
Other owners, other modes, devices, fifos and privileged xattrs are recorded.

The rule is fixed when the store is made, so that all its trees agree, and root may use a user's
store without locking the user out of it. A privileged store made in a user namespace has that
namespace's numbers for owners, so it is refused where they stand for others.
"""

from __future__ import annotations

import json
import os

import attrs

from ..entry import Kind
from ..errors import DriverError, FormatTooNewError

_FORMAT = 1
#: Set in the environment of who went into a namespace of his own, to be root there.
ENTERED = "_COWSHED_ENTERED"


@attrs.frozen
class Hosting:
    """Maps what an entry says to what a file can say, and back."""

    #: Native user and group that stand for 0:0; None in a privileged store.
    owner: tuple[int, int] | None = None

    @property
    def tells_owners(self) -> bool:
        """Whether the owner of a file that a process makes says whose it is meant to be. In a
        user's store, made from his namespace, it would be a number of that namespace."""
        return self.owner is None or len(_id_maps()[0]) == len(_INITIAL_MAPS[0])

    def native_mode(self, kind: Kind, mode: int) -> int:
        """Return the mode that the file gets."""
        if self.owner is None:
            return mode
        return mode | (0o700 if kind is Kind.DIRECTORY else 0o600)

    def native_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner that the file gets."""
        return self.owner or (uid, gid)

    def shown_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner that a file without a record stands for."""
        if self.owner is None:
            return uid, gid
        return (0 if uid == self.owner[0] else uid, 0 if gid == self.owner[1] else gid)

    def may_be(self, kind: Kind, rdev: int) -> bool:
        """Say whether it makes sense to try to make a fifo or device as what it is."""
        return self.owner is None

    def may_hold(self, kind: Kind, xattr: str, size: int) -> bool:
        """Say whether it makes sense to try ``xattr``, of so many bytes, on the file itself."""
        if xattr.startswith("system."):
            # Setting a POSIX ACL rewrites the mode, and one that says no more vanishes at once.
            return False
        if self.owner is None:
            return True
        return xattr.startswith("user.") and kind in (Kind.FILE, Kind.DIRECTORY)


#: What a user namespace's numbers stand for: none but the initial one's own.
_INITIAL_MAPS = [[0, 0, 2**32 - 1]] * 2


def _id_maps() -> list[list[int]]:
    """Return which users and groups the numbers of this process stand for (user_namespaces(7))."""
    maps: list[list[int]] = []
    for kind in ("uid", "gid"):
        try:
            with open(f"/proc/self/{kind}_map", "rb") as file:
                maps.append([int(number) for number in file.read().split()])
        except FileNotFoundError:  # a kernel without user namespaces
            return _INITIAL_MAPS
    return maps


def _owner_of_what_we_make(*, native: bool) -> tuple[int, int] | None:
    """Return the owner, as everybody outside of namespaces knows him, of a store that this process
    makes. Who entered a namespace of his own is no other user for that, unless owners are to be
    ``native``."""
    if os.geteuid():
        return os.geteuid(), os.getegid()
    if native or not os.environ.get(ENTERED):
        return None
    users, groups = _id_maps()
    return users[1], groups[1]


def _known_here(owner: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers that an owner has in this process's namespace; his own where he has
    none."""
    found: list[int] = []
    for number, numbers in zip(owner, _id_maps(), strict=True):
        ranges = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        found.append(
            next(
                (inside + number - first for inside, first, count in ranges
                 if first <= number < first + count),
                number,
            )
        )  # fmt: skip
    return found[0], found[1]


def open_hosting(path: str, driver: str, *, native: bool = False) -> Hosting:
    """Read the rule from the store's ``path``, or make the store's rule there. ``native``: owners
    are always the files' own.

    Raises:
        FormatTooNewError: a newer Cowshed wrote it.
        DriverError: it can't be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found["format"] > _FORMAT:
            raise FormatTooNewError(path, found["format"], _FORMAT)
        owner = found["owner"]
        if owner is not None:
            return Hosting(_known_here((int(owner[0]), int(owner[1]))))
        maps = found.get("maps", _INITIAL_MAPS)
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DriverError(
            driver, f"{path} is damaged ({error}); restore it from a backup"
        ) from error
    else:
        if maps != _id_maps():
            raise DriverError(
                driver,
                f"{path} was made in a user namespace with other user IDs; use it from there",
            )
        return Hosting()
    owner = _owner_of_what_we_make(native=native)
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(aside, "x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        rule: dict[str, object] = {"format": _FORMAT, "driver": driver, "owner": owner}
        if owner is None:
            rule["maps"] = _id_maps()
        json.dump(rule, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)
    return open_hosting(path, driver)
