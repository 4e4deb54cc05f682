"""Comparing two runs: whether that means anything, and what changed for certain.

Every line (subject × workload × size × measure) that both runs have gets the ratio of B to A with
its interval, and a verdict:

* ``certain``: the samples of A and B lie apart further than chance would leave any of *all* the
  lines looked at, and the change is worth speaking of (``LEAST``).
* ``likely``: so far apart that chance does it to less than one line in twenty; but many lines were
  looked at, and this isn't enough to stand out from those. More rounds tell.

Each subject is a family of lines of its own, so that a driver that changed throughout lowers the
bar for its own lines (Benjamini and Hochberg) and not for those of others: subjects share the rate.
With nothing new, one comparison in twenty has any certain line among drivers, and one in twenty
any among peers.

Beside single lines each subject is judged on the whole, by the geometric mean of its workloads in
each round, at the same rate (Holm). That averages noise away: a driver that became slower
throughout is found with five rounds, when no single line of a hundred can be certain of anything
(2 of 252 arrangements of five and five values are as extreme as can be; eight rounds give 2 of
12,870).

Rounds aren't paired across runs: the third round of today and that of last week share nothing.
What they don't share may be the machine's mood. The floor, which no driver touches, is judged
beside the drivers, and where it moved, a note says so; figures are never corrected by it, but a
time that changed no further than the floor's is no certain change of a driver's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Literal

import attrs

from ..quantities import SECONDS, several
from ..results import Metric, Run
from .lines import Key, Line, lines, means_by_round, ratio
from .ranks import CONFIDENCE, Interval, discoveries, discoveries_of_all, p_of_samples, smallest_p

#: A change by less is nobody's concern, however certain.
LEAST = 1.05
#: Nor are so few bytes: a file system allocates a block more or less as it likes.
LEAST_BYTES: dict[Metric, int] = {"disk": 65_536, "written": 65_536, "peak_memory": 1_048_576}
#: How often chance may find something certain where nothing changed.
RATE = 1 - CONFIDENCE
#: What chance alone does to one line in twenty.
LIKELY = 0.05

Verdict = Literal["certain", "likely", "same", "broken", "mended", "missing"]


@attrs.frozen(kw_only=True)
class Judged:
    """One line, or one subject on the whole, in both runs."""

    subject: str
    #: Empty where a subject is judged on the whole.
    workload: str = ""
    parameter: int | None = None
    measure: Metric = "wall"
    #: Medians per operation; not a number where there is none.
    before: float = math.nan
    after: float = math.nan
    #: How many rounds either run has.
    rounds: tuple[int, int] = (0, 0)
    #: B to A; None where a side is missing or zero.
    ratio: Interval | None = None
    p: float = 1.0
    verdict: Verdict = "same"
    #: Why a side is missing.
    reason: str = ""

    @property
    def factor(self) -> float:
        """B to A as one number: infinite where nothing became something."""
        if self.ratio is not None:
            return self.ratio.estimate
        if self.before == self.after:
            return 1.0
        if math.isnan(self.before) or math.isnan(self.after):
            return math.nan
        return math.inf if self.after > self.before else 0.0

    @property
    def worse(self) -> bool:
        """Whether B takes more."""
        return self.verdict == "broken" or self.factor > 1


@attrs.frozen(kw_only=True)
class Comparison:
    """What two runs differ in."""

    lines: tuple[Judged, ...]
    #: Each subject on the whole.
    subjects: tuple[Judged, ...]
    notes: tuple[str, ...]

    def worse_than(self, limit: float) -> list[Judged]:
        """Return what is certainly worse, by more than ``limit`` times; failures always are."""
        judged = (*self.subjects, *self.lines)
        return [
            one
            for one in judged
            if one.verdict == "broken" or (one.verdict == "certain" and one.factor > limit)
        ]


def compare(
    first: Run,
    second: Run,
    *,
    measures: Iterable[Metric] | None = None,
    subjects: Sequence[str] = (),
    workloads: Sequence[str] = (),
    least: float = LEAST,
) -> Comparison:
    """Judge every line of two runs; that these may be compared is the caller's to see to.

    Args:
        measures: which measures to judge; None: the one that leads each workload.
        subjects: only these; empty: all.
        workloads: only these; empty: all.
        least: the factor from which on a change counts.
    """
    before, after = (
        _chosen(first, measures, subjects, workloads),
        _chosen(second, measures, subjects, workloads),
    )
    judged = [_judge(key, before.get(key), after.get(key)) for key in {**before, **after}]
    whole = [
        _on_the_whole(name, before, after)
        for name in dict.fromkeys(key.subject for key in before if key in after)
    ]
    drivers = {one.name for run in (first, second) for one in run.subjects if one.kind == "driver"}
    floors = {one.name for run in (first, second) for one in run.subjects if one.kind == "floor"}
    drift = _drift([one for one in judged if one.subject in floors])
    totals = [one for one in whole if one is not None]
    return Comparison(
        lines=tuple(_decide(judged, _certain_lines(judged, drivers), least, drift)),
        subjects=tuple(_decide(totals, _certain_subjects(totals, drivers), least, drift)),
        notes=tuple(_notes(first, second, judged, drivers, drift)),
    )


def _chosen(
    run: Run,
    measures: Iterable[Metric] | None,
    subjects: Sequence[str],
    workloads: Sequence[str],
) -> dict[Key, Line]:
    return {
        key: line
        for key, line in lines(run, measures).items()
        if (not subjects or key.subject in subjects)
        and (not workloads or key.workload in workloads)
    }


def _judge(key: Key, before: Line | None, after: Line | None) -> Judged:
    blank = Judged(
        subject=key.subject, workload=key.workload, parameter=key.parameter, measure=key.measure
    )
    if before is None or after is None:
        absent = "A" if before is None else "B"
        return attrs.evolve(blank, verdict="missing", reason=f"not in {absent}")
    found = attrs.evolve(
        blank,
        before=before.median,
        after=after.median,
        rounds=(len(before.values), len(after.values)),
    )
    if not before.values or not after.values:
        verdict, reason = _without_values(before, after)
        return attrs.evolve(found, verdict=verdict, reason=reason)
    old, new = list(before.values.values()), list(after.values.values())
    return attrs.evolve(found, ratio=ratio(old, new, paired=False), p=p_of_samples(old, new))


def _without_values(before: Line, after: Line) -> tuple[Verdict, str]:
    """Say what it means that one of the two has no value."""
    if before.values and any(outcome == "failed" for outcome, _ in after.problems):
        return "broken", f"B {after.problem}"
    if after.values and any(outcome == "failed" for outcome, _ in before.problems):
        return "mended", f"A {before.problem}"
    sides = (("A", before), ("B", after))
    reasons = [f"{side} {line.problem}" for side, line in sides if line.problem]
    return "missing", "; ".join(reasons) or "not measured"


def _on_the_whole(
    subject: str, before: Mapping[Key, Line], after: Mapping[Key, Line]
) -> Judged | None:
    # Times only: a mean over seconds and bytes would mean nothing.
    shared = [
        key
        for key in before
        if key in after
        and key.subject == subject
        and key.measure == "wall"
        and before[key].values
        and after[key].values
    ]
    means = means_by_round([before[key] for key in shared], [after[key] for key in shared])
    old, new = (list(one.values()) for one in means)
    if not old or not new:
        return None
    return Judged(
        subject=subject,
        before=statistics.median(old),
        after=statistics.median(new),
        rounds=(len(old), len(new)),
        ratio=ratio(old, new, paired=False),
        p=p_of_samples(old, new),
    )


def _families(
    judged: Sequence[Judged], drivers: Container[str]
) -> Iterable[tuple[list[Judged], float]]:
    """Return the lines with values of each subject, and the rate at which chance may find any.

    Drivers share one rate, and peers another: whoever compares drivers shouldn't see less for
    having more peers installed.
    """
    by_subject: dict[str, list[Judged]] = {}
    for one in judged:
        if one.verdict == "same":
            by_subject.setdefault(one.subject, []).append(one)
    for among_drivers in (True, False):
        alike = [
            family
            for subject, family in by_subject.items()
            if (subject in drivers) is among_drivers
        ]
        for family in alike:
            yield family, RATE / len(alike)


def _certain_lines(judged: Sequence[Judged], drivers: Container[str]) -> set[int]:
    return {
        id(one)
        for family, rate in _families(judged, drivers)
        for one, found in zip(family, discoveries([one.p for one in family], rate), strict=True)
        if found
    }


def _certain_subjects(totals: Sequence[Judged], drivers: Container[str]) -> set[int]:
    found: set[int] = set()
    for among_drivers in (True, False):
        alike = [one for one in totals if (one.subject in drivers) is among_drivers]
        certain = discoveries_of_all([one.p for one in alike], RATE)
        found |= {id(one) for one, is_certain in zip(alike, certain, strict=True) if is_certain}
    return found


def _decide(
    judged: Sequence[Judged], certain: Container[int], least: float, drift: float
) -> Iterable[Judged]:
    """Give verdicts to those that both runs have values of."""
    for one in judged:
        if one.verdict != "same" or not _matters(one, least) or one.p > LIKELY:
            yield one
        elif id(one) in certain and _beyond(one, drift, least):
            yield attrs.evolve(one, verdict="certain")
        else:
            yield attrs.evolve(one, verdict="likely")


def _drift(floor: Sequence[Judged]) -> float:
    """Return by how much the floor's times changed; 1 where there is none."""
    moved = [
        math.log(one.ratio.estimate)
        for one in floor
        if one.measure == "wall" and one.ratio is not None
    ]
    return math.exp(statistics.median(moved)) if moved else 1.0


