"""Writing: content in the making, in a file of its own that becomes the node's when it is closed.

So a write happens whole or not at all, and whoever reads or shares the old content keeps it. It
costs a copy where part of a large file is written; extents are shared where the file system can.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from ..native.syscalls import copy_data
from ..tree import OpenMode, now_ns
from .node import Node

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Contents(Protocol):
    """What a tree says about contents."""

    durable: bool

    def read(self, node: Node) -> BinaryIO: ...

    def aside(self) -> Path: ...

    def keep(self, aside: Path) -> str: ...


def open_to_write(contents: Contents, node: Node, mode: OpenMode) -> BinaryIO:
    """Open a file to write in it; ``xb`` has been judged already."""
    aside = contents.aside()
    with aside.open("xb") as new:
        aside.chmod(0o600)  # whatever the umask
        if node.content and mode in ("r+b", "ab"):
            with contents.read(node) as old:
                copy_data(old.fileno(), new.fileno(), node.size)
    raw = _Writing(contents, node, mode, aside)
    return cast(BinaryIO, io.BufferedRandom(raw) if mode == "r+b" else io.BufferedWriter(raw))


class _Writing(io.FileIO):
    def __init__(self, contents: Contents, node: Node, mode: OpenMode, aside: Path) -> None:
        self._contents = contents
        self._node = node
        self._aside = aside
        #: Opening and writing nothing leaves the mtime alone, unless it emptied the file.
        self._changed = mode == "wb"
        self._failed = False
        super().__init__(aside, {"r+b": "r+", "ab": "a"}.get(mode, "w"))

    def write(self, data: ReadableBuffer, /) -> int:
        self._changed = True
        try:
            return super().write(data)
        except OSError:
            self._failed = True
            raise

    def truncate(self, size: int | None = None, /) -> int:
        self._changed = True
        try:
            return super().truncate(size)
        except OSError:
            self._failed = True
            raise

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._contents.durable and self._changed:
                os.fsync(self.fileno())
            size = os.fstat(self.fileno()).st_size
            super().close()
            if self._changed and not self._failed:
                content = self._contents.keep(self._aside) if size else ""
                self._node.content, self._node.size = content, size
                self._node.mtime_ns = now_ns()
        finally:
            super().close()
            self._aside.unlink(missing_ok=True)
