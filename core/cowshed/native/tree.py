"""NativeTree: a ``Tree`` over a directory and its sidecar."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from ..entry import NO_XATTRS, Entry, Kind, kind_of, parent_of
from ..tree import OpenMode, Tree
from .attributes import (
    change_ids,
    make_special,
    make_symlink,
    remove_xattr,
    set_mode,
    set_xattr,
    settle,
)
from .files import Privileges, open_to_write
from .hosting import Hosting
from .records import Record
from .syscalls import syncfs
from .unfinished import noting
from .view import Found, NativeView

_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "wb": os.O_WRONLY | os.O_TRUNC,
    "xb": os.O_WRONLY,
    "ab": os.O_WRONLY | os.O_APPEND,
}


class NativeTree(NativeView, Tree):
    """One layer (never writable) or one container.

    ``let_go`` is called once, when the tree is closed.
    """

    def __init__(
        self,
        home: str,
        hosting: Hosting,
        *,
        layer: bool,
        writable: bool = False,
        durable: bool = True,
        let_go: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            home, hosting, "sealed" if layer else "live", live=not layer and not writable
        )
        self.writable = writable
        self._durable = durable
        self._dirty = False
        self._closed = False
        self._let_go = let_go

    # -- reading --------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry:
        return self.describe(self.find(path))

    def scandir(self, path: str) -> Iterator[Entry]:
        return self._described(self.scan(path))

    def _described(self, found: list[Found]) -> Iterator[Entry]:
        for item in found:
            now: Found | None = item
            while now is not None:
                try:
                    entry = self.describe(now)
                except OSError as error:
                    now = self.find_again(now, error)
                else:
                    yield entry
                    break

    def descend(self, path: str) -> Iterator[Entry]:
        try:
            return self.scandir(path)
        except OSError as error:
            if not self.is_gone(error):
                raise
            return iter(())

    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        if mode == "rb":
            return self.open_to_read(self.find(path))
        self._change()
        flags = _ACCESS[mode]
        if mode != "r+b":
            fd, name = self.directories.at(path)
            try:
                descriptor = os.open(name, flags | _CREATE, 0o600, dir_fd=fd)
            except FileExistsError:
                if mode == "xb":
                    raise
            else:
                try:
                    self._settle(path, Kind.FILE, 0o644)
                except BaseException:
                    os.close(descriptor)
                    os.unlink(name, dir_fd=fd)
                    raise
                return open_to_write(descriptor, mode, None)
        found = self.find(path)
        if found.kind is Kind.FILE:
            found = self.make_private(found, keep_data=mode != "wb")
        descriptor = self.open_found(found, flags & ~os.O_TRUNC)
        try:
            privileges = Privileges(descriptor)
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return open_to_write(descriptor, mode, privileges)

    # -- writing --------------------------------------------------------------------------------

    def make_private(self, found: Found, *, keep_data: bool = True) -> Found:
        """Return ``found`` such that changing its inode reaches this tree only.

        Here every inode is the tree's own. ``keep_data``: whether its content still matters.
        """
        return found

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._change()
        fd, name = self.directories.at(path)
        os.mkdir(name, 0o700, dir_fd=fd)
        try:
            self._settle(path, Kind.DIRECTORY, mode)
        except BaseException:
            os.rmdir(name, dir_fd=fd)
            raise

    def symlink(self, target: str, path: str) -> None:
        self._change()
        fd, name = self.directories.at(path)
        record = Record()
        make_symlink(fd, name, target, record)
        try:
            self._settle(path, Kind.SYMLINK, 0o777, record)
        except BaseException:
            os.unlink(name, dir_fd=fd)
            raise

    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        self._change()
        kind = kind_of(mode if stat_module.S_IFMT(mode) else mode | stat_module.S_IFREG)
        if kind is Kind.FILE:
            self.open(path, "xb").close()
            self.chmod(path, stat_module.S_IMODE(mode))
            return
        if kind not in (Kind.FIFO, Kind.CHAR, Kind.BLOCK):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        if self.exists(path):  # what is noted may go
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        fd, name = self.directories.at(path)
        record = Record()
        with self._making(path):  # it may be a file at first, until its record says what it is
            make_special(self.hosting, fd, name, kind, mode, rdev, record)
            try:
                self._settle(path, kind, stat_module.S_IMODE(mode), record)
            except BaseException:
                os.unlink(name, dir_fd=fd)
                raise

    def _settle(self, path: str, kind: Kind, mode: int, record: Record | None = None) -> None:
        fd, name = self.directories.at(path)
        record = Record() if record is None else record
        settle(self.hosting, fd, name, kind, mode, 0, 0, NO_XATTRS, record)
        self.sidecar.drop(path)
        self.sidecar.put(path, record)

    def _supersede(self, old: Entry, entry: Entry, content: BinaryIO | None, beside: str) -> None:
        with self._making(beside):
            super()._supersede(old, entry, content, beside)

    def link(self, existing: str, path: str) -> None:
        self._change()
        self.find(existing)
        if not self.sidecar.will_share(existing):
            self._link(existing, path)
        elif self.exists(path):  # what is noted may go
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        else:
            with self._making(path):
                self._link(existing, path)

    def _link(self, existing: str, path: str) -> None:
        from_fd, from_name = self.directories.at(existing)
        to_fd, to_name = self.directories.at(path)
        os.link(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        try:
            with self.sidecar.at_once():
                self.sidecar.link(existing, path)
        except BaseException:
            os.unlink(to_name, dir_fd=to_fd)
            raise

    def rename(self, source: str, destination: str) -> None:
        self._change()
        moved = self.find(source)
        from_fd, from_name = self.directories.at(source)
        to_fd, to_name = self.directories.at(destination)
        try:
            replaced: Found | None = self.find(destination)
        except FileNotFoundError:
            replaced = None
        shared = replaced is not None and self.inode(replaced) == self.inode(moved)
        if source == destination or (
            replaced is not None and shared and self._same_file(moved, replaced)
        ):
            return  # rename(2): two names of one file stay
        with self._moving(source, destination):
            renamed = False
            try:
                with self.sidecar.at_once():
                    self.sidecar.move(source, destination)
                    if shared:
                        # Two files that merely share an inode: rename(2) would do nothing.
                        os.unlink(from_name, dir_fd=from_fd)
                    else:
                        os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
                        renamed = True
            except BaseException:
                if renamed and replaced is None:
                    os.rename(to_name, from_name, src_dir_fd=to_fd, dst_dir_fd=from_fd)
                raise
        self.directories.forget(source)
        self.directories.forget(destination)

    def _same_file(self, one: Found, other: Found) -> bool:
        if self.inodes_are_identity:
            return True
        return (
            one.record is not None and other.record is not None and one.record.id == other.record.id
        )

    def unlink(self, path: str) -> None:
        self._change()
        fd, name = self.directories.at(path)
        with self._dropping(path):
            os.unlink(name, dir_fd=fd)
            self._drop(path)

    def _drop(self, path: str) -> None:
        # A full disk must let itself be emptied, and a new object's record replaces a stale one.
        try:
            self.sidecar.drop(path)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def rmdir(self, path: str) -> None:
        self._change()
        fd, name = self.directories.at(path)
        os.rmdir(name, dir_fd=fd)
        self.directories.forget(path)
        self._drop(path)

    def chmod(self, path: str, mode: int) -> None:
        found = self._to_change(path, only_if=lambda found: found.kind is not Kind.SYMLINK)
        if found.kind is Kind.SYMLINK:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        fd, name = self.directories.at(path)
        record = found.record or Record()
        set_mode(self.hosting, fd, name, found.kind, mode, record)
        self.sidecar.put(path, record)

    def chown(self, path: str, uid: int, gid: int) -> None:
        found = self._to_change(path)
        fd, name = self.directories.at(path)
        record = found.record or Record()
        change_ids(self.hosting, fd, name, found.status, uid, gid, record)
        self.sidecar.put(path, record)

    def utime(self, path: str, mtime_ns: int) -> None:
        found = self._to_change(path)
        fd, name = self.directories.at(path)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)
        if found.record is not None:
            self.sidecar.retimed(path, found.record)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        found = self._to_change(path)
        fd, file_name = self.directories.at(path)
        record = found.record or Record()
        set_xattr(self.hosting, fd, file_name, found.kind, name, value, record)
        self.sidecar.put(path, record)

    def removexattr(self, path: str, name: str) -> None:
        found = self._to_change(path)
        fd, file_name = self.directories.at(path)
        record = found.record or Record()
        remove_xattr(fd, file_name, name, record)
        self.sidecar.put(path, record)

    def truncate(self, path: str, size: int) -> None:
        found = self._to_change(path, only_if=lambda found: found.kind is Kind.FILE)
        descriptor = self.open_found(found, os.O_WRONLY)
        try:
            privileges = Privileges(descriptor)
            os.ftruncate(descriptor, size)
            privileges.restore(descriptor)
        finally:
            os.close(descriptor)

    def _change(self) -> None:
        if not self.writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._dirty = True

    def _to_change(
        self, path: str, *, only_if: Callable[[Found], bool] = lambda found: True
    ) -> Found:
        self._change()
        found = self.find(path)
        if found.kind is Kind.DIRECTORY or not only_if(found):
            return found
        return self.make_private(found)

    # -- after a kill ---------------------------------------------------------------------------

    def _making(self, path: str) -> AbstractContextManager[None]:
        """Let ``recover`` remove what is at ``path`` if we are killed before the block ends."""
        return noting(self.home, "make", path, still=lambda: self.exists(path))

    def _moving(self, source: str, destination: str) -> AbstractContextManager[None]:
        """Let ``recover`` see to it that the sidecar follows a rename if we are killed before."""
        version = self.sidecar.version
        if version is None:
            return nullcontext()
        words = ("move", source, destination, str(version))
        return noting(self.home, *words, still=lambda: not self.exists(source))

    def _dropping(self, path: str) -> AbstractContextManager[None]:
        """Let ``recover`` count the names of a file again if we are killed before the block ends.

        A record of one name may stay behind its file: nobody finds it.
        """
        if not self.sidecar.shared(path):
            return nullcontext()
        return noting(self.home, "drop", path, still=lambda: not self.exists(path))

    def clear_up(self, *noted: str) -> None:
        """Finish, or take back, what a writer had noted when it was killed (see ``unfinished``)."""
        self._change()
        match noted:
            case ("make", path) if self.exists(path):
                mtime = self.stat(parent_of(path)).mtime_ns
                self.remove_tree(path)
                self.utime(parent_of(path), mtime)
            case ("move", source, destination, version) if not self.exists(source):
                with self.sidecar.at_once():
                    if str(self.sidecar.version) == version:  # or it has followed already
                        self.sidecar.move(source, destination)
            case ("drop", path) if not self.exists(path):
                self.sidecar.drop(path)
            case _:
                pass

    # -- life -----------------------------------------------------------------------------------

    def sync(self) -> None:
        if not self._dirty:
            return
        self.sidecar.sync()
        if self._durable:
            syncfs(self.disk)
        # Stays dirty: a file opened before may still be written to before ``close``.

    def close(self) -> None:
        if self._closed:
            return
        try:
            self.sync()
        finally:
            self._closed = True
            self.close_view()
            if self._let_go is not None:
                self._let_go()
