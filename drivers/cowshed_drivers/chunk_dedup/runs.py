"""Runs: entries of a very large directory that is being filled, in a nameless file.

A layer may have one directory of a million files, and it is written only when all of them are
known, as its pages are cut by the names' order. So what was put into it goes to a file, in runs
that are sorted, and is merged in the end. Behind each run are the hashes of its names, in their
order, with where each entry is; they are mapped. A filter (Bloom, 1970) knows of most names that
they are in no run.
"""

from __future__ import annotations

import heapq
import mmap
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


class _Run(NamedTuple):
    start: int
    end: int
    mapped: mmap.mmap
    #: Hashes of the names in their order, and where each entry is.
    hashes: memoryview
    places: memoryview

    def close(self) -> None:
        """Let go of what is mapped."""
        self.hashes.release()
        self.places.release()
        self.mapped.close()


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
        for run in self._runs:
            run.close()
        self._runs.clear()
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
        size = len(index) * index.itemsize
        begin = -(-end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._write(b"".join(parts), start)
        self._write(index, begin)
        mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=begin)
        view = memoryview(mapped)
        half = size // 2
        run = _Run(start, end, mapped, view[:half].cast("q"), view[half:].cast("q"))
        self._runs.append(run)
        self._end = begin + size
        self._note(run)
        for older in self._runs:  # what was looked at doesn't stay in this process's memory
            older.mapped.madvise(mmap.MADV_DONTNEED)

    def _note(self, run: _Run) -> None:
        self._names += len(run.hashes)
        fresh = [run]
        if self._names * _BITS > len(self._filter) << 3:
            self._filter = bytearray(len(self._filter) << 1)
            fresh = self._runs
        filter = self._filter
        for one in fresh:
            for key in one.hashes:
                for bit in self._bits(key):
                    filter[bit >> 3] |= 1 << (bit & 7)

    def _bits(self, key: int) -> tuple[int, int]:
        mask = (len(self._filter) << 3) - 1
        return key & mask, key >> 27 & mask

    def _write(self, data: bytes | array[int], at: int) -> None:
        left = memoryview(data).cast("B")
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            left, at = left[written:], at + written

    def get(self, name: str) -> Record | None:
        """Return what was last put at ``name``."""
        wanted = hash(name)
        for bit in self._bits(wanted):
            if not self._filter[bit >> 3] & 1 << (bit & 7):
                return None
        for run in reversed(self._runs):
            at = bisect_left(run.hashes, wanted)
            while at < len(run.hashes) and run.hashes[at] == wanted:
                found, record = next(self._read(run.places[at], run.end, 1024))
                if found == name:
                    return record
                at += 1
        return None

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
