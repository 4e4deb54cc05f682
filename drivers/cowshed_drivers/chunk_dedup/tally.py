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
from typing import IO

_SIZE = 32
#: Bytes of digests in memory.
_MOST = 2 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
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
        self._file: IO[bytes] | None = None
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
        parts = [*self._more, *self._less]
        at = self._lots[-1][-1] if self._lots else 0
        lot = list(accumulate((len(part) for part in parts), initial=at))
        data = memoryview(b"".join(parts))
        try:
            if self._file is None:
                self._file = self._open()
            while data:
                written = os.pwrite(self._file.fileno(), data, at)
                data, at = data[written:], at + written
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._most = sys.maxsize  # to check a store or to remove from it takes no room there
            return
        self._lots.append(lot)
        for part in parts:
            part.clear()
        self._size = 0

    def _open(self) -> IO[bytes]:
        import tempfile  # with random: 3 ms

        file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
        weakref.finalize(self, file.close)
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
                    yield os.pread(self._file.fileno(), end - start, start)
        yield bytes(near[number % 256])

    def gained(self) -> Iterator[bytes]:
        """Yield the digests that occur more often, in byte order."""
        return (digest for digest, count in self.items() if count > 0)


def _digests(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _SIZE] for at in range(0, len(data), _SIZE))
