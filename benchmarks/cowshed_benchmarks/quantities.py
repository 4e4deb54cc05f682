"""Quantities as people read them: three digits and a unit, powers of 1,000."""

from __future__ import annotations

import math

from .results import Metric

_TIMES = ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_COUNTS = ((1e9, " billion"), (1e6, " million"), (1.0, ""))

#: What measures are called in a heading.
TITLES: dict[Metric, str] = {
    "wall": "time",
    "cpu": "CPU time",
    "peak_memory": "peak memory",
    "disk": "disk",
    "inodes": "inodes",
    "written": "written",
    "syncs": "fsyncs",
}
BYTES: tuple[Metric, ...] = ("peak_memory", "disk", "written")
SECONDS: tuple[Metric, ...] = ("wall", "cpu")


def digits(value: float) -> str:
    """Return a number with three digits that count; large ones whole, with commas."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}".removesuffix("0").removesuffix(".0") if value else "0"


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    if math.isnan(value):
        return "–"
    for scale, unit in units:
        # Half a unit of the third digit below, so that 999.7 kB is 1 MB.
        if abs(value) >= scale * 0.9995:
            return f"{digits(value / scale)} {unit}"
    scale, unit = units[-1]
    return f"{digits(value / scale)} {unit}" if value else f"0 {unit}"


def duration(seconds: float) -> str:
    """Return ``2.3 ms``; minutes from two of them on."""
    return _scaled(seconds, _TIMES if abs(seconds) >= 120 else _TIMES[1:])


def size(count: float) -> str:
    """Return ``41.2 MB``."""
    return _scaled(count, _SIZES)


def number(count: float) -> str:
    """Return ``1,000`` or ``2.5 million``."""
    return "–" if math.isnan(count) else _scaled(count, _COUNTS).strip()


def quantity(measure: Metric, value: float) -> str:
    """Return the value of a measure with its unit."""
    if measure in SECONDS:
        return duration(value)
    return size(value) if measure in BYTES else number(value)


def times(ratio: float) -> str:
    """Return ``3.1×``."""
    return f"{digits(ratio)}×"
