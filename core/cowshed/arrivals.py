"""Arrivals: ranges of a blob as they come, in a file of their own, readable meanwhile."""

from __future__ import annotations

import bisect
import io
import os
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from .errors import SourceError
from .partials import storing

Range = tuple[int, int]
#: Below this a range is given as bytes.
_SMALL = 1 << 20


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
        """``descriptor``: an empty file; whoever opened it closes it."""
        self._descriptor = descriptor
        self._starts = [start for start, _ in ranges]
        self._ends = [end for _, end in ranges]
        self._places: list[int] = []
        place = 0
        for start, end in ranges:
            self._places.append(place)
            place += end - start
        self._come = [0] * len(ranges)
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None

    def has(self, start: int, end: int) -> bool:
        """Say whether a range is among those that come."""
        index = bisect.bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]

    def put(self, offset: int, data: bytes) -> None:
        """Take what follows what has come of a range.

        Raises:
            SourceError: that isn't what is awaited.
        """
        index = bisect.bisect_right(self._starts, offset) - 1
        if index < 0 or offset != self._starts[index] + self._come[index]:
            raise SourceError("a range came that nobody asked for")
        if offset + len(data) > self._ends[index]:
            raise SourceError("more came than the range that was asked for")
        at = self._places[index] + self._come[index]
        rest = memoryview(data)
        with storing():
            while rest:
                count = os.pwrite(self._descriptor, rest, at)
                at += count
                rest = rest[count:]
        with self._changed:
            self._come[index] += len(data)
            self._changed.notify_all()

    def missing(self) -> list[Range]:
        """Return what hasn't come yet."""
        return [
            (start + come, end)
            for start, end, come in zip(self._starts, self._ends, self._come, strict=True)
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
        index = bisect.bisect_right(self._starts, offset) - 1
        if index < 0 or offset >= self._ends[index]:
            raise SourceError("a range wasn't fetched that is needed")
        within = offset - self._starts[index]
        with self._changed:
            while self._come[index] <= within and not self._over:
                self._changed.wait(1)
            available = self._come[index] - within
        if available <= 0:
            raise self._error or SourceError("a range didn't come")
        return os.preadv(self._descriptor, [view[:available]], self._places[index] + within)


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
