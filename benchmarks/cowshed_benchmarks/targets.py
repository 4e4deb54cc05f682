"""Measure what the project promises, beside skopeo, and say which promises hold.

    python -m cowshed_benchmarks.targets --image oci:DIRECTORY [--tags v1 v2] [--only WORD …]

``cowshed_benchmarks.real_image`` builds a fitting image. Imports are whole processes, each into a
fresh shed and ended by a sync of the file system; competitors take turns, medians count. Exit
status 1 means that a promise doesn't hold here.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .actors.material import Material
from .actors.peers.containers_storage import Skopeo
from .measuring import cowshed, duration, median, run, size, sync_file_system, timed
from .space import clear, on_disk

if TYPE_CHECKING:
    from cowshed import Container, Shed

MANY = 10_000
BIG = 500 * 1000 * 1000
CHUNK = "chunk-dedup"
FARM = "hardlink-farm"


@attrs.frozen
class Outcome:
    """One promise and what was measured."""

    what: str
    promised: float
    found: float
    show: Callable[[float], str]
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.found <= self.promised


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one line each."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.targets", description=__doc__)
    parser.add_argument("--image", required=True, help="oci:DIRECTORY of a big image")
    parser.add_argument("--tags", nargs=2, default=("v1", "v2"), help="its two versions")
    parser.add_argument("--rounds", type=int, default=3, help="how often imports are repeated")
    parser.add_argument("--scratch", type=Path, help="where sheds are made (default: TMPDIR)")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="what to measure"
    )
    options = parser.parse_args(arguments)
    layout = Path(str(options.image).removeprefix("oci:")).absolute()
    first, second = options.tags
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(dir=options.scratch, ignore_cleanup_errors=True) as made:
        bench = Bench(layout, first, second, Path(made), options.rounds)
        for part in options.only:
            for outcome in PARTS[part](bench):
                outcomes.append(outcome)
                _print(outcome)
            bench.clear()
    failed = [outcome for outcome in outcomes if not outcome.holds]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} promises hold")
    return 1 if failed else 0


def _print(outcome: Outcome) -> None:
    verdict = "pass" if outcome.holds else "FAIL"
    ratio = outcome.found / outcome.promised if outcome.promised else float("nan")
    found, promised = outcome.show(outcome.found), outcome.show(outcome.promised)
    print(
        f"{verdict}  {outcome.what:<52} {found:>10}  of at most {promised:>10}  {ratio:6.2f}  "
        f"{outcome.note}",
        flush=True,
    )


@attrs.frozen
class Bench:
    """The image to measure on and a place to do so."""

    layout: Path
    first: str
    second: str
    scratch: Path
    rounds: int

    def fresh(self, name: str) -> Path:
        """Return an empty directory."""
        place = self.scratch / name
        clear(place)
        place.mkdir()
        return place

    def clear(self) -> None:
        """Empty the scratch directory."""
        for place in self.scratch.iterdir():
            clear(place)

    def shed(self, driver: str = CHUNK, *, image: bool = True) -> Shed:
        """Open a fresh shed, with the first version in it if asked."""
        from cowshed import Shed

        shed = Shed(self.fresh("shed"), driver=driver)
        if image:
            shed.import_image(f"oci:{self.layout}:{self.first}", "app:1")
        return shed


# -- what is promised ----------------------------------------------------------------------------


def importing(bench: Bench) -> list[Outcome]:
    """Import beside skopeo, and how much memory it takes."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    peaks: defaultdict[str, list[float]] = defaultdict(list)
    missing = Skopeo.missing()
    for _ in range(bench.rounds):
        if missing is None:
            times["skopeo"].append(_skopeo(bench))
            clear(bench.scratch / "skopeo")
        for driver in (FARM, CHUNK):
            root = bench.fresh("shed")
            source = f"oci:{bench.layout}:{bench.first}"
            ran = run(cowshed(root, driver, "import", source, "app:1"), sync=root)
            times[driver].append(ran.seconds)
            peaks[driver].append(ran.peak)
    outcomes = [
        Outcome(f"import into {driver}: peak memory", 200e6, median(peaks[driver]), size)
        for driver in (FARM, CHUNK)
    ]
    if missing is not None:
        print(f"----  import beside skopeo isn't measured: {missing}")
        return outcomes
    skopeo = median(times["skopeo"])
    for driver, share in ((FARM, 1.0), (CHUNK, 0.6)):
        note = f"skopeo {duration(skopeo)}, {median(times[driver]) / skopeo:.2f} of it"
        outcomes.append(
            Outcome(
                f"import into {driver}, {share:g} of skopeo's time",
                skopeo * share,
                median(times[driver]),
                duration,
                note,
            )
        )
    return outcomes


def _skopeo(bench: Bench) -> float:
    """Return what skopeo takes into containers-storage with overlay, with its sync."""
    skopeo = Skopeo(bench.fresh("skopeo"), Material(bench.scratch, bench.layout))
    skopeo.start()
    try:

        def work() -> None:
            skopeo.import_image(bench.first)
            sync_file_system(skopeo.store)

        return timed(work)
    finally:
        skopeo.stop()
        skopeo.discard()


