"""Runs: entries of a very large directory that is being filled, in a nameless file.

A layer may have one directory of a million files, and it is written only when all of them are
known, as its pages are cut by the names' order. So what was put into it goes to a file, in runs
that are sorted, and is merged in the end. Behind each run are the hashes of its names, in their
order, with where each entry is. A filter (Bloom, 1970) knows of most names that they are in no run.
"""

from __future__ import annotations

import heapq
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .node import byte_order
from .record import FIXED, Record

_PIECE = 128 << 10
#: Bytes that merging all runs reads ahead, at most.
_AHEAD = 16 << 20
#: Bits of the filter at first, and at least for each name.
_FILTER = 1 << 21
_BITS = 8
#: Hashes on either side of where one should be, six standard deviations of where they are: half the
#: root of a run's names.
_AROUND = 512
_NUMBER = 8


class _Run(NamedTuple):
    start: int
    end: int
    #: Where the hashes of its names are, in their order, and behind them where each entry is.
    hashes: int
    names: int


class Runs:
    """Entries that came in several lots; of a name that came twice the last counts."""

    def __init__(self, directory: Path) -> None:
        import tempfile  # with random: 3 ms, and few directories are that large

        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115
        self._runs: list[_Run] = []
        self._end = 0
        self._names = 0
        self._filter = bytearray(_FILTER >> 3)

    def close(self) -> None:
        """Let go of the file, which has no name."""
        self._file.close()

    def add(self, entries: Mapping[str, Record]) -> None:
        """Write one lot."""
        if not entries:
            return
        start = end = self._end
        parts: list[bytes] = []
        found: list[tuple[int, int]] = []
        for name in sorted(entries, key=byte_order):
            record = entries[name]
            encoded = byte_order(name)
            head = FIXED.pack(*record[:7], len(record[7]))
            found.append((hash(name), end))
            parts += (len(encoded).to_bytes(2, "little"), head, encoded, record[7])
            end += 2 + len(head) + len(encoded) + len(record[7])
        found.sort()
        index = array("q", [one for one, _ in found]) + array("q", [place for _, place in found])
        parts.append(index.tobytes())
        data, at = memoryview(b"".join(parts)), start
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[written:], at + written
        self._runs.append(_Run(start, end, end, len(found)))
        self._end = at
        self._note(self._runs[-1])

    def _note(self, run: _Run) -> None:
        self._names += run.names
        fresh = [run]
        while self._names * _BITS > len(self._filter) << 3:
            self._filter = bytearray(len(self._filter) << 1)
            fresh = self._runs
        filter = self._filter
        for one in fresh:
            for key in self._hashes(one, 0, one.names):
                for bit in self._bits(key):
                    filter[bit >> 3] |= 1 << (bit & 7)

    def _bits(self, key: int) -> tuple[int, int]:
        mask = (len(self._filter) << 3) - 1
        return key & mask, key >> 27 & mask

    def _hashes(self, run: _Run, start: int, end: int) -> array[int]:
        return self._numbers(run.hashes + start * _NUMBER, end - start)

    def _numbers(self, at: int, count: int) -> array[int]:
        found = array("q")
        found.frombytes(os.pread(self._file.fileno(), count * _NUMBER, at))
        return found

    def get(self, name: str) -> Record | None:
        """Return what was last put at ``name``."""
        wanted = hash(name)
        for bit in self._bits(wanted):
            if not self._filter[bit >> 3] & 1 << (bit & 7):
                return None
        for run in reversed(self._runs):
            for place in self._places(run, wanted):
                found, record = next(self._read(place, run.end, 1024))
                if found == name:
                    return record
        return None

    def _places(self, run: _Run, wanted: int) -> Iterator[int]:
        """Yield where there are entries of this hash."""
        # Hashes are spread evenly: it is near where it would be if they were so exactly.
        guess = (wanted + (1 << 63)) * run.names >> 64
        start, end = max(0, guess - _AROUND), min(run.names, guess + _AROUND)
        hashes = self._hashes(run, start, end)
        if (start and hashes[0] >= wanted) or (end < run.names and hashes[-1] <= wanted):
            start, hashes = 0, self._hashes(run, 0, run.names)
        at = bisect_left(hashes, wanted)
        while at < len(hashes) and hashes[at] == wanted:
            yield self._numbers(run.hashes + (run.names + start + at) * _NUMBER, 1)[0]
            at += 1

    def merged(self, newer: Mapping[str, Record]) -> Iterator[tuple[str, Record]]:
        """Yield all entries in byte order of names, ``newer`` ones in place of those here."""
        lots: list[Iterator[tuple[bytes, int, str, Record]]] = []
        piece = min(_PIECE, _AHEAD // (len(self._runs) or 1))
        for age, run in enumerate(reversed(self._runs), 1):
            lots.append(_keyed(self._read(run.start, run.end, piece), age))
        names = sorted(newer, key=byte_order)
        lots.append(_keyed(((name, newer[name]) for name in names), 0))
        last: bytes | None = None
        for key, _, name, record in heapq.merge(*lots, key=_order):
            if key != last:
                last = key
                yield name, record

    def _read(self, at: int, end: int, piece: int) -> Iterator[tuple[str, Record]]:
        data, start = b"", 0
        fixed = FIXED.size + 2
        while at < end:
            if len(data) - start < fixed:
                data, start = os.pread(self._file.fileno(), max(piece, fixed), at), 0
            length = int.from_bytes(data[start : start + 2], "little")
            kind, flags, mode, uid, gid, mtime, size, tail = FIXED.unpack_from(data, start + 2)
            whole = fixed + length + tail
            if len(data) - start < whole:
                data, start = os.pread(self._file.fileno(), max(piece, whole), at), 0
            name_at = start + fixed
            name = data[name_at : name_at + length].decode("utf-8", "surrogateescape")
            content = data[name_at + length : start + whole]
            at += whole
            start += whole
            yield name, (kind, flags, mode, uid, gid, mtime, size, content)


def _keyed(
    entries: Iterator[tuple[str, Record]], age: int
) -> Iterator[tuple[bytes, int, str, Record]]:
    return ((byte_order(name), age, name, record) for name, record in entries)


def _order(entry: tuple[bytes, int, str, Record]) -> tuple[bytes, int]:
    return entry[:2]
