"""Tally: how often objects occur, more often or less, in two trees.

A tree of a million files has a million objects, and only sums are wanted, in the order in which
the index keeps digests. So digests are laid end to end, by their first byte, and counted a 256th
at a time: 32 bytes for an occurrence instead of some 150. When they are many they go to a nameless
file, in lots.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

_SIZE = 32
#: Bytes of digests in memory.
_MOST = 2 << 20
#: Occurrences at once that are better counted than written down.
_OFTEN = 64


class Tally:
    """A signed count of digests."""

    def __init__(self, directory: Path) -> None:
        """``directory``: where to put what takes too much memory."""
        self._directory = directory
        self._more = [bytearray() for _ in range(256)]
        self._less = [bytearray() for _ in range(256)]
        self._size = 0
        self._most = _MOST
        self._often: Counter[bytes] = Counter()
        self._file: int | None = None
        #: Where each lot's parts begin: what occurs more often by first byte, then less, the end.
        self._lots: list[list[int]] = []

    def add(self, digest: bytes, by: int) -> None:
        """Count ``by`` more occurrences of a digest, or fewer."""
        if not -_OFTEN < by < _OFTEN:
            self._often[digest] += by
        elif by > 0:
            self._more[digest[0]] += digest * by
            self._size += _SIZE * by
        else:
            self._less[digest[0]] += digest * -by
            self._size -= _SIZE * by
        if self._size > self._most:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            try:
                self._file = self._open()
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES):
                    raise
                self._most = sys.maxsize  # who only checks a store needn't be able to write there
                return
        parts = [*self._more, *self._less]
        at = self._lots[-1][-1] if self._lots else 0
        self._lots.append(list(accumulate((len(part) for part in parts), initial=at)))
        data = memoryview(b"".join(parts))
        while data:
            written = os.pwrite(self._file, data, at)
            data, at = data[written:], at + written
        for part in parts:
            part.clear()
        self._size = 0

    def _open(self) -> int:
        import tempfile  # with random: 3 ms

        file, name = tempfile.mkstemp(dir=self._directory, prefix="tally-")
        os.unlink(name)
        weakref.finalize(self, os.close, file)
        return file

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Yield each digest whose sum isn't zero with that sum, in byte order of digests."""
        often: dict[int, list[bytes]] = {}
        for digest in self._often:
            often.setdefault(digest[0], []).append(digest)
        for first in range(256):
            counts: Counter[bytes] = Counter()
            for more in self._parts(first, self._more):
                counts.update(_digests(more))
            for less in self._parts(256 + first, self._less):
                counts.subtract(Counter(_digests(less)))
            for digest in often.get(first, ()):
                counts[digest] += self._often[digest]
            for digest in sorted(counts):
                if counts[digest]:
                    yield digest, counts[digest]

    def _parts(self, number: int, near: list[bytearray]) -> Iterator[bytes]:
        if self._file is not None:
            for lot in self._lots:
                start, end = lot[number : number + 2]
                if end > start:
                    yield os.pread(self._file, end - start, start)
        yield bytes(near[number % 256])

    def gained(self) -> Iterator[bytes]:
        """Yield the digests that occur more often, in byte order."""
        return (digest for digest, count in self.items() if count > 0)


def _digests(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _SIZE] for at in range(0, len(data), _SIZE))
