"""The engine on a scripted clock, with a launcher that starts nothing: what is done, when, and what
samples say of that which isn't. And the real launcher, with processes that go wrong."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from cowshed_benchmarks import engine as engine_module
from cowshed_benchmarks.actors.actor import Actor, Program
from cowshed_benchmarks.actors.floor import Floor
from cowshed_benchmarks.actors.peers import PEERS
from cowshed_benchmarks.engine import Block, Engine, Entrant, Limits
from cowshed_benchmarks.job import Job, Report, failed
from cowshed_benchmarks.launching import launch
from cowshed_benchmarks.results import OUT_OF_TIME, Sample, Subject
from cowshed_benchmarks.running import Asked
from cowshed_benchmarks.subjects import peers
from cowshed_benchmarks.workloads import WORKLOADS

#: What a job takes, and how it ends.
Answer = tuple[float, Report]
OK = Report(outcome="ok", wall=0.5, operations=1, disk=1000)


@attrs.define
class Script:
    """Launcher, clock and listener. Whatever isn't scripted takes a second and is ok."""

    answers: Mapping[tuple[str, str], Answer] = attrs.field(factory=dict[Any, Any])
    now: float = 0.0
    jobs: list[Job] = attrs.field(factory=list[Job])
    rounds: list[int] = attrs.field(factory=list[int])

    def launch(self, job: Job, words: Sequence[str], seconds: float) -> Report:
        self.jobs.append(job)
        took, report = self.answers.get((job.subject, job.workload or job.phase), (1.0, OK))
        self.now += min(took, seconds)
        if took > seconds:
            return Report(outcome="failed", reason=f"{seconds:.0f} s, killed", killed=True)
        if words:  # strace: a call before the window, two in it, one after
            log = Path(words[words.index("-o") + 1])
            log.write_text("fsync(3) = 0\nfdatasync(-1)\nfsync(3)\n7 msync(0x1)\nfdatasync(-1)\n")
        return report

    def clock(self) -> float:
        return self.now

    def round(self, number: int, cells: int) -> None:
        self.rounds.append(number)

    def begins(self, subject: str, block: Block) -> None:
        pass

    def ended(self, sample: Sample) -> None:
        pass

    def phases(self, phase: str) -> list[tuple[str, str]]:
        return [(job.subject, job.workload) for job in self.jobs if job.phase == phase]


def entrant(name: str, kind: Literal["driver", "peer", "floor"] = "driver", **more: Any) -> Entrant:
    subject = Subject(name=name, kind=kind, version="1", durable="yes")
    return Entrant(subject=subject, place=Path("/nowhere", name), **more)


def run(
    script: Script,
    blocks: Sequence[Block],
    entrants: Sequence[Entrant] = (entrant("a"), entrant("b")),
    *,
    rounds: int = 2,
    total: float = 1000,
    peer_rounds: int = 1000,
    syncs: Literal["early", "late", "never"] = "never",
) -> list[Sample]:
    limits = Limits(
        rounds=rounds,
        peer_rounds=peer_rounds,
        total=total,
        cell=10,
        predicted=20,
        disk=1_000_000,
        syncs=syncs,
    )
    return Engine(
        entrants=entrants,
        blocks=blocks,
        material=Path("/nowhere"),
        limits=limits,
        listener=script,
        launch=script.launch,
        clock=script.clock,
    ).run()


def test_everybody_takes_a_turn_in_each_round_with_stock_made_once() -> None:
    script = Script()
    samples = run(script, [("diff", None), ("commit", None)])
    assert script.rounds == [0, 1]
    assert [(one.workload, one.round) for one in samples] == [
        *(("diff", 0), ("diff", 0), ("commit", 0), ("commit", 0)),
        *(("diff", 1), ("diff", 1), ("commit", 1), ("commit", 1)),
    ]
    assert all({samples[at].subject, samples[at + 1].subject} == {"a", "b"} for at in (0, 2, 4, 6))
    assert [job.tags for job in script.jobs if job.phase == "stock"] == [("v1",), ("v1",)]


def test_what_a_subject_cannot_do_starts_no_process_and_says_why() -> None:
    script = Script()
    keeps = entrant("keeps", cannot={"create": "it keeps archives"})
    samples = run(script, [("create", 1), ("import-first", None)], [keeps, entrant("b")])
    (skipped,) = [one for one in samples if one.outcome != "ok"]
    assert (skipped.subject, skipped.workload) == ("keeps", "create")
    assert (skipped.outcome, skipped.reason) == ("skipped", "it keeps archives")
    assert ("keeps", "create") not in script.phases("measure")
    assert script.phases("measure").count(("keeps", "import-first")) == 2


