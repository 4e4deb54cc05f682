"""What processes get from a mounted container: reads, stat walks, pip, and what it costs in memory.

    python -m cowshed_benchmarks.mounting [--image REF] [--work DIR] [--rounds N]

Every round takes all contenders in turn: each driver's mount beside a plain overlayfs over the
same files, and where chunk-dedup's contents come from its FUSE server, beside fuse-overlayfs. Each
is mounted anew; its names are walked and its files read with the kernel's caches dropped, then
with everything known, then ``pip install`` puts a wheel of this Python's own library into it. What
is beside a time is how many times as long it took as plain overlayfs, or fuse-overlayfs, in the
same round. Then ``--containers`` are mounted at once and a file is read in each, to see what memory
that takes, processes' and the kernel's but for what it caches; and all is walked in each and read
in one, to see what their server has by then.

Without ``--image`` it is of this Python's library. ``--work`` is kept, and what is imported there
already is used again. Needs root, find, xargs and pip; fuse-overlayfs is left out where it isn't
installed, and a driver where it can't run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cowshed.errors import NotFoundError

from .measuring import ProgramError, duration, median, run, size, timed
from .mounted import (
    CONTENDERS,
    FUSE,
    IMAGE,
    KERNEL,
    PLAIN,
    PLAIN_FUSE,
    Contender,
    Driver,
    Unable,
    server_of,
)

COLUMNS = ("walk, cold", "walk", "read, cold", "read", "pip install", "mount", "unmount")
#: How often what is known already is walked and read in one round; the median counts.
REPEATED = 3
#: Where pip installs.
TARGET = "opt/cowshed-measured"
_NOWHERE = Path(os.devnull)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print tables; with ``--json``, every single run."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.mounting", description=__doc__)
    parser.add_argument("--image", metavar="REF", help="what 'cowshed import' takes")
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--containers", type=int, default=25, help="mounted at once, for memory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    image = options.image or f"dir:{sysconfig.get_path('stdlib')}"
    with tempfile.TemporaryDirectory(prefix="cow-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        wheel = _make_wheel(work)
        there: list[Contender] = []
        try:
            for name in options.contenders:
                try:
                    there.append(CONTENDERS[name](name, work, image))
                except (Unable, ProgramError) as error:
                    print(f"{name} is left out: {error}", file=sys.stderr)
            runs = _measure(there, options.rounds, wheel)
            drivers = [one for one in there if isinstance(one, Driver)]
            taken = {one.name: _memory(one, options.containers) for one in drivers}
        finally:
            for one in there:
                one.close()
    if options.json:
        json.dump({"seconds": runs, "memory": taken}, sys.stdout)
    else:
        _print(runs, taken)
    return 0


def _make_wheel(work: Path) -> Path:
    """Make a wheel of this Python's library, without its tests."""
    path = work / "measured-1.0-py3-none-any.whl"
    if path.exists():
        return path
    library = Path(sysconfig.get_path("stdlib"))
    info = "measured-1.0.dist-info"
    record: list[str] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, data: bytes) -> None:
            wheel.writestr(name, data)
            record.append(f"{name},,")

        for file in sorted(library.rglob("*.py")):
            inside = file.relative_to(library)
            if not {"site-packages", "dist-packages", "test", "tests"} & set(inside.parts):
                add(f"measured/{inside}", file.read_bytes())
        add(f"{info}/METADATA", b"Metadata-Version: 2.1\nName: measured\nVersion: 1.0\n")
        add(f"{info}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
    return path


# -- time ------------------------------------------------------------------------------------------


def _measure(there: list[Contender], rounds: int, wheel: Path) -> dict[str, dict[str, list[float]]]:
    runs: dict[str, dict[str, list[float]]] = {
        one.name: {column: [] for column in COLUMNS} for one in there
    }
    for number in range(rounds):
        # Nobody is always first.
        first = number % max(1, len(there))
        for one in there[first:] + there[:first]:
            for column, seconds in _round(one, wheel).items():
                runs[one.name][column].append(seconds)
    return runs


def _round(one: Contender, wheel: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    began = time.perf_counter()
    path = one.mount()
    found["mount"] = time.perf_counter() - began
    works: tuple[tuple[str, Callable[[Path], None]], ...] = (("walk", _walk), ("read", _read))
    for column, work in works:
        _drop_caches()
        found[f"{column}, cold"], *again = [_timed(work, path) for _ in range(1 + REPEATED)]
        found[column] = median(again)
    found["pip install"] = timed(lambda: _install(path, wheel))
    found["unmount"] = timed(one.unmount)
    path = one.mount()
    shutil.rmtree(path / TARGET)
    one.unmount()
    return found


def _timed(work: Callable[[Path], None], path: Path) -> float:
    return timed(lambda: work(path))


def _walk(path: Path) -> None:
    """Look at every file: its names, and what stat(2) says."""
    run(["find", path, "-printf", "%s %m"], out=_NOWHERE)


def _read(path: Path) -> None:
    """Read every file, one after the other."""
    run(["sh", "-c", 'find "$0" -type f -print0 | xargs -0 cat', path], out=_NOWHERE)


def _install(path: Path, wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    run([*command, "--disable-pip-version-check", "--target", path / TARGET, wheel])


def _drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


# -- memory ----------------------------------------------------------------------------------------


def _memory(one: Driver, count: int) -> dict[str, float]:
    """Say what memory each of ``count`` mounted containers takes, and their server, in bytes."""
    shed = one.shed
    one.mount()
    native = [mount.how for mount in shed.mounts()] == ["native"]
    one.unmount()
    if native:
        return {}
    made = shed.create_many(IMAGE, count)
    found: dict[str, float] = {}
    try:
        one.mount()  # what they share
        before = _used()
        paths = [container.mount() for container in made]
        for path in paths:
            run(["find", path, "-type", "f", "-exec", "cat", "{}", ";", "-quit"], out=_NOWHERE)
        mounted = _used()
        server = server_of(one.place)
        if server is not None:
            for path in paths:
                _walk(path)
            _read(paths[0])
            found["server"] = float(_own(server))
        for container in made:
            container.unmount()
        # The machine has less in use, or more, from one minute to the next.
        found["each container"] = (mounted - (before + _used()) / 2) / count
    finally:
        for container in made:
            with suppress(NotFoundError):
                container.unmount(force=True)
        one.unmount()
        shed.remove_containers([container.id for container in made])
    return found


def _used() -> int:
    """Return what processes and the kernel have in use that isn't a cache. Caches are dropped until
    it stays the same: what is freed is counted as free a moment later."""
    found: list[int] = []
    while len(found) < 20 and (len(found) < 3 or max(found[-3:]) - min(found[-3:]) > 1 << 18):
        _drop_caches()
        time.sleep(0.2)
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        cached = sum(known[name] for name in ("Buffers", "Cached", "SReclaimable"))
        found.append(known["MemTotal"] - known["MemFree"] - cached)
    return found[-1]


def _own(pid: int) -> int:
    """Return a process's proportional set: its own pages, and its share of what others have."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ProgramError("this kernel doesn't say what memory a process has")


# -- tables ----------------------------------------------------------------------------------------


def _print(runs: dict[str, dict[str, list[float]]], taken: dict[str, dict[str, float]]) -> None:
    for group, base in ((KERNEL, PLAIN), (FUSE, PLAIN_FUSE)):
        print(f"{'':34}" + "".join(f"{column:>18}" for column in COLUMNS))
        for name in filter(runs.__contains__, group):
            cells = [
                _cell(runs[name][column], runs.get(base, {}).get(column)) for column in COLUMNS
            ]
            print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells))
        print()
    print(f"{'memory':34}{'each container':>18}{'server':>18}")
    for name, known in taken.items():
        cells = [size(known[key]) if key in known else "-" for key in ("each container", "server")]
        print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells))


def _cell(seconds: list[float], base: list[float] | None) -> str:
    said = duration(median(seconds))
    if base is None or base is seconds:
        return said
    ratio = median([one / other for one, other in zip(seconds, base, strict=True)])
    return f"{said} {ratio:5.2f}×"


if __name__ == "__main__":
    sys.exit(main())