def two_versions(bench: Bench) -> list[Outcome]:
    """Disk for two versions against the bytes of unpacked layers."""
    with bench.shed() as shed:
        shed.import_image(f"oci:{bench.layout}:{bench.second}", "app:2")
        with shed.catalog.read() as transaction:
            unpacked = sum(layer.size for layer in transaction.layers())
        disk = shed.df().total
    return [
        Outcome(
            f"two versions in {CHUNK}, half of the unpacked bytes",
            unpacked / 2,
            disk,
            size,
            f"{unpacked / disk:.1f} times smaller than {size(unpacked)}",
        )
    ]


def creating(bench: Bench) -> list[Outcome]:
    """Create one, create ten thousand, list them."""
    with bench.shed() as shed:
        root = shed.root
        shed.create("app:1")
        one = median([timed(lambda: shed.create("app:1")) for _ in range(100)])
        shed.remove_containers([container.id for container in shed.containers()])
        few = [run(cowshed(root, CHUNK, "ps")).seconds for _ in range(11)]
        before = on_disk(root)
        batch = timed(lambda: shed.create_many("app:1", MANY))
        each = (on_disk(root) - before) / MANY
        many = [run(cowshed(root, CHUNK, "ps")).seconds for _ in range(5)]
        removal = timed(
            lambda: shed.remove_containers([container.id for container in shed.containers()])
        )
    with bench.shed(image=False) as shed:
        _tiny_image(shed)
        shed.create("tiny")
        small = median([timed(lambda: shed.create("tiny")) for _ in range(100)])
    return [
        Outcome("create, durable, in process", 0.002, one, duration),
        Outcome("create on the big image against a tiny one", 1.5, one / small, _factor),
        Outcome(f"create {MANY:,} in one batch", 2, batch, duration),
        Outcome("disk of each of them", 1024, each, size, f"all removed in {duration(removal)}"),
        Outcome(f"cowshed ps with {MANY:,}", 0.5, median(many), duration),
        Outcome("cowshed ps from the shell", 0.12, median(few), duration),
    ]


def first_write(bench: Bench) -> list[Outcome]:
    """Change one byte of a file of 500 MB."""
    with bench.shed(image=False) as shed:
        source = bench.scratch / "big.tar"
        with tarfile.open(source, "w") as tar:
            member = tarfile.TarInfo("big")
            member.size = BIG
            tar.addfile(member, _Noise())  # type: ignore[arg-type]  # reads are all it does
        shed.import_image(f"tar:{source}", "big")
        source.unlink()
        seconds: list[float] = []
        brought: list[float] = []
        for number in range(9):
            container = shed.create("big")
            before = on_disk(shed.root)
            offset = BIG // 10 * (number + 1) - 7
            seconds.append(timed(lambda: _write_byte(container, offset)))  # noqa: B023
            brought.append(on_disk(shed.root) - before)
    return [
        Outcome("first byte written into 500 MB", 0.010, median(seconds), duration),
        Outcome("new data on disk for it", 256 * 1024, median(brought), size),
    ]


def changing(bench: Bench) -> list[Outcome]:
    """Diff and commit: the same changes on the big image and on a tiny one."""
    found: dict[str, tuple[float, float]] = {}
    for name in ("app:1", "tiny"):
        with bench.shed(image=name != "tiny") as shed:
            if name == "tiny":
                _tiny_image(shed)
            found[name] = _diff_and_commit(shed, name)
    (diff, commit), (small_diff, small_commit) = found["app:1"], found["tiny"]
    return [
        Outcome(
            "diff of 100 changes: big image against a tiny one",
            2,
            diff / small_diff,
            _factor,
            f"{duration(diff)} against {duration(small_diff)}",
        ),
        Outcome(
            "commit of 100 changes: the same",
            2,
            commit / small_commit,
            _factor,
            f"{duration(commit)} against {duration(small_commit)}",
        ),
    ]


def _diff_and_commit(shed: Shed, image: str) -> tuple[float, float]:
    diffs: list[float] = []
    commits: list[float] = []
    for number in range(5):
        container = shed.create(image)
        with container.tree(writable=True) as tree:
            tree.mkdir("changes")
            for other in range(100):
                tree.write_bytes(f"changes/{other}", f"{number} {other}\n".encode() * 100)
        diffs.append(timed(container.diff))
        commits.append(timed(lambda: container.commit(f"{image}-{number}")))  # noqa: B023
    return median(diffs), median(commits)


PARTS: dict[str, Callable[[Bench], list[Outcome]]] = {
    "import": importing,
    "versions": two_versions,
    "create": creating,
    "write": first_write,
    "changes": changing,
}


# -- small things --------------------------------------------------------------------------------


def _tiny_image(shed: Shed) -> None:
    """Import an image of one file."""
    source = shed.root.parent / "tiny.tar"
    with tarfile.open(source, "w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"tiny"))
    shed.import_image(f"tar:{source}", "tiny")


def _write_byte(container: Container, offset: int) -> None:
    with container.tree(writable=True) as tree, tree.open("big", "r+b") as file:
        file.seek(offset)
        file.write(b"!")


def _factor(value: float) -> str:
    return f"{value:.2f} times"


class _Noise:
    """Bytes without end that don't compress."""

    def read(self, count: int) -> bytes:
        return os.urandom(count)


if __name__ == "__main__":
    sys.exit(main())
