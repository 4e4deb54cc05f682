"""Runs whose every figure is scripted: what a clock and counters would have shown, from a seed.

Noise is as timings have it: a few percent, skewed towards slow, now and then a spike, and a mood
of the machine that all samples of one round share. Counts have none.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from cowshed_benchmarks.results import (
    ImageFacts,
    Input,
    Machine,
    Run,
    Sample,
    Subject,
    Workload,
)

MACHINE = Machine(
    cpu="Scripted CPU at 3 GHz",
    cores=4,
    memory=16_000_000_000,
    kernel="6.12.0",
    file_system="ext4 on /dev/scripted",
    python="3.11.9",
    privileged=True,
    load=0.1,
)
INPUT = Input(
    title="files of a scripted machine",
    images=(
        ImageFacts(
            reference="v1", layers=4, unpacked=55_000_000, entries=4100, compressed=20_000_000
        ),
        ImageFacts(
            reference="v2", layers=4, unpacked=56_000_000, entries=4150, compressed=20_500_000
        ),
    ),
)


def _subject(name: str, kind: str = "driver", durable: str = "yes") -> Subject:
    plugin = f"cowshed_drivers.{name.replace('-', '_')}" if kind == "driver" else ""
    return Subject(name=name, kind=kind, version="1.0", durable=durable, plugin=plugin)  # type: ignore[arg-type]


SUBJECTS = (
    _subject("chunk-dedup"),
    _subject("hardlink-farm"),
    _subject("naive-copy"),
    _subject("overlayfs"),
    _subject("reflink"),
    _subject("containers-storage (overlay)", "peer", "no"),
    _subject("containers-storage (vfs)", "peer", "no"),
    _subject("containerd", "peer", "metadata only; snapshots aren't synced"),
    _subject("umoci", "peer", "no"),
    _subject("borg", "peer", "yes"),
    _subject("casync", "peer", "no"),
    _subject("floor", "floor", "no"),
)


def _workload(name: str, title: str, group: str, **others: object) -> Workload:
    return Workload(name=name, title=title, question=f"{title}: how long?", group=group, **others)  # type: ignore[arg-type]


WORKLOADS = (
    _workload("import-first", "Import a first image", "import", durable=True, cache="cold"),
    _workload("import-second", "Import a second version", "import", durable=True, cache="warm"),
    _workload("versions", "Keep N versions", "import", metric="disk", parameter="versions"),
    _workload("create", "Create containers", "containers", parameter="containers"),
    _workload("first-write", "First byte into a big file", "writing", parameter="megabytes"),
    _workload("overwrite", "Overwrite a big file at random", "writing"),
    _workload("burst", "A thousand small files", "writing", durable=False),
    _workload("read", "Read a tree", "reading", cache="warm"),
    _workload("stat-mounted", "Look at every name in a mount", "reading", cache="warm"),
    _workload("diff", "Diff after a change", "changes"),
    _workload("commit", "Commit a container", "changes"),
    _workload("fork", "Fork a container", "changes"),
    _workload("deep-import", "Import a deep chain", "import", parameter="layers"),
    _workload("remove-containers", "Delete containers", "removal"),
    _workload("eight-at-once", "Eight processes at once", "parallel"),
)
SIZES: Mapping[str, Sequence[int]] = {
    "create": (1, 100, 1000),
    "first-write": (1, 64, 500),
    "versions": (1, 2, 4, 8),
    "deep-import": (1, 16, 128),
}

#: What a sample does one operation for each of.
_COUNTED = ("containers", "versions", "layers")

#: Milliseconds for one operation: a row for each workload, a column for each of ``SUBJECTS``.
_COSTS = """
import-first        1200  2600  5000  2000  2100  3100  7100  2500  4000  3200  4200   900
import-second        300   500  2500   600   800  1400  4400  1100  3500  1100  2100   250
versions            1500  3000  9000  2200  2500  6000 20000  5000 12000  4000  6000  1100
create               1.6    60  1000   0.5   300    50  1500    20  2000  1900  1700   0.3
first-write            2     1     1     2     1     4     4     4     4     -     -   0.1
overwrite              6   400     1   300     2   500   500   400     4     -     -   0.1
burst                500   200   100   120   120   150   150   150   100     -     -    90
read                 400   200   100   100   100   100   100   100   100     -     -    80
stat-mounted         150    50    40    45    40    50    50    50    40     -     -    30
diff                 0.6    50   200     1   100   300   600   200   900  1100     -    20
commit                20   100   400    30   200   800   900   500  1200  1400  1400    10
fork                   3    60  1100    20   300     -     -     -     -     -     -   0.4
deep-import           20    50   600    20   300    50  1000    30  1400     -     -    10
remove-containers      1    50   600     1   300    50   800    20   600   500     -   0.4
eight-at-once        300   600  3000   200   900  1000  4000   500  5000     -     -   150
"""
_SECONDS = {
    (subject.name, name): math.nan if cost == "-" else float(cost) / 1000
    for name, *costs in map(str.split, _COSTS.strip().splitlines())
    for subject, cost in zip(SUBJECTS, costs, strict=True)
}
#: Bytes that one operation leaves on disk, per unit of work.
_BYTES: Mapping[str, float] = {
    "chunk-dedup": 2.4e6,
    "hardlink-farm": 17e6,
    "naive-copy": 55e6,
    "overlayfs": 27e6,
    "reflink": 20e6,
    "containers-storage (vfs)": 60e6,
    "borg": 3e6,
    "casync": 4e6,
}


@attrs.define
class Script:
    """A clock that stands still except for what it is told to let pass, and its noise."""

    seed: int
    sigma: float = 0.03
    #: How often a sample takes 1.2 to 2.5 times as long.
    spikes: float = 0.03
    #: What all samples of one round share.
    mood: float = 0.02
    now: float = 0.0
    _draw: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def __call__(self) -> float:
        """Read the clock."""
        return self.now

    def begin_round(self) -> float:
        """Return how fast the machine is in a new round."""
        return math.exp(self._draw.gauss(0, self.mood))

    def work(self, seconds: float, mood: float) -> None:
        """Let a piece of work pass that takes ``seconds`` on a calm machine."""
        noise = math.exp(abs(self._draw.gauss(0, self.sigma)) * 1.6)
        spike = self._draw.uniform(1.2, 2.5) if self._draw.random() < self.spikes else 1.0
        self.now += seconds * noise * spike * mood


def timed(clock: Callable[[], float], work: Callable[[], None]) -> float:
    """Measure ``work`` on a clock."""
    began = clock()
    work()
    return clock() - began


def scripted_run(
    seed: int = 0,
    *,
    rounds: int = 5,
    slower: Mapping[str | tuple[str, str], float] | None = None,
    subjects: Sequence[Subject] = SUBJECTS,
    workloads: Sequence[Workload] = WORKLOADS,
    script: Script | None = None,
) -> Run:
    """Return a run of the whole suite as a scripted clock shows it.

    Args:
        slower: factor by which a subject, or a (subject, workload), takes longer than it does.
    """
    script = script or Script(seed)
    samples: list[Sample] = []
    for number in range(rounds):
        mood = script.begin_round()
        for workload, size, subject in _turns(workloads, subjects):
            factor = (slower or {}).get(subject.name, 1.0)
            factor *= (slower or {}).get((subject.name, workload.name), 1.0)
            samples.append(
                _sample(script, workload, size, subject, number, len(samples), mood, factor)
            )
    return Run(
        started="2026-01-02T03:04:05Z",
        finished="2026-01-02T03:24:05Z",
        command=("cowshed", "bench"),
        machine=MACHINE,
        versions={"cowshed": "0.1.0"},
        input=INPUT,
        options={"rounds": rounds},
        subjects=tuple(subjects),
        workloads=tuple(workloads),
        samples=tuple(samples),
    )


def _turns(
    workloads: Sequence[Workload], subjects: Sequence[Subject]
) -> Iterator[tuple[Workload, int | None, Subject]]:
    for workload in workloads:
        for size in SIZES.get(workload.name, (None,)):
            for subject in subjects:
                yield workload, size, subject


def _sample(
    script: Script,
    workload: Workload,
    size: int | None,
    subject: Subject,
    number: int,
    order: int,
    mood: float,
    factor: float,
) -> Sample:
    place = {"subject": subject.name, "workload": workload.name, "parameter": size}
    at = [one.name for one in WORKLOADS].index(workload.name)
    seconds = _SECONDS[subject.name, workload.name] * factor
    if math.isnan(seconds):
        reason = f"{subject.name} has no such thing"
        return Sample(**place, round=number, order=order, outcome="skipped", reason=reason)  # type: ignore[arg-type]
    if subject.name == "umoci" and workload.name == "deep-import" and size == 128:
        reason = "exit status 1: too many layers: <nothing> & more"
        return Sample(**place, round=number, order=order, outcome="failed", reason=reason)  # type: ignore[arg-type]
    # What takes long for one byte takes longer for a big file; what doesn't, doesn't.
    grows = workload.parameter in _COUNTED or seconds / factor > 0.0015
    work = seconds * (size or 1) ** (0.95 if grows else 0.05)
    left = _BYTES.get(subject.name, 25e6) * (size or 1) ** 0.6
    if subject.name in ("chunk-dedup", "overlayfs", "floor") and workload.group == "containers":
        left = 4096.0 * (size or 1)
    wall = timed(script, lambda: script.work(work, mood))
    return Sample(
        **place,  # type: ignore[arg-type]
        round=number,
        order=order,
        outcome="ok",
        wall=wall,
        cpu=wall * 0.8,
        peak_memory=int(40e6 + 1e6 * at),
        disk=int(left) if workload.group in ("import", "containers", "writing") else 0,
        inodes=int(left // 9000) if workload.group in ("import", "containers") else 0,
        written=int(left * 1.1),
        syncs=None if subject.kind == "peer" else 3,
        operations=size if size and workload.parameter in _COUNTED else 1,
    )
