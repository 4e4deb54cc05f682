"""Handles: open files of a tree, as ``open`` in Python gives them.

A file that is one chunk is read whole when opened: it is checked whole anyway, and a bytes buffer
answers everything after that. Longer files are read piece by piece. Writers keep what they change
in a ``Content`` and hand it to their tree when closed.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from cowshed.errors import CorruptError
from cowshed.locking import Lock

from .chunks import CHUNK_MAX, Held
from .content import Content
from .pack import DamagedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class SmallFile(io.BytesIO):
    """A file open for reading whose bytes are all here."""

    def writable(self) -> bool:
        return False

    def write(self, buffer: ReadableBuffer, /) -> NoReturn:
        raise io.UnsupportedOperation("not open for writing")

    def writelines(self, lines: object, /) -> NoReturn:
        raise io.UnsupportedOperation("not open for writing")

    def truncate(self, size: int | None = None, /) -> NoReturn:
        raise io.UnsupportedOperation("not open for writing")


class _Raw(io.RawIOBase):
    def __init__(self, content: Content, where: str, held: Lock | None = None) -> None:
        super().__init__()
        self._content = content
        self._where = where
        self._held = held
        self._at = 0

    def close(self) -> None:
        super().close()
        if self._held is not None:
            self._held.release()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = (0, self._at, self._content.size)[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(max(self._content.size - self._at, 0))

    def _read(self, count: int) -> bytes:
        try:
            data = self._content.read(self._at, count)
        except DamagedError as error:
            raise CorruptError(self._where, str(error)) from error
        self._at += len(data)
        return data


class WriteFile(_Raw):
    """A file open for writing; buffered by what ``open_writer`` wraps around it."""

    def __init__(
        self,
        content: Content,
        path: str,
        where: str,
        *,
        append: bool,
        readable: bool,
        done: Callable[[WriteFile, Held], None],
    ) -> None:
        super().__init__(content, where)
        #: Where the file is now: the tree follows renames. None: it was removed.
        self.path: str | None = path
        self.buffer: BinaryIO | None = None
        self.changed = False
        self._append = append
        self._readable = readable
        self._done = done

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return True

    def write(self, buffer: ReadableBuffer, /) -> int:
        data = memoryview(buffer).cast("B")
        if self._append:
            self._at = self._content.size
        try:
            self._content.write(self._at, data)
        except DamagedError as error:
            raise CorruptError(self._where, str(error)) from error
        self._at += len(data)
        self.changed = True
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        size = self._at if size is None else size
        try:
            self._content.truncate(size)
        except DamagedError as error:
            raise CorruptError(self._where, str(error)) from error
        self.changed = True
        return size

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._done(self, self._content.finish())
        except DamagedError as error:
            raise CorruptError(self._where, str(error)) from error
        finally:
            super().close()


def open_reader(content: Content, where: str, held: Lock | None = None) -> BinaryIO:
    """Open content for reading, piece by piece; closing it releases ``held``."""
    return io.BufferedReader(_Raw(content, where, held), CHUNK_MAX)


def open_writer(file: WriteFile) -> BinaryIO:
    """Wrap a file for writing, so that small writes don't each touch a chunk."""
    if file.readable():
        buffer: BinaryIO = io.BufferedRandom(file, CHUNK_MAX)
    else:
        buffer = io.BufferedWriter(file, CHUNK_MAX)
    file.buffer = buffer
    return buffer