def test_a_subject_that_cannot_take_part_says_so_in_each_cell() -> None:
    script = Script()
    samples = run(script, [("diff", None), ("read", None)], [entrant("a", unable="no root")])
    assert [(one.workload, one.reason) for one in samples] == [
        ("diff", "no root"),
        ("read", "no root"),
    ]
    assert script.jobs == []


def test_a_failure_is_a_sample_its_store_is_thrown_away_and_the_rest_goes_on() -> None:
    script = Script({("a", "diff"): (1.0, failed("it is upside down"))})
    samples = run(script, [("diff", None), ("commit", None)])
    (failure,) = [one for one in samples if one.outcome == "failed"]
    assert (failure.subject, failure.workload, failure.reason) == ("a", "diff", "it is upside down")
    assert script.phases("measure").count(("a", "diff")) == 1
    assert script.phases("measure").count(("a", "commit")) == 2
    assert script.phases("discard") == [("a", "")]
    assert len([job for job in script.jobs if (job.subject, job.phase) == ("a", "stock")]) == 2


def test_a_store_that_cannot_be_stocked_fails_what_needs_the_stock() -> None:
    script = Script({("a", "stock"): (1.0, failed("it is full"))})
    samples = run(script, [("diff", None), ("import-first", None)], rounds=1)
    reasons = {(one.subject, one.workload): (one.outcome, one.reason) for one in samples}
    assert reasons["a", "diff"] == ("failed", "it can't get v1 in stock: it is full")
    assert reasons["a", "import-first"] == ("ok", "")
    assert reasons["b", "diff"] == ("ok", "")


def test_one_that_hangs_is_a_failure_and_no_end_of_the_run() -> None:
    script = Script({("a", "diff"): (1e9, OK)})
    samples = run(script, [("diff", None), ("commit", None)], rounds=1)
    outcomes = {(one.subject, one.workload): one.outcome for one in samples}
    assert outcomes.pop(("a", "diff")) == "failed"
    assert [*outcomes.values()] == ["ok"] * 3


def test_a_run_ends_when_its_time_is_over_whatever_runs() -> None:
    script = Script({("a", "commit"): (1e9, OK), ("b", "commit"): (1e9, OK)})
    samples = run(script, [("diff", None), ("commit", None), ("read", None)], total=9)
    assert script.now == 9
    outcomes = {(one.workload, one.outcome) for one in samples}
    assert outcomes == {("diff", "ok"), ("commit", "skipped"), ("read", "skipped")}
    assert {one.reason for one in samples if one.outcome == "skipped"} == {
        f"{OUT_OF_TIME}, 9 s, was over: see --minutes"
    }
    assert ("a", "read") not in script.phases("measure")


def test_peers_take_part_in_the_first_rounds_drivers_and_the_floor_in_all() -> None:
    entrants = [entrant("a"), entrant("peer", "peer"), entrant("floor", "floor")]
    samples = run(Script(), [("diff", None)], entrants, rounds=5, peer_rounds=2)
    rounds = {name: [one.round for one in samples if one.subject == name] for name in ("a", "peer")}
    assert rounds == {"a": [0, 1, 2, 3, 4], "peer": [0, 1]}
    assert len([one for one in samples if one.subject == "floor"]) == 5


def test_lack_of_time_in_a_later_round_adds_no_samples() -> None:
    script = Script()
    samples = run(script, [("import-first", None)], [entrant("a")], rounds=100, total=5.5)
    assert [one.outcome for one in samples] == ["ok"] * 5
    assert script.now <= 5.5


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (attrs.evolve(OK, wall=0.1), "ok"),
        (
            attrs.evolve(OK, wall=0.25),
            "100 would take about 25 s (250 ms each); the bound is 20 s",
        ),
        (
            attrs.evolve(OK, wall=0.125, around=0.125),
            "100 would take about 25 s (250 ms each); the bound is 20 s",
        ),
        (attrs.evolve(OK, wall=0.6, operations=20), "ok"),
        (
            attrs.evolve(OK, wall=0.1, disk=20_000),
            "100 would take about 2.00 MB on disk; the bound is 1 MB",
        ),
        (failed("it fell over"), "it failed with 1 already: it fell over"),
    ],
)
def test_many_are_not_begun_where_few_say_that_they_take_too_much(one: Report, reason: str) -> None:
    script = Script({("a", "create"): (1.0, one)})
    samples = run(script, [("create", 1), ("create", 100)], [entrant("a")], rounds=1)
    many = samples[1]
    assert (many.parameter, many.reason or many.outcome) == (100, reason)


