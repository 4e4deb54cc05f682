"""IndexedTree: a ``Tree`` over nodes in memory."""

from __future__ import annotations

import abc
import errno
import io
import os
import stat as stat_module
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..entry import Entry, Kind, join, kind_of, parent_of
from ..tree import OpenMode, Tree, now_ns
from .node import Node
from .writing import open_to_write


class IndexedTree(Tree):
    """A driver says where contents are; for trees that are written, it keeps ``root`` on ``sync``.

    What is written to a file goes aside and becomes its content once the file is closed, whole or
    not at all: contents never change, so they may be shared. Of two that write to one file at once,
    who closes last wins.
    """

    def __init__(self, root: Node, *, writable: bool = False, durable: bool = True) -> None:
        self.root = root
        self.writable = writable
        self.durable = durable

    # -- what a driver says ---------------------------------------------------------------------

    @abc.abstractmethod
    def read(self, node: Node) -> BinaryIO:
        """Open the content of a file that isn't empty: a real file, with a descriptor."""

    @abc.abstractmethod
    def aside(self) -> Path:
        """Return a fresh path for content in the making."""

    @abc.abstractmethod
    def keep(self, aside: Path) -> str:
        """Keep finished content, never empty; return what ``Node.content`` is to say. It is
        durable already if that was asked for; its new name isn't."""

    # -- finding --------------------------------------------------------------------------------

    def find(self, path: str) -> Node:
        """Return the node at ``path``."""
        node = self.root
        for name in path.split("/") if path else ():
            if node.kind is not Kind.DIRECTORY:
                raise _error(errno.ENOTDIR, path)
            if name not in node.children:
                raise _error(errno.ENOENT, path)
            node = node.children[name]
        return node

    def _directory(self, path: str) -> Node:
        node = self.find(path)
        if node.kind is not Kind.DIRECTORY:
            raise _error(errno.ENOTDIR, path)
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        """Return the directory and the name in it that ``path`` means."""
        if not path:
            raise _error(errno.EBUSY, path)
        return self._directory(parent_of(path)), path.rpartition("/")[2]

    def _change(self, path: str) -> None:
        if not self.writable:
            raise _error(errno.EROFS, path)

    # -- reading --------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry:
        return self.find(path).entry(path)

    def scandir(self, path: str) -> Iterator[Entry]:
        children = self._directory(path).children
        return (
            children[name].entry(join(path, name)) for name in sorted(children, key=os.fsencode)
        )

    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        if mode != "rb":
            self._change(path)
        try:
            node = self.find(path)
        except FileNotFoundError:
            if mode in ("rb", "r+b"):
                raise
            node = Node(kind=Kind.FILE, mode=0o644)
            self._add(path, node)
        else:
            if mode == "xb":
                raise _error(errno.EEXIST, path)
            if node.kind is not Kind.FILE:
                codes = {Kind.DIRECTORY: errno.EISDIR, Kind.SYMLINK: errno.ELOOP}
                raise _error(codes.get(node.kind, errno.EINVAL), path)
        if mode == "rb":
            return self.read(node) if node.content else io.BytesIO()
        return open_to_write(self, node, mode)

    # -- writing --------------------------------------------------------------------------------

    def _add(self, path: str, node: Node) -> None:
        self._change(path)
        directory, name = self._place(path)
        if name in directory.children:
            raise _error(errno.EEXIST, path)
        directory.children[name] = node
        directory.mtime_ns = now_ns()

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._add(path, Node(kind=Kind.DIRECTORY, mode=stat_module.S_IMODE(mode)))

    def symlink(self, target: str, path: str) -> None:
        self._add(path, Node(kind=Kind.SYMLINK, mode=0o777, target=target))

    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        kind = kind_of(mode) or Kind.FILE
        if kind in (Kind.DIRECTORY, Kind.SYMLINK):
            raise _error(errno.EINVAL, path)
        self._add(path, Node(kind=kind, mode=stat_module.S_IMODE(mode), rdev=rdev))

    def link(self, existing: str, path: str) -> None:
        self._change(path)
        node = self.find(existing)
        if node.kind is Kind.DIRECTORY:
            raise _error(errno.EPERM, existing)
        self._add(path, node)
        node.links += 1

    def rename(self, source: str, destination: str) -> None:
        self._change(source)
        moved = self.find(source)
        old, name = self._place(source)
        new, new_name = self._place(destination)
        replaced = new.children.get(new_name)
        if replaced is moved:
            return  # rename(2): two names of one file stay
        if f"{destination}/".startswith(f"{source}/"):
            raise _error(errno.EINVAL, destination)
        if replaced is not None:
            _refuse_to_replace(moved, replaced, destination)
            replaced.links -= 1
        new.children[new_name] = old.children.pop(name)
        old.mtime_ns = new.mtime_ns = now_ns()

    def unlink(self, path: str) -> None:
        self._change(path)
        if self.find(path).kind is Kind.DIRECTORY:
            raise _error(errno.EISDIR, path)
        self._drop(path)

    def rmdir(self, path: str) -> None:
        self._change(path)
        if self._directory(path).children:
            raise _error(errno.ENOTEMPTY, path)
        self._drop(path)

    def _drop(self, path: str) -> None:
        directory, name = self._place(path)
        directory.children.pop(name).links -= 1
        directory.mtime_ns = now_ns()

    def chmod(self, path: str, mode: int) -> None:
        self._change(path)
        node = self.find(path)
        if node.kind is Kind.SYMLINK:
            raise _error(errno.EOPNOTSUPP, path)
        node.mode = stat_module.S_IMODE(mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._change(path)
        node = self.find(path)
        node.uid, node.gid = uid, gid

    def utime(self, path: str, mtime_ns: int) -> None:
        self._change(path)
        self.find(path).mtime_ns = mtime_ns

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self._change(path)
        self.find(path).xattrs[name] = bytes(value)

    def removexattr(self, path: str, name: str) -> None:
        self._change(path)
        if self.find(path).xattrs.pop(name, None) is None:
            raise _error(errno.ENODATA, path)

    def truncate(self, path: str, size: int) -> None:
        with self.open(path, "r+b") as content:
            content.truncate(size)

    # -- life -----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Nothing to keep: right for a tree that is only read."""

    def close(self) -> None:
        self.sync()


def _refuse_to_replace(moved: Node, replaced: Node, destination: str) -> None:
    if moved.kind is Kind.DIRECTORY and replaced.kind is not Kind.DIRECTORY:
        raise _error(errno.ENOTDIR, destination)
    if moved.kind is not Kind.DIRECTORY and replaced.kind is Kind.DIRECTORY:
        raise _error(errno.EISDIR, destination)
    if replaced.children:
        raise _error(errno.ENOTEMPTY, destination)


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
