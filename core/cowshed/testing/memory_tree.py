"""MemoryTree: what every operation on a ``Tree`` means, in plain dictionaries.

Together with ``memory`` this is the executable specification. A volume is one dictionary from
path to node; two paths with the same node are hard links. Nothing is clever or fast here.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat as stat_module
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NoReturn, cast

import attrs

from ..entry import Entry, Kind, kind_of, parent_of
from ..tree import OpenMode, Tree, now_ns

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_numbers = itertools.count(1)


@attrs.define(eq=False, kw_only=True)
class Node:
    """An inode."""

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = attrs.field(factory=now_ns)
    target: str = ""
    rdev: int = 0
    data: bytearray = attrs.field(factory=bytearray)
    xattrs: dict[str, bytes] = attrs.field(factory=dict[str, bytes])
    number: int = attrs.field(factory=_numbers.__next__)


class Volume:
    """All of one layer's or container's objects by path; the root is the empty path."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {"": Node(kind=Kind.DIRECTORY, mode=0o755)}

    def copy(self) -> Volume:
        """Return an equal volume that shares nothing with this one, hard links kept."""
        copies = {
            node.number: attrs.evolve(
                node, data=bytearray(node.data), xattrs=dict(node.xattrs), number=next(_numbers)
            )
            for node in self.nodes.values()
        }
        new = Volume()
        new.nodes = {path: copies[node.number] for path, node in self.nodes.items()}
        return new

    def names(self, node: Node) -> list[str]:
        """Return every path of ``node``."""
        return [path for path, other in self.nodes.items() if other is node]

    def entry(self, path: str) -> Entry:
        """Describe the object at ``path``."""
        node = self.nodes[path]
        return Entry(
            path=path,
            kind=node.kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime_ns=node.mtime_ns,
            size=len(node.data),
            target=node.target,
            rdev=node.rdev,
            xattrs=dict(node.xattrs),
            inode=node.number,
            links=1 if node.kind is Kind.DIRECTORY else len(self.names(node)),
        )

    def below(self, path: str) -> list[str]:
        """Return the paths of everything below directory ``path``."""
        return [other for other in self.nodes if other and (not path or is_below(other, path))]


def is_below(path: str, directory: str) -> bool:
    """Say whether ``path`` is somewhere below ``directory``, which isn't the root."""
    return path.startswith(f"{directory}/")


def order(path: str) -> list[bytes]:
    """Return the key of path order: parents first, names by their bytes."""
    return [part.encode("utf-8", "surrogateescape") for part in path.split("/")] if path else []


