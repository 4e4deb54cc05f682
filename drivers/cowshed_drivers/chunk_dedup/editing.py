"""Editing: the calls on a container's tree that change names and attributes, in an overlay."""

from __future__ import annotations

import errno
import stat as stat_module

from cowshed.entry import Kind, kind_of, parent_of
from cowshed.tree import now_ns

from .handle import WriteFile
from .node import Listing
from .overlay import Overlay, check_name, failure
from .pack import DamagedError
from .reading import ReadTree
from .record import (
    DIRECTORY,
    DROPPED_XATTRS,
    NUMBERS,
    SYMLINK,
    Record,
    change,
    inode_of,
    make,
    split,
)
from .store import Store


class EditTree(ReadTree):
    """A tree in an overlay, without content and commits."""

    writable = True
    _ordered = False

    def __init__(self, store: Store, id: str) -> None:
        super().__init__(store, id)
        self._overlay: Overlay
        self._handles: set[WriteFile] = set()
        self._closed = False

    def _root(self) -> Record:
        return self._overlay.record

    def _entries(self, path: str) -> Listing:
        return self._overlay.entries(path)

    def _check(self) -> None:
        if self._closed:
            raise ValueError("the tree is closed")

    # -- creating -----------------------------------------------------------------------------

    def _vacant(self, path: str) -> None:
        """Refuse a path where something is, or that can't hold anything."""
        self._check()
        if not path:
            raise failure(errno.EEXIST, path)
        check_name(path.rpartition("/")[2], path)
        self._entries_above(path)
        if self._overlay.find(path) is not None:
            raise failure(errno.EEXIST, path)

    def _entries_above(self, path: str) -> Listing:
        try:
            return self._overlay.entries(parent_of(path))
        except DamagedError as error:
            self._corrupt(path, error)

    def _create(self, path: str, record: Record) -> None:
        self._overlay.create(path, record)
        self._overlay.touch(parent_of(path), now_ns())

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._vacant(path)
        self._create(path, make(DIRECTORY, mode=mode & 0o7777, mtime_ns=now_ns()))

    def symlink(self, target: str, path: str) -> None:
        self._vacant(path)
        text = target.encode("utf-8", "surrogateescape")
        if not text or b"\0" in text:
            raise failure(errno.ENOENT if not text else errno.EINVAL, path)
        self._create(path, make(SYMLINK, mode=0o777, mtime_ns=now_ns(), payload=text))

    def link(self, existing: str, path: str) -> None:
        self._check()
        record = self._record(existing)
        if record[0] == DIRECTORY:
            raise failure(errno.EPERM, existing)
        self._vacant(path)
        self._overlay.link(existing, path)
        self._overlay.touch(parent_of(path), now_ns())

    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        self._vacant(path)
        kind = kind_of(mode)
        if kind is None and not stat_module.S_IFMT(mode):
            kind = Kind.FILE
        if kind is None or kind is Kind.DIRECTORY or kind is Kind.SYMLINK:
            raise failure(errno.EPERM if kind is Kind.DIRECTORY else errno.EINVAL, path)
        device = kind is Kind.CHAR or kind is Kind.BLOCK
        record = make(
            NUMBERS[kind],
            mode=stat_module.S_IMODE(mode),
            mtime_ns=now_ns(),
            payload=rdev.to_bytes(8, "little") if device else b"",
        )
        self._create(path, record)

    # -- moving and removing ------------------------------------------------------------------

    def rename(self, source: str, destination: str) -> None:
        self._check()
        if not source or not destination:
            raise failure(errno.EBUSY, source or destination)
        record = self._record(source)
        check_name(destination.rpartition("/")[2], destination)
        self._entries_above(destination)
        if destination.startswith(source + "/"):
            raise failure(errno.EINVAL, destination)
        old = self._overlay.find(destination)
        if old is not None:
            if source == destination or (inode_of(old) and inode_of(old) == inode_of(record)):
                return
            if old[0] == DIRECTORY:
                if record[0] != DIRECTORY:
                    raise failure(errno.EISDIR, destination)
                if self._overlay.entries(destination):
                    raise failure(errno.ENOTEMPTY, destination)
            elif record[0] == DIRECTORY:
                raise failure(errno.ENOTDIR, destination)
            self._overlay.delete(destination)
            self._orphan(destination)
        self._overlay.move(source, destination)
        for handle in self._handles:
            if handle.path == source:
                handle.path = destination
            elif handle.path is not None and handle.path.startswith(source + "/"):
                handle.path = destination + handle.path[len(source) :]
        now = now_ns()
        self._overlay.touch(parent_of(source), now)
        self._overlay.touch(parent_of(destination), now)

    def unlink(self, path: str) -> None:
        self._check()
        if self._record(path)[0] == DIRECTORY:
            raise failure(errno.EISDIR, path)
        self._orphan(path)
        self._overlay.delete(path)
        self._overlay.touch(parent_of(path), now_ns())

    def rmdir(self, path: str) -> None:
        self._check()
        if not path:
            raise failure(errno.EBUSY, path)
        if self._record(path)[0] != DIRECTORY:
            raise failure(errno.ENOTDIR, path)
        if self._overlay.entries(path):
            raise failure(errno.ENOTEMPTY, path)
        self._overlay.delete(path)
        self._overlay.touch(parent_of(path), now_ns())

    def _orphan(self, path: str) -> None:
        """Let open files at or below ``path`` write on to another name, or to nowhere."""
        for handle in self._handles:
            at = handle.path
            if at is None or not (at == path or at.startswith(path + "/")):
                continue
            record = self._overlay.find(at) if at == path else None
            inode = inode_of(record) if record else 0
            names = self._overlay.names(inode) - {at} if inode else ()
            handle.path = min(names, default=None)

    def remove_tree(self, path: str) -> None:
        # One step instead of one call per object; the same result.
        self._check()
        record = self._record(path)
        if record[0] != DIRECTORY:
            self.unlink(path)
            return
        for handle in self._handles:
            if handle.path is not None and (not path or handle.path.startswith(path + "/")):
                handle.path = None
        if path:
            self._overlay.delete(path)
            self._overlay.touch(parent_of(path), now_ns())
        elif self._overlay.entries(""):
            self._overlay.clear("")
            self._overlay.touch("", now_ns())

    # -- attributes ---------------------------------------------------------------------------

    def _change(self, path: str, **changed: object) -> None:
        self._check()
        self._overlay.replace(path, change(self._record(path), **changed))

    def chmod(self, path: str, mode: int) -> None:
        if self._record(path)[0] == SYMLINK:
            raise failure(errno.EOPNOTSUPP, path)
        self._change(path, mode=stat_module.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._change(path, uid=uid, gid=gid)

    def utime(self, path: str, mtime_ns: int) -> None:
        self._change(path, mtime_ns=mtime_ns)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        xattrs = dict(split(self._record(path))[3])
        if name not in DROPPED_XATTRS:
            xattrs[name] = bytes(value)
            self._change(path, xattrs=xattrs)

    def removexattr(self, path: str, name: str) -> None:
        xattrs = dict(split(self._record(path))[3])
        if name not in xattrs:
            raise failure(errno.ENODATA, path)
        del xattrs[name]
        self._change(path, xattrs=xattrs)
