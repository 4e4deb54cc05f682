"""The suite as a whole finds a slowdown that was planted in a driver, and none where there is none.

Engine, window, results and comparison are the real ones. Only the processes between them are
scripted: in place of a driver at work, a clock goes on by what the work would take, with noise as
timings have it. So this is about the suite's judgement, and says the same on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from cowshed_benchmarks import measuring
from cowshed_benchmarks.engine import Block, Engine, Entrant, Limits
from cowshed_benchmarks.job import Job, Report
from cowshed_benchmarks.judging.comparing import Comparison, compare
from cowshed_benchmarks.results import Run, Sample, load
from cowshed_benchmarks.workloads import WORKLOADS

from .scripted import INPUT, MACHINE, SUBJECTS, Script

DRIVERS = tuple(one for one in SUBJECTS if one.kind == "driver")
BLOCKS = [(name, parameter) for name, work in WORKLOADS.items() for parameter in work.full]
SLOWER = 1.2

#: Runs the suite: the seed of its noise, which driver is slower at which workload (empty: at all).
Suite = Callable[..., Run]


@attrs.define
class Scripted:
    """Launches no process: lets the clock pass instead. Listens, to know of each new round."""

    script: Script
    slow_driver: str = ""
    slow_workload: str = ""
    mood: float = 1.0

    def __call__(self, job: Job, words: Sequence[str], seconds: float) -> Report:
        """Do a job."""
        if job.phase != "measure":
            return Report(outcome="ok")
        # What it costs is a matter of the driver and the work, not of the run.
        cost = random.Random(f"{job.subject} {job.workload}").lognormvariate(-5, 2)
        if job.subject == self.slow_driver and self.slow_workload in ("", job.workload):
            cost *= SLOWER
        window = measuring.Window()
        window.begin()
        self.script.work(cost * (job.parameter or 1), self.mood)
        found = window.end()
        return Report(outcome="ok", wall=found.wall, operations=job.parameter or 1)

    def round(self, number: int, cells: int) -> None:
        """Draw the machine's mood for a new round."""
        self.mood = self.script.begin_round()

    def begins(self, subject: str, block: Block) -> None:
        """Take no notice."""

    def ended(self, sample: Sample) -> None:
        """Take no notice."""


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Suite:
    """Give the suite on a scripted clock."""

    def run(seed: int, rounds: int, slow_driver: str = "", slow_workload: str = "") -> Run:
        script = Script(seed)
        monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=script))
        scripted = Scripted(script, slow_driver, slow_workload)
        engine = Engine(
            entrants=[Entrant(subject=one, place=tmp_path / one.name) for one in DRIVERS],
            blocks=BLOCKS,
            material=tmp_path,
            limits=Limits(
                rounds=rounds, total=1e12, cell=1e9, predicted=1e9, disk=10**15, syncs="never"
            ),
            listener=scripted,
            launch=scripted,
            clock=script,
            seed=seed,
        )
        found = Run(
            started="2026-01-02T03:04:05Z",
            finished="2026-01-02T03:34:05Z",
            command=("cowshed", "bench"),
            machine=MACHINE,
            versions={},
            input=INPUT,
            options={},
            subjects=DRIVERS,
            workloads=tuple(work.facts for work in WORKLOADS.values()),
            samples=tuple(engine.run()),
        )
        found.write(tmp_path / "run.json")
        return load(tmp_path / "run.json")

    return run


def _certain(found: Comparison) -> set[tuple[str, str]]:
    judged = (*found.subjects, *found.lines)
    return {(one.subject, one.workload) for one in judged if one.verdict == "certain"}


def _judge(old: Run, new: Run) -> Comparison:
    # Everything is measured in seconds here, those workloads as well that disk leads.
    return compare(old, new, measures=["wall"])


def test_a_fifth_slower_at_everything_is_found_every_time_by_a_whole_run(suite: Suite) -> None:
    blamed = 0
    for seed in range(8):
        found = _judge(suite(2 * seed, 7), suite(2 * seed + 1, 7, "overlayfs"))
        named = _certain(found)
        assert ("overlayfs", "") in named
        (whole,) = [one for one in found.subjects if one.subject == "overlayfs"]
        assert whole.ratio is not None
        assert 1.1 < whole.ratio.estimate < 1.3
        assert whole in found.worse_than(1.1)
        blamed += any(subject != "overlayfs" for subject, _ in named)
    # 5 % for lines and 5 % for subjects at most: 4 or more of 8 would be seen once in 200 tests.
    assert blamed <= 3


def test_a_fifth_slower_at_one_workload_is_found_by_twelve_rounds(suite: Suite) -> None:
    found = 0
    for seed in range(8):
        compared = _judge(suite(2 * seed, 12), suite(2 * seed + 1, 12, "chunk-dedup", "commit"))
        found += ("chunk-dedup", "commit") in _certain(compared)
    assert found >= 6


@pytest.mark.parametrize("rounds", [3, 7])
def test_nothing_is_found_where_nothing_was_planted(suite: Suite, rounds: int) -> None:
    wrong = sum(
        bool(_certain(_judge(suite(2 * seed, rounds), suite(2 * seed + 1, rounds))))
        for seed in range(500, 510)
    )
    # At most 10 % of the time (lines or subjects): 5 or more of 10 would be seen once in 600 tests.
    assert wrong <= 4


def test_subjects_take_turns_within_each_round_so_that_moods_hit_all_alike(suite: Suite) -> None:
    run = suite(1, 3)
    for number in range(3):
        orders = {
            tuple(
                one.subject
                for one in run.samples
                if (one.workload, one.parameter, one.round) == (*block, number)
            )
            for block in BLOCKS
        }
        assert all(sorted(order) in ([], sorted(one.name for one in DRIVERS)) for order in orders)
        assert len(orders) > 5