class MemoryTree(Tree):
    """A tree over a volume. Closing has nothing to do: writes are in the volume at once."""

    def __init__(self, volume: Volume, *, writable: bool) -> None:
        self.volume = volume
        self.writable = writable

    # -- reading ------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry:
        self._find(path)
        return self.volume.entry(path)

    def scandir(self, path: str) -> Iterator[Entry]:
        self._directory(path)
        children = [other for other in self.volume.nodes if other and parent_of(other) == path]
        return map(self.volume.entry, sorted(children, key=order))

    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        if mode != "rb":
            self._writable(path)
        self._directory(parent_of(path))
        node = self.volume.nodes.get(path)
        if node is None:
            if mode in ("rb", "r+b"):
                _fail(errno.ENOENT, path)
            node = Node(kind=Kind.FILE, mode=0o644)
            self._put(path, node)
        elif mode == "xb":
            _fail(errno.EEXIST, path)
        elif node.kind is Kind.DIRECTORY:
            _fail(errno.EISDIR, path)
        elif node.kind is not Kind.FILE:
            _fail(errno.ELOOP if node.kind is Kind.SYMLINK else errno.EINVAL, path)
        elif mode == "wb":
            self._resize(node, 0)
        return cast(BinaryIO, _File(node, mode))

    # -- writing ------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._create(path, Node(kind=Kind.DIRECTORY, mode=stat_module.S_IMODE(mode)))

    def symlink(self, target: str, path: str) -> None:
        self._create(path, Node(kind=Kind.SYMLINK, mode=0o777, target=target))

    def link(self, existing: str, path: str) -> None:
        node = self._find(existing)
        if node.kind is Kind.DIRECTORY:
            _fail(errno.EPERM, existing)
        self._create(path, node)

    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        kind = kind_of(mode) or Kind.FILE
        if kind in (Kind.DIRECTORY, Kind.SYMLINK):
            _fail(errno.EINVAL, path)
        number = rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0
        self._create(path, Node(kind=kind, mode=stat_module.S_IMODE(mode), rdev=number))

    def rename(self, source: str, destination: str) -> None:
        self._writable(source)
        moved = self._find(source)
        self._directory(parent_of(destination))
        if not source or not destination:
            _fail(errno.EBUSY, source)
        nodes = self.volume.nodes
        replaced = nodes.get(destination)
        if replaced is moved:
            return
        if is_below(destination, source):
            _fail(errno.EINVAL, destination)
        if replaced is not None:
            if moved.kind is Kind.DIRECTORY and replaced.kind is not Kind.DIRECTORY:
                _fail(errno.ENOTDIR, destination)
            if moved.kind is not Kind.DIRECTORY and replaced.kind is Kind.DIRECTORY:
                _fail(errno.EISDIR, destination)
            if self.volume.below(destination):
                _fail(errno.ENOTEMPTY, destination)
        for path in [source, *self.volume.below(source)]:
            nodes[destination + path[len(source) :]] = nodes.pop(path)
        self._touch(parent_of(source))
        self._touch(parent_of(destination))

    def unlink(self, path: str) -> None:
        self._writable(path)
        if self._find(path).kind is Kind.DIRECTORY:
            _fail(errno.EISDIR, path)
        self._drop(path)

    def rmdir(self, path: str) -> None:
        self._writable(path)
        self._directory(path)
        if not path:
            _fail(errno.EBUSY, path)
        if self.volume.below(path):
            _fail(errno.ENOTEMPTY, path)
        self._drop(path)

    def chmod(self, path: str, mode: int) -> None:
        self._writable(path)
        node = self._find(path)
        if node.kind is Kind.SYMLINK:
            _fail(errno.EOPNOTSUPP, path)
        node.mode = stat_module.S_IMODE(mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._writable(path)
        node = self._find(path)
        node.uid, node.gid = uid, gid

    def utime(self, path: str, mtime_ns: int) -> None:
        self._writable(path)
        self._find(path).mtime_ns = mtime_ns

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self._writable(path)
        self._find(path).xattrs[name] = bytes(value)

    def removexattr(self, path: str, name: str) -> None:
        self._writable(path)
        if self._find(path).xattrs.pop(name, None) is None:
            _fail(errno.ENODATA, path)

    def truncate(self, path: str, size: int) -> None:
        self._writable(path)
        node = self._find(path)
        if node.kind is not Kind.FILE:
            _fail(errno.EISDIR if node.kind is Kind.DIRECTORY else errno.EINVAL, path)
        self._resize(node, size)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass

    # -- how ----------------------------------------------------------------------------------

    def _writable(self, path: str) -> None:
        if not self.writable:
            _fail(errno.EROFS, path)

    def _find(self, path: str) -> Node:
        if path:
            self._directory(parent_of(path))
        node = self.volume.nodes.get(path)
        return node if node is not None else _fail(errno.ENOENT, path)

    def _directory(self, path: str) -> None:
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            node = self.volume.nodes.get("/".join(parts[:depth]))
            if node is None:
                _fail(errno.ENOENT, path)
            if node.kind is not Kind.DIRECTORY:
                _fail(errno.ENOTDIR, path)

    def _create(self, path: str, node: Node) -> None:
        self._writable(path)
        self._directory(parent_of(path))
        if path in self.volume.nodes:
            _fail(errno.EEXIST, path)
        self._put(path, node)

    def _put(self, path: str, node: Node) -> None:
        self.volume.nodes[path] = node
        self._touch(parent_of(path))

    def _drop(self, path: str) -> None:
        del self.volume.nodes[path]
        self._touch(parent_of(path))

    def _touch(self, path: str) -> None:
        self.volume.nodes[path].mtime_ns = now_ns()

    def _resize(self, node: Node, size: int) -> None:
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        node.mtime_ns = now_ns()


class _File(io.RawIOBase):
    """An open file; every write goes to the node at once."""

    def __init__(self, node: Node, mode: OpenMode) -> None:
        super().__init__()
        self._node = node
        self._mode = mode
        self._position = 0

    def readable(self) -> bool:
        return self._mode in ("rb", "r+b")

    def writable(self) -> bool:
        return self._mode != "rb"

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._node.data)}
        self._position = start[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self.readable():
            raise io.UnsupportedOperation("read")
        view = memoryview(buffer).cast("B")
        found = self._node.data[self._position : self._position + len(view)]
        view[: len(found)] = found
        self._position += len(found)
        return len(found)

    def write(self, data: ReadableBuffer, /) -> int:
        if not self.writable():
            raise io.UnsupportedOperation("write")
        new = bytes(data)
        content = self._node.data
        if self._mode == "ab":
            self._position = len(content)
        if new:
            content.extend(bytes(max(0, self._position - len(content))))
            content[self._position : self._position + len(new)] = new
            self._position += len(new)
            self._node.mtime_ns = now_ns()
        return len(new)

    def truncate(self, size: int | None = None, /) -> int:
        if not self.writable():
            raise io.UnsupportedOperation("truncate")
        wanted = self._position if size is None else size
        del self._node.data[wanted:]
        self._node.data.extend(bytes(wanted - len(self._node.data)))
        self._node.mtime_ns = now_ns()
        return wanted


def _fail(code: int, path: str) -> NoReturn:
    raise OSError(code, os.strerror(code), path)
