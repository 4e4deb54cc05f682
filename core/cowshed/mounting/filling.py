"""Filling: what a container has changed so far becomes an upper directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO

from ..driver import change_entries
from ..entry import Change, Entry, Kind, parent_of
from ..native.attributes import make_special, make_symlink, settle
from ..native.directories import Directories
from ..native.hosting import Hosting
from ..native.records import Record
from ..native.syscalls import write_sparse
from ..tree import Tree
from .format import Format
from .memo import Memo, Sign

_PIECE = 1 << 20


def fill(
    upper: str, format: Format, changes: Iterable[Change], container: Tree, layer: Tree | None
) -> Memo:
    """Write ``changes`` of ``container`` to ``layer`` into the empty directory ``upper``; return
    what to remember of it. Devices that can't be made here are left out, and remembered."""
    return _Filler(upper, format, container, layer).fill(changes)


class _Filler:
    def __init__(self, upper: str, format: Format, container: Tree, layer: Tree | None) -> None:
        self._directories = Directories(upper)
        self._format = format
        self._container = container
        self._layer = layer
        self._hosting = Hosting()
        self._memo = Memo({}, set())
        #: Directories in the upper one, each by the path that is below it.
        self._lowers: dict[str, str | None] = {"": ""}

    def fill(self, changes: Iterable[Change]) -> Memo:
        try:
            for entry in change_entries(changes):
                if entry.path:
                    self._put(entry)
            # Deep ones first: nothing touches a directory after its own time was set.
            for path in sorted(self._lowers, key=lambda path: -path.count("/") - bool(path)):
                self._settle(self._container.stat(path))
                self._memo.signs[path] = [self._lowers[path]]
            self._note()
            return self._memo
        finally:
            self._directories.close()

    def _put(self, entry: Entry) -> None:
        self._reach(parent_of(entry.path))
        fd, name = self._directories.at(entry.path)
        record = Record()
        match entry.kind:
            case Kind.DIRECTORY:
                self._reach(entry.path)
            case Kind.WHITEOUT:
                os.mknod(name, 0o020000, 0, dir_fd=fd)
            case Kind.HARDLINK:
                if entry.target in self._memo.hidden:
                    self._memo.hidden.add(entry.path)
                    return
                from_fd, from_name = self._directories.at(entry.target)
                os.link(from_name, name, src_dir_fd=from_fd, dst_dir_fd=fd, follow_symlinks=False)
                self._memo.signs[entry.path] = []
            case Kind.FILE:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o600, dir_fd=fd)
                try:
                    with self._container.open(entry.path) as content:
                        _copy(content, descriptor, entry.size)
                finally:
                    os.close(descriptor)
                self._settle(entry)
            case Kind.SYMLINK:
                make_symlink(fd, name, entry.target, record)
                self._settle(entry)
            case _:
                make_special(self._hosting, fd, name, entry.kind, entry.st_mode, entry.rdev, record)
                if record.kind is not None:  # it takes privilege
                    os.unlink(name, dir_fd=fd)
                    self._memo.hidden.add(entry.path)
                else:
                    self._settle(entry)

    def _reach(self, path: str) -> None:
        """Make directory ``path``, and those above."""
        todo: list[str] = []
        while path not in self._lowers:
            todo.append(path)
            path = parent_of(path)
        for path in reversed(todo):
            fd, name = self._directories.at(path)
            os.mkdir(name, 0o700, dir_fd=fd)
            below = self._below(path)
            self._lowers[path] = below
            if below is None and self._lowers[parent_of(path)] is not None:
                # What the layer has there is no directory, or nothing; what it will have, if it
                # is ever another one, doesn't matter either.
                self._format.mark(fd, name, "opaque", b"y")

    def _below(self, path: str) -> str | None:
        if self._layer is None or self._lowers[parent_of(path)] is None:
            return None
        try:
            found = self._layer.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return path if found.kind is Kind.DIRECTORY else None

    def _settle(self, entry: Entry) -> None:
        fd, name = self._directories.at(entry.path)
        format = self._format
        ids = format.uids.shown(entry.uid), format.gids.shown(entry.gid)
        xattrs = {
            (f"{format.prefix}overlay.{key.removeprefix(format.prefix)}"
             if key.startswith(format.prefix) else key): value
            for key, value in entry.xattrs.items()
        }  # fmt: skip
        # What can't be held is in the record, which nobody reads: see ``Format.meant``.
        settle(self._hosting, fd, name, entry.kind, entry.mode, *ids, xattrs, Record())
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
        if entry.kind is not Kind.DIRECTORY:
            self._memo.signs[entry.path] = []

    def _note(self) -> None:
        for path, sign in self._memo.signs.items():
            if not sign:
                fd, name = self._directories.at(path)
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                self._memo.signs[path] = sign_of(status)


def sign_of(status: os.stat_result) -> Sign:
    """Return what anything but a directory is remembered by."""
    return [status.st_ino, status.st_ctime_ns]


def _copy(content: BinaryIO, descriptor: int, size: int) -> None:
    offset = 0
    while piece := content.read(_PIECE):
        write_sparse(descriptor, piece, offset)
        offset += len(piece)
    os.ftruncate(descriptor, size)
