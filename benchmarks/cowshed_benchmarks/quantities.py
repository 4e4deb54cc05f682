"""Quantities as people read them: three digits and a unit, powers of 1,000."""

from __future__ import annotations

import math

from .results import Metric

_TIMES = ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_COUNTS = ((1e9, "billion"), (1e6, "million"), (1.0, ""))

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
    """Return a number with the three digits that count; from 1,000 on whole, with commas."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 9.995:
        return f"{value:.1f}"
    if abs(value) >= 0.0995 or not value:
        return f"{value:.2f}"
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"


def plain(value: float) -> str:
    """Return the same without zeros that say nothing, for labels of axes and whole numbers."""
    text = digits(value)
    return text.rstrip("0").removesuffix(".") if "." in text else text


def _scaled(value: float, units: tuple[tuple[float, str], ...], *, bare: bool = False) -> str:
    if math.isnan(value):
        return "–"
    if not value:
        return f"0 {next(unit for scale, unit in units if scale == 1)}".strip()
    # Half a unit of the third digit below, so that 999.7 kB is 1 MB.
    fitting = (one for one in units if abs(value) >= one[0] * 0.9995)
    scale, unit = next(fitting, units[-1])
    scaled = value / scale
    whole = bare or (scale == 1 and scaled == round(scaled))
    return f"{plain(scaled) if whole else digits(scaled)} {unit}".strip()


def duration(seconds: float, *, bare: bool = False) -> str:
    """Return ``2.30 ms``; minutes from two of them on."""
    return _scaled(seconds, _TIMES if abs(seconds) >= 120 else _TIMES[1:], bare=bare)


def size(count: float, *, bare: bool = False) -> str:
    """Return ``41.2 MB``."""
    return _scaled(count, _SIZES, bare=bare)


def number(count: float) -> str:
    """Return ``1,000`` or ``2.5 million``."""
    return _scaled(count, _COUNTS, bare=True)


def several(count: int, things: str) -> str:
    """Return ``1,000 layers``, ``1 layer``."""
    return f"{number(count)} {things.removesuffix('s') if count == 1 else things}"


def quantity(measure: Metric, value: float, *, bare: bool = False) -> str:
    """Return the value of a measure with its unit; ``bare`` without zeros that say nothing."""
    if measure in SECONDS:
        return duration(value, bare=bare)
    return size(value, bare=bare) if measure in BYTES else number(value)


def times(ratio: float, *, bare: bool = False) -> str:
    """Return ``3.10×``, bare ``3.1×``."""
    return f"{plain(ratio) if bare else digits(ratio)}×"
