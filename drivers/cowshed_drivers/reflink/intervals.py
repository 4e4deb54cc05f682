"""Intervals: arithmetic with stretches of the disk, each a pair of its start and end."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[int, int]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return what is covered by any, in order and apart from each other."""
    return _covered(intervals, 1)


def repeated(intervals: Iterable[Interval]) -> list[Interval]:
    """Return what is covered by two at least, in order and apart from each other."""
    return _covered(intervals, 2)


def _covered(intervals: Iterable[Interval], times: int) -> list[Interval]:
    edges: list[Interval] = []
    for start, end in intervals:
        edges.append((start, 1))
        edges.append((end, -1))
    # An end sorts before a start at the same place, so that neighbours don't count as overlapping.
    edges.sort()
    found: list[Interval] = []
    depth = began = 0
    for place, step in edges:
        if step == 1 and depth == times - 1:
            began = place
        elif step == -1 and depth == times and place > began:
            if found and found[-1][1] == began:
                began = found.pop()[0]
            found.append((began, place))
        depth += step
    return found


def subtract(these: list[Interval], those: list[Interval]) -> list[Interval]:
    """Return what ``these`` cover and ``those`` don't; both as ``union`` returns them."""
    left: list[Interval] = []
    position = 0
    for start, end in these:
        while position < len(those) and those[position][1] <= start:
            position += 1
        look = position
        while look < len(those) and those[look][0] < end:
            if those[look][0] > start:
                left.append((start, those[look][0]))
            start = max(start, those[look][1])
            look += 1
        if start < end:
            left.append((start, end))
    return left


def length(intervals: Iterable[Interval]) -> int:
    """Return the bytes covered by intervals that don't overlap."""
    return sum(end - start for start, end in intervals)
