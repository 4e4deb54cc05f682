"""Format: what overlayfs writes into an upper directory, read and written.

    character device 0/0           a whiteout: the name isn't there, whatever is below
    overlay.opaque = y             the directory hides what is below
    overlay.redirect               the directory, or metacopy file, was renamed: where it was below
    overlay.metacopy               attributes only; the content is still below

The attributes are in ``trusted.``, in a user namespace's mount in ``user.`` (``userxattr``).
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import attrs

from ..entry import NO_XATTRS, Entry, Kind, join, kind_of
from ..native.syscalls import CAPABILITY, list_xattrs, procfs
from . import kernel

#: Files' owners that an ID map doesn't know are shown as these.
ROOT = 0


class IdMap(NamedTuple):
    """The numbers of users or groups in a mount's user namespace (user_namespaces(7))."""

    #: Lines of ``uid_map``: first inside, first outside, how many.
    ranges: tuple[tuple[int, int, int], ...] = ((0, 0, 2**32 - 1),)

    @classmethod
    def of_this_process(cls, kind: str) -> IdMap:
        """Return that of the user namespace we are in; ``kind``: ``uid`` or ``gid``."""
        return _id_map(kind)

    def shown(self, number: int) -> int:
        """Return what an image's number is shown as, where not all can be."""
        for inside, _, count in self.ranges:
            if inside <= number < inside + count:
                return number
        return ROOT

    def inside(self, number: int) -> int:
        """Return what a number outside, in the namespace around, is inside."""
        for inside, outside, count in self.ranges:
            if outside <= number < outside + count:
                return inside + number - outside
        return ROOT


@cache
def _id_map(kind: str) -> IdMap:
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            numbers = [tuple(map(int, line.split())) for line in file]
    except FileNotFoundError:  # a kernel without user namespaces
        return IdMap()
    return IdMap(tuple((line[0], line[1], line[2]) for line in numbers))


class Format(NamedTuple):
    """How one upper directory was mounted."""

    #: Attributes in ``user.``, as privilege is a user namespace's alone.
    user: bool = False
    uids: IdMap = IdMap()
    gids: IdMap = IdMap()

    @classmethod
    def read(cls, written: dict[str, Any]) -> Format:
        """Return what was ``written``, by way of JSON."""
        maps = [
            IdMap(tuple((line[0], line[1], line[2]) for line in written[one]["ranges"]))
            for one in ("uids", "gids")
        ]
        return cls(user=written["user"], uids=maps[0], gids=maps[1])

    def written(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return {
            "user": self.user,
            "uids": {"ranges": self.uids.ranges},
            "gids": {"ranges": self.gids.ranges},
        }

    @property
    def prefix(self) -> str:
        """What the names of overlayfs's own attributes begin with."""
        return "user.overlay." if self.user else "trusted.overlay."

    def may_hold(self, xattr: str) -> bool:
        """Say whether a process in the mount could set that attribute."""
        return not self.user or xattr.startswith("user.") or xattr == CAPABILITY

    def shown(self, xattrs: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return those of an image's attributes that a process in the mount can read."""
        if not self.user:
            return xattrs
        return {name: value for name, value in xattrs.items() if self.may_hold(name)}

    def mark(self, fd: int, name: str, mark: str, value: bytes) -> None:
        """Set one of overlayfs's own attributes."""
        os.setxattr(procfs(fd, name), self.prefix + mark, value, follow_symlinks=False)

    def marks(self, fd: int, name: str) -> Mapping[str, bytes]:
        """Return overlayfs's own attributes of what is at ``name``."""
        found: dict[str, bytes] = {}
        for mark in ("opaque", "redirect", "metacopy"):
            try:
                path = procfs(fd, name)
                found[mark] = os.getxattr(path, self.prefix + mark, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
                    raise
        return found

    def describe(self, path: str, fd: int, name: str, status: os.stat_result) -> Entry | None:
        """Return the object at ``name`` as the mount shows it; None for a socket, which no image
        holds."""
        kind = kind_of(status.st_mode)
        if kind is None:
            return None
        uid, gid = status.st_uid, status.st_gid
        if self.uids != IdMap.of_this_process("uid"):
            uid, gid = self.uids.inside(uid), self.gids.inside(gid)
        return Entry(
            path=path,
            kind=kind,
            mode=0o777 if kind is Kind.SYMLINK else stat_module.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if kind is Kind.FILE else 0,
            target=os.readlink(name, dir_fd=fd) if kind is Kind.SYMLINK else "",
            rdev=status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            xattrs=self._xattrs(fd, name),
            inode=status.st_ino,
            links=1 if kind is Kind.DIRECTORY else status.st_nlink,
        )

    def _xattrs(self, fd: int, name: str) -> Mapping[str, bytes]:
        held = list_xattrs(procfs(fd, name))
        found: dict[str, bytes] = {}
        for xattr, value in held.items():
            if xattr.startswith(self.prefix):
                rest = xattr.removeprefix(self.prefix)
                if rest.startswith("overlay."):  # an overlay's in the container, escaped
                    found[self.prefix + rest.removeprefix("overlay.")] = value
            else:
                found[xattr] = value
        return found or NO_XATTRS

    def meant(self, entry: Entry, was: Entry | None) -> Entry:
        """Return ``entry`` with what the mount couldn't show of what ``was`` there before."""
        if was is None or was.kind is not entry.kind:
            return entry
        uid, gid, xattrs = entry.uid, entry.gid, entry.xattrs
        if uid == self.uids.shown(was.uid):
            uid = was.uid
        if gid == self.gids.shown(was.gid):
            gid = was.gid
        kept = {name: value for name, value in was.xattrs.items() if not self.may_hold(name)}
        known = was.xattrs.get(CAPABILITY)
        if known is not None and self.user and _same_capability(known, xattrs.get(CAPABILITY)):
            kept[CAPABILITY] = known
        if kept:
            xattrs = {**xattrs, **kept}
        return attrs.evolve(entry, uid=uid, gid=gid, xattrs=xattrs)


def format_here() -> Format:
    """Return how an upper directory is mounted by this process."""
    return Format(
        user=not kernel.in_first_user_namespace(),
        uids=IdMap.of_this_process("uid"),
        gids=IdMap.of_this_process("gid"),
    )


def _same_capability(one: bytes, other: bytes | None) -> bool:
    """Say whether two are the same but for the user namespace that the second is written for
    (capabilities(7), "Namespaced file capabilities"). The top byte is the form's number."""
    return other is not None and one[4:20] == other[4:20] and one[0:3] == other[0:3]


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether it is how overlayfs marks a name as removed."""
    return stat_module.S_ISCHR(status.st_mode) and status.st_rdev == 0


def below(redirect: bytes, lower_of_parent: str | None) -> str | None:
    """Return the path that a redirect leads to, from the root of what is below."""
    path = os.fsdecode(redirect)
    if path.startswith("/"):
        return path.strip("/")
    return None if lower_of_parent is None else join(lower_of_parent, path)
