"""``cowshed bench`` run on a tiny synthetic image, and what it says to who calls it wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cowshed_benchmarks.actors.floor import Floor
from cowshed_benchmarks.actors.material import Material
from cowshed_benchmarks.actors.peers import PEERS
from cowshed_benchmarks.job import Job
from cowshed_benchmarks.launching import launch
from cowshed_benchmarks.results import Run, load
from cowshed_benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def bench(*arguments: str | Path, cwd: Path, plugin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it, if asked with one more plugin."""
    environment = {name: value for name, value in os.environ.items() if "COWSHED" not in name}
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, sys.path), str(ROOT)])
    environment["XDG_CACHE_HOME"] = str(cwd / "cache")
    environment["TMPDIR"] = str(cwd)
    # A checkout that isn't installed has no entry points.
    named = "cowshed_benchmarks.plugin"
    drivers = ["naive_copy", "chunk_dedup", "hardlink_farm", "reflink", "overlayfs"]
    plugins = [named, *(f"cowshed_drivers.{name}.plugin" for name in drivers)]
    plugins += ["cowshed_plugins.transports.plugin"]
    plugins = [] if entry_points(group="cowshed") else plugins
    plugins += [plugin] if plugin else []
    extra = ["--set", f"plugins={json.dumps(plugins)}"] if plugins else []
    command = [sys.executable, "-m", "cowshed", *extra, "bench", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str, Path]:
    """A run of several workloads for two drivers and the floor."""
    place = tmp_path_factory.mktemp("whole")
    names = ("import-first", "create", "first-write", "diff", "remove-image", "burst-mounted")
    done = bench(
        *("--quick", "--minutes", "20", "--rounds", "1", "--synthetic", "1MB", "--peer", "none"),
        *("--driver", "chunk-dedup", "--driver", "naive-copy", "--out", "run.json"),
        *(word for name in names for word in ("--workload", name)),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    return load(place / "run.json"), done.stdout, place


def test_each_subject_does_each_workload_or_says_why_not(whole: tuple[Run, str, Path]) -> None:
    run, out, _ = whole
    assert [subject.name for subject in run.subjects] == ["chunk-dedup", "naive-copy", "floor"]
    cells = {(one.subject, one.workload, one.parameter): one for one in run.samples}
    parameters = sum(len(WORKLOADS[workload.name].quick) for workload in run.workloads)
    assert len(cells) == 3 * parameters
    for sample in run.samples:
        assert sample.outcome in ("ok", "skipped"), sample.reason
        assert (sample.reason == "") == (sample.outcome == "ok")
    assert cells["floor", "diff", None].reason == "no system call tells two trees apart"
    assert "no system call tells two trees apart" in out
    assert cells["floor", "burst-mounted", None].outcome == "skipped"


def test_measures_are_those_of_the_work(whole: tuple[Run, str, Path]) -> None:
    run, _, _ = whole
    cells = {(one.subject, one.workload, one.parameter): one for one in run.samples}
    image = run.input.images[0]
    naive = cells["naive-copy", "import-first", None]
    assert naive.disk is not None and naive.inodes is not None and naive.cpu is not None
    # Four layers, each flattened: what the last holds at least, and every entry an inode.
    assert naive.disk > image.unpacked
    assert naive.inodes > image.entries
    assert naive.wall is not None and naive.wall > 0 and naive.cpu > 0
    assert naive.peak_memory is not None and 10e6 < naive.peak_memory < 1e9
    chunks = cells["chunk-dedup", "import-first", None]
    assert chunks.disk is not None and chunks.disk < naive.disk
    created = cells["naive-copy", "create", 1]
    assert created.inodes is not None and created.inodes > created.operations * 100
    diff = cells["chunk-dedup", "diff", None]
    # A hundred files, the directories that they lie in, and the one above these.
    assert diff.extra["changes"] == 100 + 4 + 2
    removed = cells["naive-copy", "remove-image", None]
    assert removed.disk is not None and -removed.disk == pytest.approx(removed.extra["brought"])


def test_a_byte_in_a_big_file_copies_what_the_driver_says(whole: tuple[Run, str, Path]) -> None:
    run, _, _ = whole
    cells = {(one.subject, one.workload, one.parameter): one for one in run.samples}
    sample = cells["chunk-dedup", "first-write", 16]
    assert sample.disk is not None and sample.disk < 1_000_000
    naive = cells["naive-copy", "first-write", 16]
    assert naive.disk is not None and abs(naive.disk) < 100_000  # in place: it was copied before


def test_input_machine_and_versions_are_recorded(whole: tuple[Run, str, Path]) -> None:
    run, _, _ = whole
    first, second = run.input.images
    assert 1_000_000 <= first.unpacked < 1_300_000
    assert first.layers == second.layers == 4
    assert first.entries == second.entries and second.unpacked > first.unpacked
    assert run.input.seed is not None
    assert run.machine.cores >= 1 and run.machine.memory > 1 << 20
    assert " on " in run.machine.file_system
    assert run.options["complete"] is True
    assert [sample.order for sample in run.samples] == list(range(len(run.samples)))


def test_nothing_stays_but_the_results(whole: tuple[Run, str, Path]) -> None:
    _, out, place = whole
    drawn = all(map(find_spec, ("jinja2", "matplotlib")))
    results = ["run.html", "run.json"] if drawn else ["run.json"]
    assert sorted(path.name for path in place.iterdir() if path.name != "cache") == results
    assert ("Report: run.html" if drawn else "No report was made: reports need") in out


def test_a_driver_that_fails_fails_in_the_table_and_in_the_exit_status(tmp_path: Path) -> None:
    names = ("create", "fork", "diff", "commit")
    done = bench(
        *("--quick", "--minutes", "20", "--rounds", "2", "--synthetic", "1MB", "--peer", "none"),
        *("--driver", "failing", "--out", "run.json"),
        *(word for name in names for word in ("--workload", name)),
        cwd=tmp_path,
        plugin="tests.benchmarks.failing_driver",
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr
    run = load(tmp_path / "run.json")
    failing, floor = run.subjects
    assert (failing.name, failing.kind, floor.name) == ("failing", "driver", "floor")
    failed = {
        one.workload: one.reason
        for one in run.samples
        if one.subject == "failing" and one.outcome != "ok"
    }
    upside = "RuntimeError: its ledger is upside down"
    killed = "its process was killed by SIGKILL"
    failed.pop("create", None)  # a slow machine leaves a thousand out
    assert failed == {"fork": killed, "diff": upside, "commit": upside}
    assert done.stdout.count("FAILED [") == 3
    assert f"  {killed}\n" in done.stdout and f"  {upside}\n" in done.stdout
    # It was thrown out of nothing else: what works is measured, in every round.
    created = [one for one in run.samples if (one.subject, one.workload) == ("failing", "create")]
    assert {one.round for one in created if one.outcome == "ok"} == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--driver", "chunk-dedupe"), 1, "no such driver: chunk-dedupe; did you mean 'chunk-ded"),
        (("--peer", "bork"), 1, "no such peer: bork; did you mean 'borg'?"),
        (("--peer", "none", "--peer", "borg"), 2, "--peer none goes with no other --peer"),
        (("--workload", "crate"), 1, "no such workload: crate; did you mean 'create'?"),
        (("--synthetic", "big"), 2, "'big' is no size"),
        (("--synthetic", "1kB"), 2, "out of bounds"),
        (("--image", "oci:a", "--synthetic", "5MB"), 2, "exclude each other"),
        (("--image", "a", "--image", "b", "--image", "c"), 2, "once, or twice"),
        (("--image", "oci:nowhere"), 1, "nowhere"),
        (("--rounds", "0"), 2, "--rounds"),
        (("--out", "no/such/run.json"), 1, "its directory doesn't exist"),
        (("--dir", "file"), 2, "'file' is a file"),
        (("--on", "zfs"), 2, "zfs"),
    ],
)
def test_a_wrong_call_gets_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "file").touch()
    done = bench("--quick", *arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("cowshed: ") and said in line
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob("cowshed-bench-*"))


