"""Files: what a layout or archive consists of, whether it lies in a directory or in a tar."""

from __future__ import annotations

import abc
import io
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from cowshed.errors import (
    LimitExceededError,
    NotFoundError,
    SourceError,
)
from cowshed.oci import MAX_DOCUMENT

#: Bytes that a compressed archive may unpack to for each of its own, beyond the first GiB.
MAX_RATIO = 200


class Files(abc.ABC):
    """Regular files by relative name."""

    #: How messages name the place.
    where: str

    @abc.abstractmethod
    def size(self, name: str) -> int | None:
        """Return the file's size; None if there is no such file."""

    @abc.abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file; any number may be open at once. Raises SourceError if it is missing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go. Twice is fine."""

    def read(self, name: str, limit: int = MAX_DOCUMENT) -> bytes:
        """Return a whole small file."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceededError(f"{name!r} in {self.where}", limit)
        return data

    def missing(self, name: str) -> SourceError:
        """Return the error for a file that should be there."""
        return SourceError(f"{self.where} has no file {name!r}; it is incomplete")


class DirectoryFiles(Files):
    """Files below a directory. Links are followed: build tools make layouts of links."""

    def __init__(self, root: Path, where: str) -> None:
        self._root = root
        self.where = where

    def size(self, name: str) -> int | None:
        try:
            status = os.stat(self._root / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, name: str) -> BinaryIO:
        try:
            # Not blocking, lest a fifo hold us up for ever.
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise self.missing(name) from None
        except OSError as error:
            raise SourceError(f"can't read {name!r} in {self.where}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceError(f"{name!r} in {self.where} is not a regular file")
        return os.fdopen(descriptor, "rb")

    def close(self) -> None:
        pass


class Slice(io.RawIOBase):
    """A part of a file, read at offsets of its own so that several can be read at once."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._offset = offset
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = os.preadv(self._file.fileno(), [view], self._offset) if view else 0
        self._offset += count
        self._left -= count
        return count


def open_file(path: str) -> BinaryIO:
    """Open a file that the user named."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115  # the caller closes it
    except FileNotFoundError:
        raise NotFoundError("file", path) from None
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror}") from error
    if file.seekable():
        return file
    with file:  # a fifo, or <(…)
        return spool(file, path, None)


def whole(file: BinaryIO) -> BinaryIO:
    """Return a reader of a seekable file from its first byte, independent of any other."""
    size = os.fstat(file.fileno()).st_size
    return io.BufferedReader(Slice(file, 0, size), 1 << 18)


def spool(source: BinaryIO, where: str, packed: int | None = None) -> BinaryIO:
    """Copy to a temporary file without a name; ``packed`` bytes bound what they unpack to."""
    limit = None if packed is None else (1 << 30) + packed * MAX_RATIO
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        done = 0
        while piece := source.read(1 << 20):
            file.write(piece)
            done += len(piece)
            if limit is not None and done > limit:
                raise LimitExceededError(f"{where}, unpacked,", limit)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file
