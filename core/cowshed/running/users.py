"""Users: who a process runs as, by the container's own /etc/passwd and /etc/group.

As Docker has it: ``USER[:GROUP]``, each a name or a number. A number needs no entry. Without a
group it is the user's own, and the supplementary groups are those that list the user; with one
there are none. Malformed lines don't count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import StoreError
from .rootfs import Rootfs

#: Linux takes IDs up to this, (uid_t)-1 excepted, as Docker bounds them.
_MOST = 2**31 - 1


class User(NamedTuple):
    """Numbers for the kernel, and the home directory for $HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def find_user(root: Rootfs, wanted: str) -> User:
    """Return who ``wanted`` means in that container; nothing means root.

    Raises:
        StoreError: a name that nobody there has, or a number out of bounds.
    """
    name, colon, group = (wanted or "0").partition(":")
    name = name or "0"
    known = list(_lines(root, "etc/passwd", 7))
    number = _number(name, "user")
    entry = next((one for one in known if one[0] == name), None)
    if entry is None and number is not None:
        entry = next((one for one in known if one[2] == str(number)), None)
    if entry is not None:
        uid, gid, home = _id(entry[2]), _id(entry[3]), entry[5] or "/"
        login = entry[0]
    elif number is not None:
        uid, gid, home, login = number, 0, "/", ""
    else:
        raise StoreError(f"no user {name!r} in the container's /etc/passwd; give a number")
    if colon and group:
        return User(uid=uid, gid=_group(root, group), home=home)
    groups = [
        _id(one[2])
        for one in _lines(root, "etc/group", 4)
        if login and login in one[3].split(",") and _id(one[2]) != gid
    ]
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys(groups)), home=home)


def _group(root: Rootfs, wanted: str) -> int:
    number = _number(wanted, "group")
    for one in _lines(root, "etc/group", 4):
        if one[0] == wanted:
            return _id(one[2])
    if number is None:
        raise StoreError(f"no group {wanted!r} in the container's /etc/group; give a number")
    return number


def _number(text: str, what: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or int(text) > _MOST:
        raise StoreError(f"{what} {text} is out of bounds; the largest is {_MOST}")
    return int(text)


def _id(text: str) -> int:
    return int(text)


def _lines(root: Rootfs, path: str, fields: int) -> Iterator[list[str]]:
    """Yield the well-formed lines of a user database; a missing one has none."""
    try:
        data = root.read(path)
    except OSError:
        return
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        parts = line.split(":")
        numbers = parts[2:4] if fields == 7 else parts[2:3]
        if len(parts) >= fields and all(
            one.isascii() and one.isdigit() and len(one) <= 10 and int(one) <= _MOST
            for one in numbers
        ):
            yield parts
