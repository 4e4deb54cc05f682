"""See every driver at work: ``make demo``.

    python -m cowshed_benchmarks.demo DIRECTORY [--driver NAME …]

Packs files of this machine into a two-version image (see ``sample_image``), lets each driver go
through its whole life in a process and shed of its own, checks every result against what the image
must hold, and prints one table. Anything that isn't as it must be ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from .sample_image import (
    DATA,
    LIBRARY,
    Picture,
    Sample,
    Thing,
    differences,
    make_sample,
    picture_of_tar,
)
from .space import clear

#: A driver that copies makes as many as fit into this many seconds, but at least two.
CREATING_SECONDS = 2.0
MOST_CREATED = 50


@attrs.frozen(kw_only=True)
class Row:
    """What one driver showed."""

    driver: str
    first_import: float
    second_import: float
    #: Bytes on disk of both versions.
    disk: int
    #: Median seconds to make one container.
    create: float
    created: int
    #: Bytes on disk of one untouched container.
    container: int
    #: Seconds and bytes on disk to change one byte of a 16 MiB file.
    write: float
    written: int
    #: Bytes that stay once everything is removed.
    left: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or one driver's part of it in a process of its own."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.demo", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to work; made if missing")
    parser.add_argument("--driver", action="append", help="show only this driver; may be repeated")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    directory: Path = options.directory.absolute()
    if options.row:
        return _row_process(directory, options.row)
    started = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    sample = _sample(directory)
    entries = len(sample.pictures["v1"])
    print(f"Sample image: {entries:,} entries, {_size(sample.unpacked)} unpacked, two versions")
    rows: list[Row] = []
    failed = False
    for driver, reason in _drivers(options.driver):
        if reason is not None:
            print(f"  {driver:<14} can't run here: {reason}")
            continue
        print(f"  {driver:<14} ", end="", flush=True)
        began = time.monotonic()
        row = _measure(directory, driver)
        if row is None:
            failed = True
        else:
            rows.append(row)
            print(f"all checks passed, {time.monotonic() - began:.0f} s")
    if rows:
        _print_table(rows)
    if failed or not rows:
        print("\nThe demo FAILED; the messages above say where.")
        return 1
    _print_next(directory, time.monotonic() - started)
    return 0


def _drivers(only: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Return every registered driver's name and why it can't run here, if it can't."""
    import tempfile

    from cowshed import CowshedError, Shed

    with tempfile.TemporaryDirectory() as root, Shed(root) as shed:
        names = list(only or shed.plugins.drivers)
        try:
            return [(name, shed.probe(name)) for name in names]
        except CowshedError as error:
            print(error)
            sys.exit(1)


def _sample(directory: Path) -> Sample:
    """Make the sample, or take the one that an earlier run made."""
    known = directory / "sample.pickle"
    layout = directory / "image"
    if known.exists():
        # Our own file, written below; tens of thousands of records load in no time.
        return Sample(layout, pickle.loads(known.read_bytes()))
    print("Packing files of this machine into an image …")
    shutil.rmtree(layout, ignore_errors=True)
    sample = make_sample(layout)
    known.write_bytes(pickle.dumps(dict(sample.pictures)))
    return sample


