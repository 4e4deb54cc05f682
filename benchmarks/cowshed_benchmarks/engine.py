"""Engine: runs subjects × workloads, interleaved and in rounds, within the time that there is.

A **cell** is one subject at one workload with one parameter. A round goes through the workloads in
their order; within each, the subjects take turns in an order drawn anew every time, so that what
the machine does meanwhile hits all alike. The first round finds out what can't be done and how long
everything takes; later ones leave out what couldn't be done, and what there is no time left for. A
cell of many operations isn't begun where the smaller ones of its kind say that it would take too
long or too much disk; its sample says so. What a subject is known not to be able to is left out
without a process. When the time is over, what runs is ended.

Where strace is installed, cells run once more under it, uncounted, to count syncs: the quickest
first, for a twentieth of the time.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from .foresight import too_much
from .job import Job, Report, failed
from .launching import launch
from .results import OUT_OF_TIME, Sample, Subject
from .syncs import count_syncs, tracing
from .workloads import WORKLOADS, Work

#: Which part of a run's time may go into counting syncs.
TRACING = 0.05

Cell: TypeAlias = "tuple[str, str, int | None]"
#: A workload and a value of its parameter.
Block: TypeAlias = "tuple[str, int | None]"


@attrs.frozen(kw_only=True)
class Entrant:
    """A subject, and where it keeps its data."""

    subject: Subject
    place: Path
    #: Why it can't take part; every cell of it says so.
    unable: str = ""
    #: Why it lacks verbs (``actors.actor``), by verb.
    cannot: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Limits:
    """What a run may take."""

    rounds: int
    #: Peers take part in the first so many: what is told of them needn't be as certain.
    peer_rounds: int = 1000
    #: Seconds after which everything ends, and after which a cell has failed.
    total: float
    cell: float
    #: A cell that would take more, seconds or bytes on disk, isn't begun.
    predicted: float
    disk: int
    #: Whether to count syncs in a round of its own, which comes after the first or after the last.
    syncs: Literal["early", "late", "never"] = "early"


class Listener(Protocol):
    """Who wants to know how far the run is."""

    def round(self, number: int, cells: int) -> None:
        """A round of at most so many cells begins; -1 is the one that counts syncs."""

    def begins(self, subject: str, block: Block) -> None:
        """A cell begins."""

    def ended(self, sample: Sample) -> None:
        """A cell of a counted round has ended."""


#: Runs a job in a process of its own: the words before the worker's command, its seconds.
Launcher: TypeAlias = Callable[[Job, Sequence[str], float], Report]


@attrs.define
class Engine:
    """One run."""

    entrants: Sequence[Entrant]
    blocks: Sequence[Block]
    material: Path
    limits: Limits
    listener: Listener
    config: str | None = None
    overrides: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    launch: Launcher = launch
    workloads: Mapping[str, type[Work]] = attrs.field(factory=lambda: WORKLOADS)
    clock: Callable[[], float] = time.monotonic
    seed: int = 1
    samples: list[Sample] = attrs.field(factory=list[Sample])
    #: How long a cell took, all in all; only of those that were ok.
    _took: dict[Cell, float] = attrs.field(factory=dict[Cell, float])
    #: How long it took beside what was measured, in the worker itself.
    _around: dict[Cell, float] = attrs.field(factory=dict[Cell, float])
    _dead: set[Cell] = attrs.field(factory=set[Cell])
    _stocked: dict[tuple[str, str], Report] = attrs.field(factory=dict["tuple[str, str]", Report])
    _syncs: dict[Cell, int] = attrs.field(factory=dict[Cell, int])
    _deadline: float = 0.0

    def run(self) -> list[Sample]:
        """Run it all and return every sample, in the order in which they were taken.

        Interrupted, it leaves what there is in ``samples``.
        """
        self._deadline = self.clock() + self.limits.total
        try:
            for number in range(self.limits.rounds):
                if self.clock() >= self._deadline or not self._round(number):
                    break
                if number == 0 and self.limits.syncs == "early":
                    self._trace()
            if self.limits.syncs == "late":
                self._trace()
        finally:
            self.samples = [
                attrs.evolve(sample, syncs=self._syncs.get(_cell_of(sample)))
                if sample.outcome == "ok"
                else sample
                for sample in self.samples
            ]
        return self.samples

    def _round(self, number: int) -> bool:
        """Go once through everything; return whether anything was measured."""
        draw = random.Random(f"{self.seed} {number}")
        self.listener.round(number, len(self.blocks) * len(self.entrants))
        measured = False
        for block in self.blocks:
            entrants = self._turns(block, number)
            draw.shuffle(entrants)
            for entrant in entrants:
                self.listener.begins(entrant.subject.name, block)
                sample = self._sample(entrant, block, number)
                if number and sample.reason.startswith(OUT_OF_TIME):
                    return measured  # it has samples, and this isn't one
                self.samples.append(sample)
                self.listener.ended(sample)
                measured |= sample.outcome == "ok"
        return measured

    def _alive(self, block: Block) -> list[Entrant]:
        return [one for one in self.entrants if (one.subject.name, *block) not in self._dead]

    def _turns(self, block: Block, number: int) -> list[Entrant]:
        """Return whose turn it is at a block in a round; nobody's if there is no time or use."""
        entrants = self._alive(block)
        if number >= self.limits.peer_rounds:
            entrants = [one for one in entrants if one.subject.kind != "peer"]
        if number:
            took = sum(self._took.get((one.subject.name, *block), 0.0) for one in entrants)
            enough = self.workloads[block[0]].most_rounds
            if number >= enough or self.clock() + took >= self._deadline:
                return []
        return entrants

    def _sample(self, entrant: Entrant, block: Block, number: int) -> Sample:
        name = entrant.subject.name
        began = self.clock()
        report = self._report(entrant, block)
        cell = (name, *block)
        if report.outcome == "ok":
            self._took[cell] = self.clock() - began
            self._around[cell] = report.around
        else:
            self._dead.add(cell)
        measures = attrs.asdict(report)
        del measures["around"], measures["killed"]
        workload, parameter = block
        return Sample(
            subject=name,
            workload=workload,
            parameter=parameter,
            round=number,
            order=len(self.samples),
            **measures,
        )

    def _report(self, entrant: Entrant, block: Block) -> Report:
        work = self.workloads[block[0]]
        lacking = (entrant.cannot[verb] for verb in work.verbs if verb in entrant.cannot)
        reason = entrant.unable or next(lacking, "") or self._too_much(entrant, block)
        if reason:
            return _skipped(reason)
        stocked = self._stock(entrant, work.needs(block[1]))
        if stocked.outcome != "ok":
            return stocked
        report = self._launch(self._job(entrant, block))
        if report.outcome == "failed":
            self._discard(entrant)  # who knows what it left
        return report

    def _launch(self, job: Job, before: Sequence[str] = (), *, times: int = 1) -> Report:
        """Run a job for as long as so many cells may take, or as the run has left."""
        left, bound = self._deadline - self.clock(), times * self.limits.cell
        over = _skipped(f"{OUT_OF_TIME}, {self.limits.total:.0f} s, was over: see --minutes")
        if left <= 0:
            return over
        report = self.launch(job, before, min(left, bound))
        return over if report.killed and left < bound else report

    def _too_much(self, entrant: Entrant, block: Block) -> str:
        """Say why a cell would take too much, going by the largest of its kind that was done."""
        workload, parameter = block
        if parameter is None or not self.workloads[workload].scales:
            return ""
        name = entrant.subject.name
        return too_much(
            parameter,
            [one for one in self.samples if (one.subject, one.workload) == (name, workload)],
            lambda sample: self._around[_cell_of(sample)],
            seconds=self.limits.predicted,
            disk=self.limits.disk,
        )

    # -- stock --------------------------------------------------------------------------------

    def _stock(self, entrant: Entrant, tags: Sequence[str]) -> Report:
        """See to it that a subject has these images."""
        for tag in tags:
            key = entrant.subject.name, tag
            if key not in self._stocked:
                job = attrs.evolve(self._job(entrant), phase="stock", tags=(tag,))
                report = self._launch(job, times=3)
                if report.outcome == "failed":
                    self._discard(entrant)
                    report = failed(f"it can't get {tag} in stock: {report.reason}")
                self._stocked[key] = report
            if self._stocked[key].outcome != "ok":
                return self._stocked[key]
        return Report(outcome="ok")

    def _discard(self, entrant: Entrant) -> None:
        """Remove all that a subject has; the images that it could get it can get again."""
        job = attrs.evolve(self._job(entrant), phase="discard")
        self.launch(job, (), 3 * self.limits.cell)
        for key in [key for key in self._stocked if key[0] == entrant.subject.name]:
            if self._stocked[key].outcome == "ok":
                del self._stocked[key]

    def discard_all(self) -> None:
        """Remove everything that subjects keep, outside of their places as well."""
        with ThreadPoolExecutor(4) as pool:  # nobody measures this, and disks do more at a time
            list(pool.map(self._discard, [one for one in self.entrants if not one.unable]))

    def _job(self, entrant: Entrant, block: Block = ("", None)) -> Job:
        return Job(
            phase="measure",
            subject=entrant.subject.name,
            kind=entrant.subject.kind,
            place=str(entrant.place),
            material=str(self.material),
            workload=block[0],
            parameter=block[1],
            config=self.config,
            overrides=self.overrides,
        )

    # -- syncs --------------------------------------------------------------------------------

    def _trace(self) -> None:
        """Run cells once more, under strace where that is installed."""
        if shutil.which("strace") is None:
            return
        end = min(self._deadline, self.clock() + TRACING * self.limits.total)
        entrants = {one.subject.name: one for one in self.entrants}
        cells = [cell for cell in self._took if cell not in self._dead]
        cells.sort(key=self._took.__getitem__)
        self.listener.round(-1, len(cells))
        for cell in cells:
            if self.clock() + self._took[cell] > end:
                break
            self._count_syncs(entrants[cell[0]], (cell[1], cell[2]))

    def _count_syncs(self, entrant: Entrant, block: Block) -> None:
        self.listener.begins(entrant.subject.name, block)
        if self._stock(entrant, self.workloads[block[0]].needs(block[1])).outcome != "ok":
            return
        with tempfile.NamedTemporaryFile(prefix="cowshed-bench-") as log:
            job = attrs.evolve(self._job(entrant, block), marked=True)
            report = self._launch(job, tracing(log.name), times=3)
            if report.outcome == "ok":
                count = count_syncs(Path(log.name).read_text(errors="replace"))
                if count is not None:
                    self._syncs[entrant.subject.name, *block] = count
            elif report.outcome == "failed":
                self._discard(entrant)


def _skipped(reason: str) -> Report:
    return Report(outcome="skipped", reason=reason)


def _cell_of(sample: Sample) -> Cell:
    return sample.subject, sample.workload, sample.parameter
