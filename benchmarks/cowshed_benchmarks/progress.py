"""Progress of a run: a bar on a terminal, a line for each round elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .engine import Block, Listener
from .results import Sample

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def progress(*, silent: bool) -> Generator[Listener]:
    """Give the listener that shows how far a run is."""
    if silent:
        yield _Nothing()
    elif sys.stderr.isatty():
        from rich.console import Console  # 90 ms, and only a person at a terminal waits for it
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}", markup=False),
        )
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            yield _Bar(bars)
    else:
        yield _Lines()


def _name(number: int) -> str:
    return "Counting syncs" if number < 0 else f"Round {number + 1}"


def _what(subject: str, block: Block) -> str:
    workload, parameter = block
    return f"{workload}{'' if parameter is None else f' {parameter:,}'}: {subject}"


class _Nothing:
    def round(self, number: int, cells: int) -> None:
        pass

    def begins(self, subject: str, block: Block) -> None:
        pass

    def ended(self, sample: Sample) -> None:
        pass


class _Lines(_Nothing):
    def round(self, number: int, cells: int) -> None:
        sys.stderr.write(f"{_name(number)}: up to {cells} measurements\n")
        sys.stderr.flush()


class _Bar(_Nothing):
    """One bar for each round, and above it whatever failed."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def round(self, number: int, cells: int) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(_name(number), total=cells, what="")

    def begins(self, subject: str, block: Block) -> None:
        if self._task is not None:
            self._bars.update(self._task, advance=1, what=_what(subject, block))

    def ended(self, sample: Sample) -> None:
        if sample.outcome == "failed":
            what = _what(sample.subject, (sample.workload, sample.parameter))
            self._bars.console.print(f"{what} failed: {sample.reason}", markup=False)