def _measure(directory: Path, driver: str) -> Row | None:
    """Run one driver's part in a fresh process, so that no driver warms up for another."""
    done = subprocess.run(
        [sys.executable, "-m", "cowshed_benchmarks.demo", str(directory), "--row", driver],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print("FAILED")
        return None
    return Row(**json.loads(done.stdout))


def _row_process(directory: Path, driver: str) -> int:
    work = directory / f"shed-{driver}"
    clear(work)
    work.mkdir()
    try:
        row = _Life(_sample(directory), work, driver).run()
    except _Wrong as error:
        print(f"\n{driver}: {error}", file=sys.stderr)
        return 1
    finally:
        clear(work)
    print(json.dumps(attrs.asdict(row)))
    return 0


class _Wrong(Exception):
    """Something isn't as it must be."""


def _require(truth: bool, what: str, *details: str) -> None:
    if not truth:
        shown = "".join(f"\n    {line}" for line in details[:10])
        raise _Wrong(f"{what}{shown}")


class _Life:
    """One driver's life, from import to the last byte given back."""

    def __init__(self, sample: Sample, work: Path, driver: str) -> None:
        from cowshed import Shed

        self.sample = sample
        self.work = work
        self.driver = driver
        self.shed = Shed(work / "shed", driver=driver)

    def run(self) -> Row:
        """Go through all of it and return what it took."""
        shed, layout = self.shed, self.sample.layout
        empty = shed.disk_usage()
        first = _timed(lambda: shed.import_image(f"oci:{layout}:v1", "sample:v1"))
        second = _timed(lambda: shed.import_image(f"oci:{layout}:v2", "sample:v2"))
        disk = shed.disk_usage()
        times = self._create()
        with_containers = shed.disk_usage()
        containers = shed.containers()
        write, written = self._first_write(containers[0])
        self._changes(containers[1])
        self._save()
        findings = shed.check(deep=True)
        _require(not findings, "check --deep finds", *(str(one) for one in findings))
        left = self._remove_all()
        _require(
            left - empty < max(disk // 50, 2 << 20),
            f"{_size(left - empty)} of {_size(disk)} stay on disk after everything was removed",
        )
        shed.close()
        return Row(
            driver=self.driver,
            first_import=first,
            second_import=second,
            disk=disk,
            create=statistics.median(times),
            created=len(times),
            container=max(0, with_containers - disk) // len(times),
            write=write,
            written=written,
            left=max(0, left - empty),
        )

    def _create(self) -> list[float]:
        times: list[float] = []
        while len(times) < 2 or (sum(times) < CREATING_SECONDS and len(times) < MOST_CREATED):
            times.append(_timed(lambda: self.shed.create("sample:v1")))
        return times

    def _first_write(self, container: Any) -> tuple[float, int]:
        before = self.shed.disk_usage()

        def write() -> None:
            with container.tree(writable=True) as tree, tree.open(DATA, "r+b") as file:
                file.seek(8 << 20)
                file.write(b"!")

        seconds = _timed(write)
        changes = [f"{one.kind.value} {one.path}" for one in container.diff()]
        expected = ["C srv", "C srv/app", f"C {DATA}"]
        _require(changes == expected, f"diff says {changes}, not {expected}")
        return seconds, max(0, self.shed.disk_usage() - before)

    def _changes(self, container: Any) -> None:
        """Write in many ways, then compare diff, commit, export and the layers below."""
        edited = f"{LIBRARY}/abc.py"
        removed = _some_directory(self.sample.pictures["v1"])
        expected = dict(self.sample.pictures["v1"])
        edited_mtime = expected[edited].mtime
        with container.tree(writable=True) as tree:
            content = tree.read_bytes(edited) + b"# a change\n"
            tree.write_bytes(edited, content)
            tree.utime(edited, edited_mtime * 10**9)  # found nevertheless
            tree.mkdir("srv/new")
            tree.write_bytes("srv/new/file", b"new\n")
            tree.chmod("srv/app/helper", 0o755)
            tree.remove_tree(removed)
            above = (LIBRARY, "usr/lib", "usr", "srv", "srv/app")
            for path in ("srv/new/file", "srv/new", *above):
                tree.utime(path, 1_700_000_000 * 10**9)
        for path in [one for one in expected if one == removed or one.startswith(f"{removed}/")]:
            del expected[path]
        expected[edited] = _file(content, expected[edited].mode)
        expected["srv/new"] = Thing(tarfile.DIRTYPE, 0o755, 0, 0, 1_700_000_000)
        expected["srv/new/file"] = _file(b"new\n", 0o644)
        expected["srv/app/helper"] = attrs.evolve(expected["srv/app/helper"], mode=0o755)

        changes = sorted(f"{one.kind.value} {one.path}" for one in container.diff())
        wanted = ["A srv/new", "A srv/new/file", "C srv", "C srv/app", "C srv/app/helper", "C usr"]
        wanted += ["C usr/lib", f"C {LIBRARY}", f"C {edited}", f"D {removed}"]
        _require(
            changes == sorted(wanted),
            "diff isn't exact:",
            *(f"only expected: {line}" for line in sorted({*wanted} - {*changes})),
            *(f"only found:    {line}" for line in sorted({*changes} - {*wanted})),
        )
        image = container.commit("sample:changed", message="demo")
        shared = self.shed.image("sample:v1").record.diff_ids
        _require(image.record.diff_ids[:-1] == shared, "commit doesn't share its parent's layers")
        self._export(container, expected, "the changed container")
        self._export(self.shed.create("sample:changed"), expected, "a container on the commit")
        second = self.sample.pictures["v2"]
        self._export(self.shed.create("sample:v2"), second, "an untouched container of v2")

    def _export(self, container: Any, expected: dict[str, Thing], what: str) -> None:
        tar = self.work / "export.tar"
        with tar.open("wb") as out:
            container.export(out)
        lines = differences(expected, picture_of_tar(tar))
        tar.unlink()
        _require(not lines, f"the export of {what} differs:", *lines)

    def _save(self) -> None:
        """Save the second version; compare image ID and layers' bytes with the original's."""
        target = self.work / "saved"
        self.shed.save(["sample:v2"], f"oci:{target}:v2")
        original = _documents(self.sample.layout, "v2")
        saved = _documents(target, "v2")
        config = saved["config"]["digest"]
        _require(config == original["config"]["digest"], "the saved image has another ID")
        diff_ids = json.loads(_blob(target, config))["rootfs"]["diff_ids"]
        for layer, diff_id in zip(saved["layers"], diff_ids, strict=True):
            tar = gzip.decompress(_blob(target, layer["digest"]))
            found = f"sha256:{hashlib.sha256(tar).hexdigest()}"
            _require(found == diff_id, "a saved layer isn't the original's bytes")
        shutil.rmtree(target)

    def _remove_all(self) -> int:
        self.shed.remove_containers([one.id for one in self.shed.containers()])
        for image in self.shed.images():
            self.shed.remove_image(image.id, force=True)
        self.shed.gc()
        return self.shed.disk_usage()


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _some_directory(picture: Picture) -> str:
    """Return a directory of the library that has files: which ones there are, Python decides."""
    above = {path.rpartition("/")[0] for path, thing in picture.items() if thing.size}
    return min(path for path in above if path.startswith(f"{LIBRARY}/"))


def _file(content: bytes, mode: int) -> Thing:
    digest = hashlib.sha256(content).hexdigest()
    return Thing(tarfile.REGTYPE, mode, 0, 0, 1_700_000_000, len(content), digest)


def _documents(layout: Path, tag: str) -> Any:
    """Return the manifest that ``tag`` names in an OCI layout."""
    index = json.loads((layout / "index.json").read_text())
    for descriptor in index["manifests"]:
        name = descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
        if name in (tag, f"sample:{tag}"):
            return json.loads(_blob(layout, descriptor["digest"]))
    raise _Wrong(f"{layout} has no image {tag}")


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


# -- what people see -----------------------------------------------------------------------------


def _print_table(rows: Sequence[Row]) -> None:
    headings = (
        *("driver", "import v1", "import v2", "create one", "both versions", "a container"),
        *("first write", "brings"),
    )
    lines = [headings]
    lines += [
        (
            row.driver,
            f"{row.first_import:.1f} s",
            f"{row.second_import:.1f} s",
            f"{row.create * 1000:.1f} ms",
            _size(row.disk),
            _size(row.container),
            f"{row.write * 1000:.1f} ms",
            _size(row.written),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    print()
    for line in lines:
        first, *others = line
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("   ".join([first.ljust(widths[0]), *cells]))
    print(
        "\n'both versions' and 'a container' are bytes on disk, 'a container' before anything is "
        "written;\n'first write' changes one byte of 16 MiB and 'brings' so many new bytes on disk."
    )


def _print_next(directory: Path, seconds: float) -> None:
    here = Path(os.path.relpath(directory))
    programs = Path(sys.executable).parent
    print(
        f"""
Diffs were exact, exports and saved layers equal to the original's bytes, and removing
everything gave the disk back. It took {seconds:.0f} s. Try next:

  export PATH="{programs}:$PATH"
  cowshed import oci:{here / "image"}:v1 sample:v1
  cowshed create --name mine sample:v1
  cowshed cp README.md mine:/srv/
  cowshed diff mine
  cowshed df
  cowshed --help"""
    )


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


if __name__ == "__main__":
    sys.exit(main())