@pytest.mark.parametrize(("syncs", "rounds"), [("early", [0, -1, 1]), ("late", [0, 1, -1])])
def test_syncs_are_counted_in_a_round_of_their_own(
    syncs: Literal["early", "late"], rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    script = Script({("b", "diff"): (1.0, failed("no"))})
    samples = run(script, [("diff", None)], syncs=syncs)
    assert script.rounds == rounds
    assert {(one.subject, one.syncs) for one in samples} == {("a", 2), ("b", None)}
    assert [job.marked for job in script.jobs if job.phase == "measure"].count(True) == 1


def test_counting_syncs_takes_a_twentieth_of_the_time_and_begins_with_what_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    script = Script({("a", "diff"): (5.0, OK), ("b", "diff"): (2.0, OK), ("a", "read"): (4.0, OK)})
    blocks: list[Block] = [("diff", None), ("read", None)]
    samples = run(script, blocks, rounds=1, total=120, syncs="late")
    counted = {(one.subject, one.workload) for one in samples if one.syncs is not None}
    assert counted == {("b", "read"), ("b", "diff")}  # 1 s and 2 s of 6, the next takes 4


def test_no_strace_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module.shutil, "which", lambda name: None)
    samples = run(Script(), [("diff", None)], syncs="early")
    assert {one.syncs for one in samples} == {None}


# -- what there is to do --------------------------------------------------------------------------


def test_a_quick_run_leaves_out_what_is_thorough_unless_it_is_named() -> None:
    quick = {name for name, _ in Asked(quick=True).blocks()}
    assert {"import-first", "create", "first-write", "diff", "commit", "remove-image"} <= quick
    assert "deep-import" not in quick
    assert Asked(quick=True, workloads=("deep-import",)).blocks() == [("deep-import", 16)]
    assert {name for name, _ in Asked().blocks()} == set(WORKLOADS)


def test_a_quick_run_leaves_out_peers_that_are_much_like_another_unless_they_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Program, "missing", classmethod(lambda kind: None))
    monkeypatch.setattr(Program, "version", classmethod(lambda kind: "1"))
    names = [{one.subject.name for one in peers(None, quick=quick)} for quick in (True, False)]
    assert names[1] == set(PEERS)
    assert names[1] - names[0] == {name for name, peer in PEERS.items() if peer.thorough}
    assert {"containers-storage", "podman", "containerd", "umoci", "borg"} <= names[0]
    assert [one.subject.name for one in peers(["buildah-vfs"], quick=True)] == ["buildah-vfs"]


def test_every_verb_of_a_workload_is_one_and_so_is_everything_that_somebody_cannot() -> None:
    others = {"import_image": "import", "mounted": "mount"}
    verbs = {others.get(name, name.replace("_", "-")) for name in vars(Actor)}
    for work in WORKLOADS.values():
        assert work.verbs and set(work.verbs) <= verbs
    for actor in (Floor, *PEERS.values()):
        assert set(actor.cannot) <= verbs


def test_the_script_installs_every_peer_that_debian_packages() -> None:
    script = Path(engine_module.__file__).parents[1] / "install-peers"
    if not script.exists():
        pytest.skip("only a checkout has the script")
    lists = re.findall(r"packages\+?=\((.*)\)", script.read_text())
    named = {package for each in lists for package in each.split()}
    packages = {package for peer in PEERS.values() for package in peer.programs.values()}
    assert {package for package in packages if "by pip" not in package} <= named


# -- the launcher ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", "was killed by SIGKILL"),
        ("import sys; sys.exit('torn\\nto shreds')", "to shreds"),
        ("print('hello')", "its process reported 'hello"),
        ('print(\'{"outcome": 1, "luck": 2}\')', "its process reported"),
        ("import time; time.sleep(60)", "it hadn't ended after 1 s and was killed"),
    ],
)
def test_a_process_that_goes_wrong_is_a_failure_in_one_line(
    code: str, reason: str, tmp_path: Path
) -> None:
    job = Job(phase="measure", subject="a", kind="driver", place=str(tmp_path), material="")
    report = launch(job, (), 1 if "sleep" in code else 60, [sys.executable, "-c", code])
    assert report.outcome == "failed"
    assert reason in report.reason and "\n" not in report.reason
    assert report.killed == ("sleep" in code)
