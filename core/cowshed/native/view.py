"""NativeView: reading a tree that is a directory plus a sidecar.

HOME/rootfs/       the data; natively whatever the file system and our privilege can hold
HOME/sidecar.db    the rest (see ``sidecar``); absent if there is none
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..entry import NO_XATTRS, Entry, Kind, join, kind_of
from .attributes import read_symlink
from .directories import Directories
from .hosting import Hosting
from .records import Record, Records
from .sidecar import Sidecar, Use
from .syscalls import OPEN_DIRECTORY, list_directory, list_xattrs, procfs

ROOTFS = "rootfs"
SIDECAR = "sidecar.db"
#: What calls say if nothing is at a name any more, or something of another kind.
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ESTALE)


class Found(NamedTuple):
    """One object of a scan, not yet described in full: xattrs and link targets cost a call each."""

    path: str
    name: str
    status: os.stat_result
    record: Record | None
    kind: Kind


class NativeView:
    """Looks into one tree. ``live``: others may be writing, so no descriptor outlives a call."""

    #: Whether names share an inode only where the image says so. A farm's do by content as well.
    inodes_are_identity = True

    def __init__(self, home: str, hosting: Hosting, use: Use, *, live: bool = False) -> None:
        self.home = home
        self.hosting = hosting
        self.live = live
        self.directories = self.open_directories()
        try:
            self.sidecar = self.open_records(use)
        except BaseException:
            self.directories.close()
            raise

    def open_directories(self) -> Directories:
        """Open the tree's root."""
        return Directories(os.path.join(self.home, ROOTFS))

    def open_records(self, use: Use) -> Records:
        """Open what its files can't say themselves."""
        # Without privilege an attribute may go into the sidecar at any time, for all of a file's
        # names: they share a record from the moment that there are two.
        groups = not self.inodes_are_identity or self.hosting.owner is not None
        return Sidecar(os.path.join(self.home, SIDECAR), use, groups=groups)

    @property
    def disk(self) -> int:
        """A descriptor on the file system that holds the data."""
        return self.directories.root

    def close_view(self) -> None:
        """Let go of descriptors and sidecar. Closing twice is fine."""
        self.sidecar.close()
        self.directories.close()

    def find(self, path: str) -> Found:
        """Return the object at ``path``.

        Raises:
            FileNotFoundError: nothing is there, or a socket, which no image holds.
        """
        if self.live:
            self.directories.clear()
        fd, name = self.directories.at(path)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        record = self.sidecar.get(path)
        kind = _kind(status, record)
        if kind is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return Found(path, name, status, record, kind)

    def scan(self, path: str) -> list[Found]:
        """Return what directory ``path`` holds, in the byte order of names, without sockets."""
        if self.live:
            self.directories.clear()
        fd = self.directories.fd(path)
        names = list_directory(fd)
        names.sort(key=os.fsencode)
        records = self.sidecar.below(path)
        found: list[Found] = []
        for name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            record = records.get(name)
            kind = _kind(status, record)
            if kind is not None:
                found.append(Found(join(path, name), name, status, record, kind))
        return found

    def listdir(self, path: str) -> Iterator[str]:
        """Yield the names in directory ``path`` as the system gives them, without sockets."""
        if self.live:
            self.directories.clear()
        # With a place of its own in the list of names.
        descriptor = os.open(".", OPEN_DIRECTORY, dir_fd=self.directories.fd(path))
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if (
                        entry.is_file(follow_symlinks=False)
                        or entry.is_dir(follow_symlinks=False)
                        or entry.is_symlink()
                        or _is_special(entry)
                    ):
                        yield entry.name
        finally:
            os.close(descriptor)

    def is_gone(self, error: OSError) -> bool:
        """Say whether something was removed or replaced since it was found, as processes may do in
        a live tree at any time; in another nobody may."""
        return self.live and error.errno in _REPLACED

    def find_again(self, found: Found, error: OSError) -> Found | None:
        """Return what is where ``found`` was, whose description ended with ``error``; None: nothing
        is any more. If it still is there, that was no process's doing, and is raised."""
        if not self.is_gone(error):
            raise error
        try:
            again = self.find(found.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        one, other = found.status, again.status
        if (one.st_ino, one.st_ctime_ns) == (other.st_ino, other.st_ctime_ns):
            raise error
        return again

    def describe(self, found: Found) -> Entry:
        """Return the whole truth about ``found``."""
        fd, name = self.directories.at(found.path)
        status, record, kind = found.status, found.record, found.kind
        mode = stat_module.S_IMODE(status.st_mode)
        uid, gid = self.hosting.shown_ids(status.st_uid, status.st_gid)
        xattrs = self.sidecar.visible(list_xattrs(procfs(fd, name)))
        if record is not None:
            mode = mode if record.mode is None else record.mode
            uid = uid if record.uid is None else record.uid
            gid = gid if record.gid is None else record.gid
            # What the file holds as well, a process set later and behind our back.
            xattrs = {**record.xattrs, **xattrs}
        inode, links = self.identity(found)
        return Entry(
            path=found.path,
            kind=kind,
            mode=0o777 if kind is Kind.SYMLINK else mode,
            uid=uid,
            gid=gid,
            mtime_ns=self.mtime(found),
            size=status.st_size if kind is Kind.FILE else 0,
            target=read_symlink(fd, name, record) if kind is Kind.SYMLINK else "",
            rdev=_rdev(status, record) if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            xattrs=xattrs or NO_XATTRS,
            inode=inode,
            links=links,
        )

    def mtime(self, found: Found) -> int:
        """Return when ``found`` was last modified, in nanoseconds."""
        return found.status.st_mtime_ns

    def inode(self, found: Found) -> int:
        """Return the number of the inode that ``found`` really is."""
        return found.status.st_ino

    def identity(self, found: Found) -> tuple[int, int]:
        """Return inode number and number of names as the image sees them."""
        if found.kind is Kind.DIRECTORY:
            return found.status.st_ino, 1
        if self.inodes_are_identity:
            return found.status.st_ino, found.status.st_nlink
        if found.record is not None and found.record.links > 1:
            return found.record.id, found.record.links
        return 0, 1

    def hard_links(self) -> dict[str, int]:
        """Return every name of the files that have several, with the inode they share."""
        found: dict[str, int] = {}
        for item in self.walk_found(""):
            if item.kind is not Kind.DIRECTORY and item.status.st_nlink > 1:
                found[item.path] = item.status.st_ino
        return found

    def walk_found(self, path: str) -> Iterator[Found]:
        """Yield everything below ``path``, parents first, names in byte order."""
        stack = [self.scan(path)[::-1]]
        while stack:
            if not stack[-1]:
                stack.pop()
                continue
            found = stack[-1].pop()
            yield found
            if found.kind is Kind.DIRECTORY:
                try:
                    stack.append(self.scan(found.path)[::-1])
                except OSError as error:
                    if not self.is_gone(error):
                        raise

    def open_found(self, found: Found, flags: int) -> int:
        """Open the regular file ``found`` and return its descriptor.

        It is pinned first and judged before it is opened: opening a device or a fifo that a
        container put in its place meanwhile would have effects of its own.
        """
        if found.kind is Kind.DIRECTORY:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), found.path)
        if found.kind is not Kind.FILE:
            code = errno.ELOOP if found.kind is Kind.SYMLINK else errno.EINVAL
            raise OSError(code, os.strerror(code), found.path)
        fd, name = self.directories.at(found.path)
        pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            if not stat_module.S_ISREG(os.fstat(pinned).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), found.path)
            return os.open(f"/proc/self/fd/{pinned}", flags | os.O_CLOEXEC)
        finally:
            os.close(pinned)

    def same_inode(self, was: Found, now: Found) -> bool:
        """Say whether ``now``, of this tree, is the very inode ``was`` of the tree it began as, so
        that nothing in it can have changed."""
        one, other = was.status, now.status
        return one.st_ino == other.st_ino and one.st_dev == other.st_dev

    def same_data(self, one: int, other: int) -> bool:
        """Say whether two open files are known to be equal without reading them."""
        return False

    def open_to_read(self, found: Found) -> BinaryIO:
        """Open the regular file ``found`` for reading."""
        return os.fdopen(self.open_found(found, os.O_RDONLY), "rb")


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Say whether it is a fifo or a device: no socket, and not gone meanwhile."""
    try:
        return kind_of(entry.stat(follow_symlinks=False).st_mode) is not None
    except FileNotFoundError:
        return False


def _kind(status: os.stat_result, record: Record | None) -> Kind | None:
    if record is not None and record.kind is not None:
        return Kind(record.kind)
    return kind_of(status.st_mode)


def _rdev(status: os.stat_result, record: Record | None) -> int:
    return status.st_rdev if record is None or record.rdev is None else record.rdev
