"""Lines: all samples of one subject doing one workload at one size, seen through one measure."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs

from ..results import Metric, Run, Sample
from .ranks import Interval, shift_of_pairs, shift_of_samples

MEASURES: tuple[Metric, ...] = (
    "wall", "cpu", "peak_memory", "disk", "inodes", "written", "syncs",
)  # fmt: skip
#: Those that are no sum over a sample's operations.
_WHOLE = ("peak_memory",)


class Key(NamedTuple):
    """What a line is of."""

    subject: str
    workload: str
    parameter: int | None
    measure: Metric


@attrs.frozen
class Line:
    """The values of one line by round, and why others are missing."""

    key: Key
    #: Per operation, except memory.
    values: Mapping[int, float]
    #: (outcome, reason) of the samples that aren't ok, each with its number.
    problems: Mapping[tuple[str, str], int]
    #: Operations of a sample, to get sums back from values per operation.
    operations: int = 1

    @property
    def median(self) -> float:
        """The median of what was measured; not a number where nothing was."""
        return statistics.median(self.values.values()) if self.values else math.nan

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values.values(), default=math.nan)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values.values(), default=math.nan)

    @property
    def deviation(self) -> float:
        """Half of the values lie this near to the median: the median absolute deviation."""
        middle = self.median
        if not self.values:
            return math.nan
        return statistics.median(abs(value - middle) for value in self.values.values())

    @property
    def problem(self) -> str:
        """Why there is no value, as ``failed: reason``; empty where there is one."""
        if self.values or not self.problems:
            return ""
        (outcome, reason), _ = max(self.problems.items(), key=lambda item: item[1])
        return f"{outcome}: {reason}" if reason else outcome


def value_of(sample: Sample, measure: Metric) -> float | None:
    """Return what a sample says per operation; None: it failed or doesn't say."""
    value: float | None = getattr(sample, measure)
    if sample.outcome != "ok" or value is None:
        return None
    return float(value) if measure in _WHOLE else value / max(sample.operations, 1)


def lines(run: Run, measures: Iterable[Metric] | None = None) -> dict[Key, Line]:
    """Return the lines of a run in the order of its workloads and subjects.

    Args:
        measures: which to look at; None: the one that leads each workload.
    """
    groups: dict[tuple[str, str, int | None], list[Sample]] = defaultdict(list)
    for sample in run.samples:
        groups[sample.workload, sample.subject, sample.parameter].append(sample)
    wanted = None if measures is None else tuple(measures)
    found: dict[Key, Line] = {}
    for workload in run.workloads:
        for subject in run.subjects:
            sizes = sorted(
                (
                    size
                    for one, other, size in groups
                    if (one, other) == (workload.name, subject.name)
                ),
                key=lambda size: -1 if size is None else size,
            )
            for size in sizes:
                samples = groups[workload.name, subject.name, size]
                for measure in wanted or (workload.metric,):
                    key = Key(subject.name, workload.name, size, measure)
                    found[key] = _line(key, samples)
    return found


def _line(key: Key, samples: Sequence[Sample]) -> Line:
    # Two samples of one round (a run that was joined from two) are rounds of their own.
    values: dict[int, float] = {}
    for sample in samples:
        value = value_of(sample, key.measure)
        if value is not None:
            values[sample.round if sample.round not in values else max(values) + 1] = value
    problems: Counter[tuple[str, str]] = Counter(
        (one.outcome, one.reason) for one in samples if one.outcome != "ok"
    )
    operations = max((one.operations for one in samples), default=1)
    return Line(key, values, problems, operations)


def ratio_of_pairs(base: Line, other: Line) -> Interval | None:
    """Return how many times as much ``other`` takes as ``base``, paired by the rounds of one run.

    None where they share no round, or a value isn't above nothing: zero has no ratio.
    """
    rounds = [number for number in base.values if number in other.values]
    return ratio(
        [base.values[number] for number in rounds], [other.values[number] for number in rounds]
    )


def ratio(base: Sequence[float], other: Sequence[float], *, paired: bool = True) -> Interval | None:
    """Return the ratio of ``other`` to ``base`` with its interval; None: see ``ratio_of_pairs``."""
    if not base or not other or min(*base, *other) <= 0:
        return None
    below, above = [math.log(value) for value in base], [math.log(value) for value in other]
    shift = (
        shift_of_pairs([b - a for a, b in zip(below, above, strict=True)])
        if paired
        else shift_of_samples(below, above)
    )
    return Interval(
        math.exp(shift.estimate), math.exp(shift.low), math.exp(shift.high), shift.confidence
    )


def mean_by_round(members: Sequence[Line]) -> dict[int, float]:
    """Return, by round, the geometric mean of several lines: how a subject does on the whole.

    Rounds that half of the lines have are looked at, and lines that have all of these.
    """
    usable = [line for line in members if line.values and min(line.values.values()) > 0]
    counts = Counter(number for line in usable for number in line.values)
    rounds = sorted(number for number, count in counts.items() if 2 * count >= len(usable))
    whole = [line for line in usable if all(number in line.values for number in rounds)]
    if not whole:
        return {}
    return {
        number: statistics.geometric_mean(line.values[number] for line in whole)
        for number in rounds
    }
