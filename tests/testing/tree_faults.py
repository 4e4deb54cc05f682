"""Drivers with one fault each in their trees, or in the changes of these."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import attrs

from cowshed.driver import Held
from cowshed.entry import Change, ChangeKind, Entry, Kind, parent_of
from cowshed.testing import MemoryDriver
from cowshed.testing.memory_tree import MemoryTree, Volume, _numbers, order
from cowshed.tree import OpenMode, Tree

from .faults import ChangedTree


class DescribesHalf(MemoryDriver):
    """Changes say nothing of xattrs."""

    def changes(self, container: str) -> Iterator[Change]:
        for change in super().changes(container):
            yield Change(change.kind, attrs.evolve(change.entry, xattrs={}))


class ListsChangesByText(MemoryDriver):
    """Changes are sorted as text, so that what is in a directory doesn't follow it."""

    def changes(self, container: str) -> Iterator[Change]:
        return iter(sorted(super().changes(container), key=lambda change: change.path))


class _Noting(MemoryTree):
    def _writable(self, path: str) -> None:
        super()._writable(path)
        vars(self.volume).setdefault("touched", set()).add(path)


class RemembersTouching(ChangedTree):
    """What was written to is a change, even if it is what it was."""

    kind = _Noting

    def changes(self, container: str) -> Iterator[Change]:
        found = {change.path: change for change in super().changes(container)}
        volume = self._store.volumes[container]
        for path in vars(volume).get("touched", set()) & volume.nodes.keys():
            found.setdefault(path, Change(ChangeKind.MODIFIED, volume.entry(path)))
        return iter([found[path] for path in sorted(found, key=order)])


class WritableViews(MemoryDriver):
    """A container that was opened to be read takes writes."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        container = self._item(id).held is Held.CONTAINER
        return super().tree(id, writable=writable or container)


class _Transparent(MemoryTree):
    below: Volume

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        super().mkdir(path, mode)
        for old in self.below.below(path):
            self.volume.nodes[old] = self.below.nodes[old]


class RevivesChildren(ChangedTree):
    """A directory that is made where one was shows what was in that."""

    kind = _Transparent

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, _Transparent)
        tree.below = self._store.bases.get(id, Volume())
        return tree


class _Hollow(MemoryTree):
    def rename(self, source: str, destination: str) -> None:
        super().rename(source, destination)
        for path in self.volume.below(destination):
            del self.volume.nodes[path]


class MovesDirectoriesOnly(ChangedTree):
    """What is in a directory doesn't move with it."""

    kind = _Hollow


class _Breaking(MemoryTree):
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        node = self.volume.nodes.get(path)
        if mode != "rb" and node is not None and len(self.volume.names(node)) > 1:
            copied = attrs.evolve(node, data=bytearray(node.data), number=next(_numbers))
            self.volume.nodes[path] = copied
        return super().open(path, mode)


class BreaksHardLinks(ChangedTree):
    """Writing to one name of a file makes it a file of its own."""

    kind = _Breaking


class _Forgetting(MemoryTree):
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        if mode != "rb" and path in self.volume.nodes:
            self.volume.nodes[path].xattrs.clear()
        return super().open(path, mode)


class WritingLosesXattrs(ChangedTree):
    """A file that is written to is made anew, without its xattrs."""

    kind = _Forgetting


class _Adding(MemoryTree):
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        if name not in self._find(path).xattrs:
            super().setxattr(path, name, value)


class NeverReplacesXattrs(ChangedTree):
    """An xattr that is there stays what it is."""

    kind = _Adding


class _FilesOnly(MemoryTree):
    def utime(self, path: str, mtime_ns: int) -> None:
        if self._find(path).kind is Kind.FILE:
            super().utime(path, mtime_ns)


class SetsTimesOfFilesOnly(ChangedTree):
    """utime of anything else does nothing."""

    kind = _FilesOnly


class _Piping(MemoryTree):
    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        super().mknod(path, stat.S_IFIFO | stat.S_IMODE(mode))


class MakesEverythingAPipe(ChangedTree):
    """mknod knows one kind."""

    kind = _Piping


class _Ruthless(MemoryTree):
    def rmdir(self, path: str) -> None:
        for below in self.volume.below(path):
            del self.volume.nodes[below]
        super().rmdir(path)


class RemovesFullDirectories(ChangedTree):
    """rmdir takes what is in the directory."""

    kind = _Ruthless


class _Generous(MemoryTree):
    def mkdir(self, path: str, mode: int = 0o755) -> None:
        above = parent_of(path)
        if above and above not in self.volume.nodes:
            self.mkdir(above)
        super().mkdir(path, mode)


class MakesParents(ChangedTree):
    """mkdir makes what is missing on the way."""

    kind = _Generous


class _Touching(MemoryTree):
    def apply(self, entry: Entry, content: BinaryIO | None = None) -> None:
        super().apply(entry, content)
        self._touch(parent_of(entry.path))


class ApplyTouchesParents(ChangedTree):
    """What an entry is applied in gets a fresh mtime."""

    kind = _Touching


class _Backwards(MemoryTree):
    def walk(self, path: str = "") -> Iterator[Entry]:
        return iter(list(super().walk(path))[::-1])


class WalksBackwards(ChangedTree):
    """walk comes to what is in a directory before it."""

    kind = _Backwards


class _Paging(MemoryTree):
    def scandir(self, path: str) -> Iterator[Entry]:
        return islice(super().scandir(path), 500)


class ListsOnePage(ChangedTree):
    """A directory shows five hundred names."""

    kind = _Paging


class _Brief(MemoryTree):
    def listdir(self, path: str) -> Iterator[str]:
        return islice(super().listdir(path), 999)


class ListsFewerThanItDescribes(ChangedTree):
    """listdir gives fewer names than scandir."""

    kind = _Brief


class _Shallow(MemoryTree):
    def _directory(self, path: str) -> None:
        if path.count("/") > 100:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        super()._directory(path)


class IsAHundredLevelsDeep(ChangedTree):
    """What is further down can't be reached."""

    kind = _Shallow


class _Short(MemoryTree):
    def _directory(self, path: str) -> None:
        if len(path) > 4000:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        super()._directory(path)


class HandsWholePathsOver(ChangedTree):
    """A path is no longer than a system call takes."""

    kind = _Short


class _Once(MemoryTree):
    _open = True

    def close(self) -> None:
        if not self._open:
            raise ValueError("closed already")
        self._open = False


class ClosesOnce(ChangedTree):
    """Closing a tree twice is an error."""

    kind = _Once
