"""Table: what a run found, in the terminal: subjects down, workloads across, in as many tables as
fit side by side."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence

from cowshed.cli.output import escaped, line
from cowshed.cli.output import table as print_table

from .judging.lines import given_back
from .measuring import size
from .results import Metric, Run, Sample, Workload

_TITLES = {
    "import": "Importing",
    "containers": "Containers",
    "writing": "Writing",
    "reading": "Reading",
    "changes": "Changes",
    "removal": "Removal",
    "parallel": "At once",
}


def show(run: Run) -> None:
    """Print the tables of a run, then why cells are empty."""
    notes: dict[str, int] = {}
    width = shutil.get_terminal_size((120, 24)).columns
    for group, title in _TITLES.items():
        columns = _columns(run, group)
        if columns:
            line(title)
            for part in _parts(run, columns, notes, width):
                print_table(*part)
                line()
    if notes:
        line("Why not:")
        for reason, number in notes.items():
            line(f"  {number:>2}  {escaped(reason)}")
        line()
    line("Medians for one operation; ± is half of the middle half of the samples, where there are")
    line("three or more. Back: how much of the space that had come is free again.")


def _columns(run: Run, group: str) -> list[tuple[Workload, int | None]]:
    return [
        (workload, parameter)
        for workload in run.workloads
        if workload.group == group
        for parameter in dict.fromkeys(
            sample.parameter for sample in run.samples if sample.workload == workload.name
        )
    ]


def _parts(
    run: Run, columns: Sequence[tuple[Workload, int | None]], notes: dict[str, int], width: int
) -> list[tuple[Sequence[str], list[list[str]]]]:
    """Fill the cells and break columns into tables that are no wider than the terminal."""
    names = [subject.name for subject in run.subjects]
    filled: list[tuple[str, list[str]]] = []
    for workload, parameter in columns:
        heading = workload.name if parameter is None else f"{workload.name} {parameter:,}"
        cells = [
            _cell(
                workload.metric,
                [
                    sample
                    for sample in run.samples
                    if (sample.subject, sample.workload, sample.parameter)
                    == (name, workload.name, parameter)
                ],
                notes,
            )
            for name in names
        ]
        if any(cells):
            filled.append((heading, cells))
    tables: list[tuple[Sequence[str], list[list[str]]]] = []
    first = max(map(len, names), default=0)
    while filled:
        taken = 0
        room = width - first
        while taken < len(filled):
            heading, cells = filled[taken]
            room -= 3 + max(len(heading), *map(len, cells))
            if taken and room < 0:
                break
            taken += 1
        part, filled = filled[:taken], filled[taken:]
        rows = [[name, *(cells[number] for _, cells in part)] for number, name in enumerate(names)]
        tables.append((["subject", *(heading for heading, _ in part)], rows))
    return tables


def _cell(metric: Metric, samples: Sequence[Sample], notes: dict[str, int]) -> str:
    values = [
        getattr(sample, metric) / (1 if metric == "peak_memory" else sample.operations)
        for sample in samples
        if sample.outcome == "ok" and getattr(sample, metric) is not None
    ]
    if values:
        back = given_back(samples)
        told = "" if back is None else f", {back[1]:.0%} back"
        return f"{_median(metric, values)}{told}"
    for sample in samples:
        if sample.outcome != "ok":
            number = notes.setdefault(f"{sample.reason}", len(notes) + 1)
            return f"{'FAILED' if sample.outcome == 'failed' else '–'} [{number}]"
    return ""


def _median(metric: Metric, values: Sequence[float]) -> str:
    middle = statistics.median(values)
    text = seconds(middle) if metric in ("wall", "cpu") else size(middle)
    if len(values) < 3 or not middle:
        return text
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{text} ±{abs(high - low) / 2 / abs(middle) * 100:.0f}%"


def seconds(value: float) -> str:
    """Write seconds in three digits, whatever their size."""
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s")):
        if value < bound:
            return f"{value * factor:.3g} {unit}"
    return "–"