def _beyond(one: Judged, drift: float, least: float) -> bool:
    """Say whether a time changed further than the floor's, where that went the same way."""
    if one.measure not in SECONDS:
        return True
    return one.factor > least * max(drift, 1.0) or one.factor < min(drift, 1.0) / least


def _matters(one: Judged, least: float) -> bool:
    if abs(one.after - one.before) < LEAST_BYTES.get(one.measure, 0):
        return False
    return not 1 / least < one.factor < least


def _notes(
    first: Run, second: Run, judged: Sequence[Judged], drivers: Container[str], drift: float
) -> Iterable[str]:
    counted = [one for one in judged if one.verdict == "same"]
    rounds = sorted(min(one.rounds) for one in counted)
    if rounds:
        few = rounds[len(rounds) // 2]
        bar = min(rate / len(family) for family, rate in _families(judged, drivers))
        needed = next(n for n in range(1, 100) if smallest_p(n, n) <= bar)
        if few < needed:
            yield (
                f"{several(few, 'rounds')} can't make one of {len(counted)} lines certain by "
                f"itself; {needed} rounds could, or look at fewer lines"
            )
    if not 1 / LEAST < drift < LEAST:
        yield (
            f"the floor, which no driver touches, takes {drift:.2f}× as long in B: "
            "the machine changed, too"
        )
    for name, run in (("A", first), ("B", second)):
        if run.machine.load > run.machine.cores / 2:
            yield f"the machine was busy when {name} began (load {run.machine.load:.1f})"
