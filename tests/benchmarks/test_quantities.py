"""Quantities read as people write them."""

from __future__ import annotations

import math

import pytest

from cowshed_benchmarks.quantities import duration, number, quantity, size, times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000000123, "12.3 ns"),
        (0.00000213, "2.13 µs"),
        (0.0023, "2.30 ms"),
        (0.9999, "1.00 s"),
        (0.9994, "999 ms"),
        (12.34, "12.3 s"),
        (119.4, "119 s"),
        (300, "5.00 min"),
        (0, "0 s"),
        (math.nan, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (205, "205 B"),
        (4096, "4.10 kB"),
        (999_700, "1.00 MB"),
        (-12_000_000, "-12.0 MB"),
        (3.5e12, "3.50 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_whole_numbers_and_labels_of_axes_have_no_zeros_that_say_nothing() -> None:
    assert number(10_000) == "10,000"
    assert number(2_500_000) == "2.5 million"
    assert number(2.5) == "2.5"
    assert quantity("wall", 0.1, bare=True) == "100 ms"
    assert quantity("disk", 1e6, bare=True) == "1 MB"
    assert quantity("syncs", 3) == "3"
    assert (times(1.0), times(10.0, bare=True), times(0.1, bare=True)) == ("1.00×", "10×", "0.1×")
