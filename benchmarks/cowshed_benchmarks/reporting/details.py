"""The details: every workload's table, in which every sample of the run is accounted for."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import attrs

from ..judging.lines import MEASURES, Key, Line, given_back
from ..quantities import TITLES, number, quantity
from ..results import Metric, Run, Sample, Workload


@attrs.frozen
class Cell:
    """One figure: its median, and how far the rest strayed."""

    median: str
    spread: str = ""


@attrs.frozen
class DetailRow:
    """One subject at one size."""

    subject: str
    size: str
    #: Samples that are ok, failed and skipped.
    ok: int
    failed: int
    skipped: int
    cells: tuple[Cell, ...]
    #: Why samples are missing, each reason once.
    reasons: tuple[str, ...]


@attrs.frozen
class Detail:
    """One workload."""

    workload: Workload
    headings: tuple[str, ...]
    rows: tuple[DetailRow, ...]
    conditions: str

    @property
    def failed(self) -> int:
        """How many samples failed."""
        return sum(row.failed for row in self.rows)


def details(run: Run, lines: Mapping[Key, Line]) -> list[Detail]:
    """Return the tables of all workloads; ``lines`` are of all measures."""
    samples: dict[tuple[str, str, int | None], list[Sample]] = defaultdict(list)
    for one in run.samples:
        samples[one.workload, one.subject, one.parameter].append(one)
    return [_detail(workload, lines, samples) for workload in run.workloads]


def _detail(
    workload: Workload,
    lines: Mapping[Key, Line],
    samples: Mapping[tuple[str, str, int | None], Sequence[Sample]],
) -> Detail:
    own = [key for key in lines if key.workload == workload.name]
    measures: list[Metric] = [
        measure
        for measure in MEASURES
        if any(key.measure == measure and lines[key].values for key in own)
    ]
    places = list(dict.fromkeys((key.subject, key.parameter) for key in own))
    removal = any(given_back(samples[workload.name, *place]) for place in places)
    rows: list[DetailRow] = []
    for subject, size in places:
        of = [lines[Key(subject, workload.name, size, measure)] for measure in measures]
        first = lines[Key(subject, workload.name, size, "wall")]
        done = samples[workload.name, subject, size]
        counts = Counter(one.outcome for one in done)
        rows.append(
            DetailRow(
                subject,
                "" if size is None else number(size),
                counts["ok"],
                counts["failed"],
                counts["skipped"],
                (*map(_cell, of), *(_back(done) if removal else ())),
                tuple(_reasons(first)),
            )
        )
    headings = [TITLES[one] for one in measures] + (["had come", "back"] if removal else [])
    return Detail(workload, tuple(headings), tuple(rows), _conditions(workload))


def _back(samples: Sequence[Sample]) -> tuple[Cell, Cell]:
    """Return what there was to remove, and how much of it the disk has back."""
    found = given_back(samples)
    if found is None:
        return Cell("–"), Cell("–")
    return Cell(quantity("disk", found[0])), Cell(f"{found[1]:.0%}")


def _cell(line: Line) -> Cell:
    if not line.values:
        return Cell("–")
    median = quantity(line.key.measure, line.median)
    if len(line.values) == 1 or line.low == line.high:
        return Cell(median)
    share = abs(line.deviation / line.median) if line.median else math.inf
    return Cell(median, "±<1 %" if share < 0.005 else f"±{share:.0%}" if share < 9.995 else "±lots")


def _reasons(line: Line) -> Sequence[str]:
    return [
        f"{outcome}{f' {count}×' if count > 1 else ''}: {reason or 'no reason given'}"
        for (outcome, reason), count in line.problems.items()
    ]


def _conditions(workload: Workload) -> str:
    """Say in words how it was measured."""
    parts = [f"cache {workload.cache}"] if workload.cache else []
    if workload.durable is None:
        parts.append("each as durable as its maker made it")
    elif workload.durable:
        parts.append("until all of it is on disk, for all alike")
    else:
        parts.append("not flushed, for all alike")
    return "; ".join(parts)
