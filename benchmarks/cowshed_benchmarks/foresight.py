"""Foresight: what a cell of many operations would take, going by fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .quantities import duration, size
from .results import Sample


def too_much(
    parameter: int,
    done: Iterable[Sample],
    around: Callable[[Sample], float],
    *,
    seconds: float,
    disk: int,
) -> str:
    """Say why so many operations of a kind would take too much; nothing if they wouldn't.

    Args:
        parameter: How many.
        done: What the same subject has done of the kind.
        around: What getting ready and clearing up took for a sample.
        seconds: The most that it may take,
        disk: and the most on disk, in bytes.
    """
    smaller = [sample for sample in done if (sample.parameter or 0) < parameter]
    if not smaller:
        return ""
    best = max(smaller, key=lambda sample: sample.parameter or 0)
    if best.outcome == "failed":
        return f"it failed with {best.parameter:,} already: {best.reason}"
    if best.outcome == "skipped":
        return best.reason
    # Getting ready, and clearing up, may take longer than what is measured.
    each = ((best.wall or 0.0) + around(best)) / best.operations
    if each * parameter > seconds:
        return (
            f"{parameter:,} would take about {duration(each * parameter)} "
            f"({duration(each)} each); the bound is {duration(seconds, bare=True)}"
        )
    bytes_each = abs(best.disk or 0) / best.operations
    if bytes_each * parameter > disk:
        return (
            f"{parameter:,} would take about {size(bytes_each * parameter)} on disk; "
            f"the bound is {size(disk, bare=True)}"
        )
    return ""
