"""Exact rank statistics of a few samples: intervals and tests that presume no shape of noise.

Timings are skewed and spiked, and rounds are few. Resampling five values promises more confidence
than it keeps, and a t interval presumes a shape. Ranks presume neither, and of few samples their
distribution can be counted out, so that nothing here is drawn at random: the same samples always
give the same answer.

* Two samples taken apart (two runs): Mann and Whitney's U, with Hodges and Lehmann's estimate,
  the median of all differences between the two.
* Pairs (two subjects in the same rounds of one run): Wilcoxon's signed ranks, with the median of
  all averages of two differences.

Both work on differences. Ratios are differences of logarithms (see ``ratios``).

Sources: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, chapters 3
and 4; Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300; Holm, Scand. J. Statist.
6 (1979) 65-70.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import attrs

#: What intervals aim at. Few samples may not reach it; then the interval is the widest there is,
#: and its ``confidence`` says what it is worth.
CONFIDENCE = 0.95


@attrs.frozen
class Interval:
    """An estimate and where the truth lies with ``confidence``."""

    estimate: float
    low: float
    high: float
    confidence: float


def shift_of_pairs(differences: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return by how much the second of each pair is larger, of second − first."""
    count = len(differences)
    averages = sorted(
        (differences[one] + differences[other]) / 2
        for one in range(count)
        for other in range(one, count)
    )
    return _interval(averages, _signed_rank_tails(count), confidence)


def shift_of_samples(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Interval:
    """Return by how much ``second`` is larger than ``first``; neither may be empty."""
    differences = sorted(b - a for a in first for b in second)
    return _interval(differences, _rank_sum_tails(len(first), len(second)), confidence)


def _interval(ordered: Sequence[float], tails: Sequence[float], confidence: float) -> Interval:
    """Cut as many values off both ends as the confidence allows."""
    cut = 0
    while cut + 1 < (len(ordered) + 1) // 2 and 2 * tails[cut + 1] <= 1 - confidence:
        cut += 1
    return Interval(
        statistics.median(ordered),
        ordered[cut],
        ordered[-1 - cut],
        1 - min(1.0, 2 * tails[cut]),
    )


def p_of_samples(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how likely samples of one and the same thing differ this much or more, two-sided.

    Ties count against a difference, so that the answer is never too small.
    """
    above = sum(b >= a for a in first for b in second)
    below = sum(b <= a for a in first for b in second)
    tails = _rank_sum_tails(len(first), len(second))
    return min(1.0, 2 * tails[min(above, below, len(tails) - 1)])


def smallest_p(first: int, second: int) -> float:
    """Return the smallest ``p_of_samples`` that so many samples can reach."""
    return min(1.0, 2 / math.comb(first + second, first))


def discoveries(p_values: Sequence[float], rate: float = 1 - CONFIDENCE) -> list[bool]:
    """Say of each whether it is a finding, given that all of these were looked at.

    Benjamini and Hochberg's procedure: on average at most ``rate`` of the findings are chance; and
    where nothing differs at all, any finding comes with at most that probability.
    """
    count = len(p_values)
    order = sorted(range(count), key=p_values.__getitem__)
    last = max(
        (at for at in range(count) if p_values[order[at]] <= rate * (at + 1) / count), default=-1
    )
    found = [False] * count
    for at in range(last + 1):
        found[order[at]] = True
    return found


def discoveries_of_all(p_values: Sequence[float], rate: float = 1 - CONFIDENCE) -> list[bool]:
    """Say the same by Holm's stricter procedure: at most with probability ``rate`` is any finding
    chance, however many others are true."""
    count = len(p_values)
    found = [False] * count
    for at, one in enumerate(sorted(range(count), key=p_values.__getitem__)):
        if p_values[one] > rate / (count - at):
            break
        found[one] = True
    return found


@lru_cache(maxsize=256)
def _rank_sum_tails(first: int, second: int) -> tuple[float, ...]:
    """Return P(U ≤ u) for u from 0, where nothing differs.

    The coefficients of the Gaussian binomial count the arrangements with each U.
    """
    size = first * second
    ways = [1] + [0] * size
    for part in range(1, first + 1):
        for at in range(size, second + part - 1, -1):
            ways[at] -= ways[at - second - part]
        for at in range(part, size + 1):
            ways[at] += ways[at - part]
    total = math.comb(first + second, first)
    return tuple(sum_ / total for sum_ in accumulate(ways))


@lru_cache(maxsize=256)
def _signed_rank_tails(count: int) -> tuple[float, ...]:
    """Return P(W ≤ w) for w from 0, where pairs don't differ: subsets of 1 … n by their sum."""
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for at in range(len(ways) - 1, rank - 1, -1):
            ways[at] += ways[at - rank]
    return tuple(sum_ / 2**count for sum_ in accumulate(ways))
