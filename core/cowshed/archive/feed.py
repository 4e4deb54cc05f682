"""Feed: the tar as a stream of chunks that a second thread reads ahead.

Reading, decompressing and hashing all release the interpreter's lock, so they run in a thread of
their own while the caller parses headers and the driver writes. At most ``AHEAD`` chunks wait in
between: memory stays bounded however slow the driver is.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from ..errors import ArchiveError
from .inflate import crc32

if TYPE_CHECKING:
    from hashlib import _Hash  # pyright: ignore[reportPrivateUsage] — a type that has no public name

CHUNK = 1 << 20
AHEAD = 4
Run = tuple[int, int]


class ReadAhead:
    """Iterate over a stream's chunks, read and hashed by a thread. Leave the context to stop it."""

    def __init__(self, source: BinaryIO, hasher: _Hash, chunk: int = CHUNK) -> None:
        self._source = source
        self._hasher = hasher
        self._chunk = chunk
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="cowshed-read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The thread must be gone before the caller closes what it reads from.
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(0.05)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            if not item:
                return
            yield item

    def _run(self) -> None:
        try:
            while not self._stopped:
                data = self._source.read(self._chunk)
                self._hasher.update(data)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:
            self._queue.put(error)


class Feed:
    """Take exact numbers of bytes from chunks."""

    def __init__(self, chunks: Iterator[bytes], on_chunk: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._on_chunk = on_chunk
        self._chunk: bytes = b""
        self._at = 0
        self._before = 0

    @property
    def offset(self) -> int:
        """How many bytes were taken so far."""
        return self._before + self._at

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end of the stream."""
        end = self._at + size
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            return data
        parts: list[bytes] = []
        while size:
            data = self.take_some(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def take_some(self, size: int) -> bytes:
        """Return at least one and up to ``size`` bytes without copying them together."""
        if self._at == len(self._chunk):
            self._before += self._at
            self._at = 0
            self._chunk = next(self._chunks, b"")
            self._on_chunk(len(self._chunk))
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data


class Payload(io.BufferedIOBase):
    """The content of one member as a file that ends where the member ends.

    Checksums what it gives out, run by run: ``checksums`` has one CRC-32 for each run of data.
    """

    def __init__(self, feed: Feed, size: int, where: str) -> None:
        self._feed = feed
        self._left: int = size
        self._where = where
        self._checksum = 0

    def readable(self) -> bool:
        return True

    @property
    def left(self) -> int:
        """Bytes that nobody has read yet."""
        return self._left

    @property
    def checksums(self) -> list[int]:
        return [self._checksum]

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._left
        if size is None or size < 0 or size > left:
            size = left
        data = self._feed.take(size)
        if len(data) < size:
            raise truncated(self._where)
        self._left = left - size
        self._checksum = crc32(data, self._checksum)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(CHUNK if size < 0 else size)


class SparsePayload(Payload):
    """A sparse member's content with its holes filled with zeros."""

    def __init__(self, feed: Feed, size: int, where: str, runs: list[Run]) -> None:
        super().__init__(feed, size, where)
        self._size = size
        self._runs = [*runs, (size, 0)]
        self._index = 0
        self._done = 0  # bytes of the current run given out
        self._checksums: list[int] = []

    @property
    def checksums(self) -> list[int]:
        self._close_runs()
        return self._checksums

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > self._left:
            size = self._left
        parts: list[bytes] = []
        while size:
            data = self._some(size)
            parts.append(data)
            size -= len(data)
        if not self._left:
            self._close_runs()
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        self._close_runs()
        start, length = self._runs[self._index]
        at = self._size - self._left
        if at < start:
            data = bytes(min(size, start - at, CHUNK))
        else:
            data = self._feed.take_some(min(size, length - self._done))
            if not data:
                raise truncated(self._where)
            self._checksum = crc32(data, self._checksum)
            self._done += len(data)
        self._left -= len(data)
        return data

    def _close_runs(self) -> None:
        while self._index < len(self._runs) - 1:
            start, length = self._runs[self._index]
            if self._done < length or self._size - self._left < start:
                return
            self._checksums.append(self._checksum)
            self._checksum = self._done = 0
            self._index += 1


def truncated(where: str) -> ArchiveError:
    """Return the error for a tar that ends in the middle of something."""
    return ArchiveError(f"layer tar ends in the middle of {where}; the source is truncated")
