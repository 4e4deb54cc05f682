"""Cloning a native tree within one file system: by copies or by links."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Callable
from contextlib import suppress

from ..entry import join
from .directories import Directories
from .syscalls import copy_data, procfs

_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY

#: Called with (source directory, target directory, name, path of the directory in the tree).
Put = Callable[[int, int, str, str], None]
#: Called with a source directory and its path in the tree, returns its mtime in nanoseconds.
Mtime = Callable[[int, str], int]


def _mtime(fd: int, _path: str) -> int:
    return os.fstat(fd).st_mtime_ns


def clone_tree(source: str, target: str, put: Put, mtime: Mtime = _mtime) -> None:
    """Make the existing directory ``target`` equal to ``source``, all else than directories
    by ``put``. Native attributes only; the sidecar is copied by the caller. What somebody removes
    meanwhile is left out."""
    old, new = Directories(source), Directories(target)
    try:
        todo = [""]
        while todo:
            path = todo.pop()
            try:
                from_fd = old.fd(path)
            except (FileNotFoundError, NotADirectoryError):
                os.rmdir(os.path.join(target, path))
                continue
            to_fd = new.fd(path)
            with os.scandir(from_fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(entry.name, 0o700, dir_fd=to_fd)
                        todo.append(f"{path}/{entry.name}" if path else entry.name)
                    else:
                        with suppress(FileNotFoundError):
                            put(from_fd, to_fd, entry.name, path)
            # All names are in, so that nothing touches the mtime any more.
            copy_attributes(from_fd, to_fd, mtime(from_fd, path))
    finally:
        old.close()
        new.close()


def copy_attributes(source: int, target: int, mtime_ns: int | None = None) -> None:
    """Give the open ``target`` owner, mode, xattrs and mtime of the open ``source``, or the mtime
    that is given."""
    status = os.fstat(source)
    now = os.fstat(target)
    if (status.st_uid, status.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat_module.S_IMODE(status.st_mode))
    copy_xattrs(source, target)
    if mtime_ns is None:
        mtime_ns = status.st_mtime_ns
    os.utime(target, ns=(mtime_ns, mtime_ns))


def copy_xattrs(source: int | str, target: int | str) -> None:
    """Copy extended attributes between open descriptors or, without following links, paths."""
    # False only for paths: of a descriptor there is nothing to follow.
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError:
        return  # a file system without them has none to copy
    for name in names:
        if name != "security.selinux":
            try:
                value = os.getxattr(source, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno == errno.ENODATA:  # a process took it away
                    continue
                raise
            os.setxattr(target, name, value, follow_symlinks=follow)


def copy_object(
    from_fd: int, name: str, to_fd: int, new_name: str, *, keep_data: bool = True
) -> None:
    """Copy anything but a directory with all its native attributes; a socket is left out.

    ``keep_data=False`` makes the new file empty, for a caller about to overwrite it.
    """
    status = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
    if stat_module.S_ISREG(status.st_mode):
        _copy_file(from_fd, name, to_fd, new_name, keep_data)
        return
    if stat_module.S_ISSOCK(status.st_mode):
        return
    if stat_module.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=from_fd), new_name, dir_fd=to_fd)
    else:
        os.mknod(new_name, stat_module.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=to_fd)
    now = os.stat(new_name, dir_fd=to_fd, follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (now.st_uid, now.st_gid):
        os.chown(new_name, status.st_uid, status.st_gid, dir_fd=to_fd, follow_symlinks=False)
    if not stat_module.S_ISLNK(status.st_mode):
        os.chmod(new_name, stat_module.S_IMODE(status.st_mode), dir_fd=to_fd)
    copy_xattrs(procfs(from_fd, name), procfs(to_fd, new_name))
    times = (status.st_mtime_ns, status.st_mtime_ns)
    os.utime(new_name, ns=times, dir_fd=to_fd, follow_symlinks=False)


def _copy_file(from_fd: int, name: str, to_fd: int, new_name: str, keep_data: bool) -> None:
    # Pinned before it is opened: a live container may have swapped in a device.
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=from_fd)
    try:
        status = os.fstat(pinned)
        if not stat_module.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"{name!r} was replaced while it was copied")
        source = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pinned)
    try:
        target = os.open(new_name, _CREATE, 0o600, dir_fd=to_fd)
        try:
            if keep_data:
                copy_data(source, target, status.st_size)
            copy_attributes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


class Copier:
    """A ``Put`` that copies into the tree ``target``; names of one file stay names of one file."""

    def __init__(self, target: str) -> None:
        self._target = Directories(target)
        self._first: dict[int, str] = {}

    def close(self) -> None:
        """Let go of descriptors."""
        self._target.close()

    def __call__(self, from_fd: int, to_fd: int, name: str, directory: str) -> None:
        status = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
        if status.st_nlink > 1:
            first = self._first.get(status.st_ino)
            if first is not None:
                fd, first_name = self._target.at(first)
                os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=to_fd, follow_symlinks=False)
                return
        copy_object(from_fd, name, to_fd, name)
        if status.st_nlink > 1 and not stat_module.S_ISSOCK(status.st_mode):
            self._first[status.st_ino] = join(directory, name)
