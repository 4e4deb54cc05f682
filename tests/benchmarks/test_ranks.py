"""The statistics against published tables, and against what they promise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowshed_benchmarks.judging.lines import ratio
from cowshed_benchmarks.judging.ranks import (
    discoveries,
    discoveries_of_all,
    p_of_samples,
    shift_of_pairs,
    shift_of_samples,
    smallest_p,
)

#: Some values, and others above them but for ``overlap`` pairs.
_FEW = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


def _with_u(n: int, m: int, u: int) -> tuple[list[float], list[float]]:
    """Return samples of n and m values, no two equal, with Mann and Whitney's U."""
    first = [float(at) for at in range(n)]
    second: list[float] = []
    for at in range(m):
        below = min(n, u)
        u -= below
        second.append(n - below - 0.5 + at / 1000)
    return first, second


@pytest.mark.parametrize(
    ("n", "m", "critical"),
    # Two-sided 5 % points of U, as every table of the test has them.
    [
        (4, 4, 0),
        (5, 5, 2),
        (5, 8, 6),
        (6, 6, 5),
        (7, 7, 8),
        (8, 8, 13),
        (10, 10, 23),
        (20, 20, 127),
    ],
)
def test_the_rank_sum_test_rejects_exactly_up_to_the_published_critical_value(
    n: int, m: int, critical: int
) -> None:
    assert p_of_samples(*_with_u(n, m, critical)) <= 0.05
    assert p_of_samples(*_with_u(n, m, critical + 1)) > 0.05


def test_the_rank_sum_test_counts_arrangements() -> None:
    # 3 against 3: twenty arrangements; U = 0 is one of them, at either end.
    assert p_of_samples([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert p_of_samples([1, 2, 4], [3, 5, 6]) == pytest.approx(4 / 20)
    assert smallest_p(5, 5) == pytest.approx(2 / 252)


def test_equal_samples_and_ties_are_no_finding() -> None:
    assert p_of_samples([7] * 10, [7] * 10) == 1
    assert p_of_samples([1, 2, 3, 3, 3], [3, 3, 3, 4, 5]) > p_of_samples(
        [1, 2, 3, 3.1, 3.2], [3.3, 3.4, 3.5, 4, 5]
    )


@pytest.mark.parametrize(
    ("count", "critical"),
    # Two-sided 5 % points of Wilcoxon's W, as every table has them: so many averages are cut off.
    [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (20, 52)],
)
def test_the_interval_of_pairs_cuts_off_as_many_averages_as_the_published_table_says(
    count: int, critical: int
) -> None:
    differences = [2.0**at for at in range(count)]
    averages = sorted((a + b) / 2 for at, a in enumerate(differences) for b in differences[at:])
    found = shift_of_pairs(differences)
    assert (found.low, found.high) == (averages[critical], averages[-1 - critical])
    assert found.confidence >= 0.95


def test_five_pairs_reach_94_percent_and_say_so() -> None:
    found = shift_of_pairs([1, 2, 3, 4, 5])
    assert (found.estimate, found.low, found.high) == (3, 1, 5)
    assert found.confidence == pytest.approx(1 - 2 / 32)


def test_one_value_has_an_estimate_and_no_confidence() -> None:
    assert shift_of_pairs([0.5]).confidence == 0
    assert shift_of_samples([1.0], [3.0]).estimate == 2
    assert shift_of_samples([1.0], [3.0]).confidence == 0


def test_an_interval_of_samples_is_where_the_test_does_not_reject() -> None:
    first, second = [1.0, 2.1, 3.3, 4.6, 5.2], [2.5, 3.9, 5.1, 6.8, 7.7]
    found = shift_of_samples(first, second)
    assert found.confidence >= 0.95
    for shift, inside in ((found.low - 1e-6, False), (found.low + 1e-6, True)):
        assert (p_of_samples([a + shift for a in first], second) > 0.05) is inside
    for shift, inside in ((found.high - 1e-6, True), (found.high + 1e-6, False)):
        assert (p_of_samples([a + shift for a in first], second) > 0.05) is inside


@given(_FEW, _FEW)
def test_intervals_turn_around_with_their_samples(first: list[float], second: list[float]) -> None:
    there, back = shift_of_samples(first, second), shift_of_samples(second, first)
    assert there.low <= there.estimate <= there.high
    assert (there.low, there.high) == (-back.high, -back.low)
    assert p_of_samples(first, second) == p_of_samples(second, first)


def test_intervals_hold_the_truth_as_often_as_they_say_however_skewed_the_noise() -> None:
    draw = random.Random(1)
    held = 0
    for _ in range(2000):
        first = [math.exp(abs(draw.gauss(0, 0.2))) for _ in range(6)]
        second = [1.2 * math.exp(abs(draw.gauss(0, 0.2))) for _ in range(6)]
        found = ratio(first, second, paired=False)
        assert found is not None
        held += found.low <= 1.2 <= found.high
    # 95.9 % is promised for six and six; 2,000 draws stray by 0.45 points.
    assert 0.94 < held / 2000 < 0.98


def test_a_ratio_needs_values_above_nothing() -> None:
    assert ratio([0.0, 1.0], [1.0, 2.0]) is None
    assert ratio([], []) is None
    found = ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert found is not None
    assert (found.low, found.estimate, found.high) == pytest.approx((2, 2, 2))


def test_findings_are_those_of_the_example_that_the_procedure_was_published_with() -> None:
    # Benjamini and Hochberg 1995, section 4.1: 15 tests, four findings at 5 %.
    published = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
        0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    assert discoveries(published) == [True] * 4 + [False] * 11
    assert discoveries(published[::-1]) == [False] * 11 + [True] * 4
    assert discoveries([]) == []
    # The same section gives Bonferroni's and Hochberg's findings, of which Holm's are the same: 3.
    assert discoveries_of_all(published) == [True] * 3 + [False] * 12
    assert discoveries_of_all([]) == []
