"""Runs: entries of a very large directory that is being filled, in a nameless file.

A layer may have one directory of a million files, and it is written only when all of them are
known, as its pages are cut by the names' order. So what was put into it goes to a file, in runs
that are sorted, and is merged in the end. Of each entry 16 bytes stay in memory: the hash of its
name and where it is.
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


class _Run(NamedTuple):
    start: int
    end: int
    #: Hashes of the names in their order, and where each entry is.
    hashes: array[int]
    places: array[int]


class Runs:
    """Entries that came in several lots; of a name that came twice the last counts."""

    def __init__(self, directory: Path) -> None:
        import tempfile  # with random: 3 ms, and few directories are that large

        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115
        self._runs: list[_Run] = []
        self._end = 0

    def close(self) -> None:
        """Let go of the file, which has no name."""
        self._file.close()

    def add(self, entries: Mapping[str, Record]) -> None:
        """Write one lot."""
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
        data, at = memoryview(b"".join(parts)), start
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[written:], at + written
        found.sort()
        hashes = array("q", [one for one, _ in found])
        places = array("Q", [place for _, place in found])
        self._runs.append(_Run(start, end, hashes, places))
        self._end = end

    def get(self, name: str) -> Record | None:
        """Return what was last put at ``name``."""
        wanted = hash(name)
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
        for age, run in enumerate(reversed(self._runs), 1):
            lots.append(_keyed(self._read(run.start, run.end, _PIECE), age))
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
