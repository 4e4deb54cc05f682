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


def given_back(samples: Iterable[Sample]) -> tuple[float, float] | None:
    """Return what removals were given to remove, bytes for each operation, and which share of it
    the disk has back; None: these aren't removals, or nothing had come."""
    pairs = [
        (one.extra["brought"], -one.disk, one.operations)
        for one in samples
        if one.outcome == "ok" and one.disk is not None and one.extra.get("brought", 0) > 0
    ]
    if not pairs:
        return None
    return (
        statistics.median(brought / times for brought, _, times in pairs),
        statistics.median(back / brought for brought, back, _ in pairs),
    )


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


def means_by_round(*groups: Sequence[Line], fill: bool = False) -> list[dict[int, float]]:
    """Return for each group, by round, the geometric mean of its lines: how a subject does on the
    whole.

    Groups hold lines of the same things in the same order, so that their means can be compared.
    Looked at are the rounds that at least half of a group's lines have. What to do with lines that
    lack one of these:

    Args:
        fill: let their median stand in (a figure for people); otherwise such a line is left out of
            all groups (a test, whose noise must be the samples' own).
    """
    rounds = [_common_rounds(group) for group in groups]
    kept = [
        at
        for at, members in enumerate(zip(*groups, strict=True))
        if all(one.values and one.low > 0 for one in members)
        and (
            fill
            or all(set(want) <= set(one.values) for one, want in zip(members, rounds, strict=True))
        )
    ]
    if not kept:
        return [{} for _ in groups]
    return [
        {
            number: statistics.geometric_mean(
                group[at].values.get(number, group[at].median) for at in kept
            )
            for number in wanted
        }
        for group, wanted in zip(groups, rounds, strict=True)
    ]


def _common_rounds(group: Sequence[Line]) -> list[int]:
    usable = [line for line in group if line.values]
    counts = Counter(number for line in usable for number in line.values)
    return sorted(number for number, count in counts.items() if 2 * count >= len(usable))