def test_the_list_names_every_workload_and_who_could_take_part(tmp_path: Path) -> None:
    done = bench("--list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert [one["name"] for one in listed["workloads"]] == list(WORKLOADS)
    names = {one["name"]: one for one in listed["subjects"]}
    assert set(PEERS) | {"chunk-dedup", "floor"} <= set(names)
    assert names["chunk-dedup"]["unable"] == ""


def test_the_floor_copies_from_another_file_system(material: Material, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy to")
    with TemporaryDirectory(dir=elsewhere) as place:
        floor = Floor(Path(place), material)
        floor.start()
        floor.ready("v1")
        floor.import_image("v1")
        copies = {
            path.relative_to(floor.store / "v1"): path.read_bytes()
            for path in (floor.store / "v1").rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        tree = material.tree("v1")
        assert len(copies) > 50
        assert all((tree / path).read_bytes() == content for path, content in copies.items())


# -- peers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    from cowshed_benchmarks.inputs import Wish, make_material

    return make_material(
        Wish(synthetic=1_000_000), tmp_path_factory.mktemp("images"), ("v1", "v2", "v3")
    )


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_takes_an_image_in_and_lets_it_go(
    name: str, material: Material, tmp_path: Path
) -> None:
    missing = PEERS[name].missing()
    if missing is not None:
        pytest.skip(missing)
    if name.startswith("containerd") and os.geteuid() != 0:
        pytest.skip("containerd takes root")
    job = Job(
        phase="measure",
        subject=name,
        kind="peer",
        place=str(tmp_path / "place"),
        material=str(material.root),
        workload="remove-image",
    )
    try:
        stocked = launch(_phase(job, "stock", ("v1",)), (), 120)
        assert stocked.outcome == "ok", stocked.reason
        report = launch(job, (), 120)
        if name == "umoci":
            assert report.reason.startswith("umoci works on the layout itself")
            created = launch(_of(job, "create", 1), (), 120)
            assert created.outcome == "ok", created.reason
            assert created.disk is not None and created.disk > created.operations * 900_000
        else:
            assert report.outcome == "ok", report.reason
            assert report.disk is not None and report.disk <= 0
            # Compressed or not, v2's new files take some room.
            assert report.extra["brought"] > 10_000
    finally:
        gone = launch(_phase(job, "discard", ()), (), 120)
    assert gone.outcome == "ok", gone.reason
    assert not (tmp_path / "place").exists()


def _phase(job: Job, phase: Any, tags: tuple[str, ...]) -> Job:
    import attrs

    return attrs.evolve(job, phase=phase, tags=tags)


def _of(job: Job, workload: str, parameter: int) -> Job:
    import attrs

    return attrs.evolve(job, workload=workload, parameter=parameter)
