"""Arrivals: ranges of a blob as they come, in a file of their own, readable meanwhile.

The file is a log that a later run goes on with: each piece in the order in which it came, behind
``<QII``, its offset in the blob, its length, and a CRC-32 of these two and of it. What a kill or
a power cut has left behind the last piece that is whole is cut off.
"""

from __future__ import annotations

import bisect
import io
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from .errors import SourceError
from .partials import storing

Range = tuple[int, int]
#: Below this a range is given as bytes.
_SMALL = 1 << 20
_PLACE = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_HEADER = _PLACE.size + _CHECKSUM.size
_LONGEST = 1 << 20


def coalesced(ranges: Sequence[Range], gap: int) -> list[Range]:
    """Return ranges in order, those with no more than ``gap`` bytes between them as one."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


class Arrivals:
    """Some ranges of a blob, none overlapping. One thread writes, another reads."""

    def __init__(self, descriptor: int, ranges: Sequence[Range]) -> None:
        """``descriptor``: such a file or an empty one; whoever opened it closes it."""
        self._descriptor = descriptor
        self._wanted = list(ranges)
        #: Pieces that are here: offsets, ascending, and for each its end and place in the file.
        self._offsets: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._end = self._read_log()
        #: What is still to come, and how much of each has.
        self._awaited = self._lacking()
        self._come = [0] * len(self._awaited)
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None

    @property
    def broken(self) -> bool:
        """Whether it ended before everything had come."""
        return self._error is not None

    def has(self, start: int, end: int) -> bool:
        """Say whether a range is among those that come."""
        index = _before(self._wanted, start)
        return index >= 0 and end <= self._wanted[index][1]

    def put(self, offset: int, data: bytes) -> None:
        """Take what follows what has come of a range.

        Raises:
            SourceError: that isn't what is awaited.
        """
        index = _before(self._awaited, offset)
        if index < 0 or offset != self._awaited[index][0] + self._come[index]:
            raise SourceError("a range came that nobody asked for")
        if offset + len(data) > self._awaited[index][1]:
            raise SourceError("more came than the range that was asked for")
        rest = memoryview(data)
        while rest:
            piece, rest = rest[:_LONGEST], rest[_LONGEST:]
            place = _PLACE.pack(offset, len(piece))
            header = place + _CHECKSUM.pack(zlib.crc32(piece, zlib.crc32(place)))
            self._write(header, piece)
            with self._changed:
                self._note(offset, len(piece), self._end + _HEADER)
                self._end += _HEADER + len(piece)
                self._come[index] += len(piece)
                self._changed.notify_all()
            offset += len(piece)

    def _write(self, header: bytes, piece: memoryview) -> None:
        at = self._end
        parts = [memoryview(header), piece]
        with storing():
            while parts:
                count = os.pwritev(self._descriptor, parts, at)
                at += count
                while parts and count >= len(parts[0]):
                    count -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][count:]

    def missing(self) -> list[Range]:
        """Return what hasn't come yet."""
        return [
            (start + come, end)
            for (start, end), come in zip(self._awaited, self._come, strict=True)
            if start + come < end
        ]

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes; the first word counts."""
        with self._changed:
            if not self._over:
                self._over = True
                self._error = error
            self._changed.notify_all()

    def open(self, start: int, end: int) -> BinaryIO:
        """Open a range; reading waits for what is still to come."""
        if end - start <= _SMALL:
            data = bytearray(end - start)
            view = memoryview(data)
            done = 0
            while done < len(data):
                done += self.read_into(view[done:], start + done)
            return io.BytesIO(data)
        return cast(BinaryIO, io.BufferedReader(_Range(self, start, end), _SMALL))

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read at least a byte at ``offset``.

        Raises:
            SourceError: it won't come.
        """
        if not self.has(offset, offset + 1):
            raise SourceError("a range wasn't fetched that is needed")
        with self._changed:
            while (found := self._found(offset)) is None and not self._over:
                self._changed.wait(1)
        if found is None:
            raise self._error or SourceError("a range didn't come")
        place, length = found
        return os.preadv(self._descriptor, [view[:length]], place)

    # -- pieces -------------------------------------------------------------------------------

    def _found(self, offset: int) -> tuple[int, int] | None:
        """Return where in the file a byte is, and how many follow it there."""
        index = bisect.bisect_right(self._offsets, offset) - 1
        if index < 0 or offset >= self._pieces[index][0]:
            return None
        end, place = self._pieces[index]
        return place + offset - self._offsets[index], end - offset

    def _note(self, offset: int, length: int, place: int) -> None:
        index = bisect.bisect_right(self._offsets, offset)
        self._offsets.insert(index, offset)
        self._pieces.insert(index, (offset + length, place))

    def _read_log(self) -> int:
        """Note the pieces of an earlier run; return where the next one goes."""
        at = 0
        while True:
            header = os.pread(self._descriptor, _HEADER, at)
            if len(header) < _HEADER:
                break
            offset, length = _PLACE.unpack_from(header)
            if not 0 < length <= _LONGEST:
                break
            piece = os.pread(self._descriptor, length, at + _HEADER)
            checksum = zlib.crc32(piece, zlib.crc32(header[: _PLACE.size]))
            if len(piece) < length or header[_PLACE.size :] != _CHECKSUM.pack(checksum):
                break
            self._note(offset, length, at + _HEADER)
            at += _HEADER + length
        os.ftruncate(self._descriptor, at)
        return at

    def _lacking(self) -> list[Range]:
        """Return those parts of what is wanted that no piece has."""
        lacking: list[Range] = []
        for start, end in self._wanted:
            while start < end:
                index = bisect.bisect_right(self._offsets, start)
                if index and self._pieces[index - 1][0] > start:
                    start = self._pieces[index - 1][0]
                    continue
                last = index == len(self._offsets)
                until = end if last else min(end, self._offsets[index])
                lacking.append((start, until))
                start = until
        return lacking


def _before(ranges: Sequence[Range], offset: int) -> int:
    """Return the index of the last range that begins at or before ``offset``; -1: none does."""
    return bisect.bisect_right(ranges, offset, key=lambda one: one[0]) - 1


class _Range(io.RawIOBase):
    def __init__(self, arrivals: Arrivals, start: int, end: int) -> None:
        super().__init__()
        self._arrivals = arrivals
        self._at = start
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: self._end - self._at]
        if not view:
            return 0
        count = self._arrivals.read_into(view, self._at)
        self._at += count
        return count
