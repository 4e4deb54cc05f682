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


@attrs.frozen
class Hosting:
    """Maps what an entry says to what a file can say, and back."""

    #: Native user and group that stand for 0:0; None in a privileged store.
    owner: tuple[int, int] | None = None

    @classmethod
    def of_this_process(cls) -> Hosting:
        """Return the rule for a store that this process makes."""
        user = os.geteuid()
        return cls(None if user == 0 else (user, os.getegid()))

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


def open_hosting(path: str, driver: str) -> Hosting:
    """Read the rule from the store's ``path``, or make the store's rule there.

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
            return Hosting((int(owner[0]), int(owner[1])))
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
    hosting = Hosting.of_this_process()
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(aside, "x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        rule: dict[str, object] = {"format": _FORMAT, "driver": driver, "owner": hosting.owner}
        if hosting.owner is None:
            rule["maps"] = _id_maps()
        json.dump(rule, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        return open_hosting(path, driver)
    finally:
        os.unlink(aside)
    return hosting
