"""What ``cowshed run --rm IMAGE true`` adds to the OCI runtime's own time, beside podman.

    python -m cowshed_benchmarks.starting [--image tar:FILE] [--rounds N] [--containers N]

Every round takes all contenders in turn: runc alone on a bundle that was prepared once, each driver
creating, mounting, running and removing a container, by the command line and by ``Shed.run`` of a
process that has imported it, and podman doing the same with the same runtime, on the host's
network. ``--containers`` are made in every store first, as what is slow with one container may be
slower with a thousand. Without ``--image`` it is of this machine's ``true``. The second column
takes runc's time of the same round away. Needs root and runc; podman is left out where it isn't
installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

from .measuring import cowshed, duration, median, run, timed

DRIVERS = ("overlayfs", "hardlink-farm", "chunk-dedup", "reflink")
ALONE, PODMAN = "runc alone", "podman"
IMAGE = "started"

#: Runs a container and returns the seconds that it took.
Start: TypeAlias = Callable[[], float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; with ``--json``, every single run."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.starting", description=__doc__)
    parser.add_argument("--image", help="tar:FILE of a root file system with /bin/true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--containers", type=int, default=0, metavar="N")
    parser.add_argument("--drivers", nargs="+", default=DRIVERS)
    parser.add_argument("--no-podman", action="store_true", help="only ours and runc alone")
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    # As it is installed: with its modules compiled, whatever this process was told.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="cow-", dir=options.work) as work:
        place = Path(work)
        archive = place / "image.tar"
        if options.image:
            archive = Path(options.image.removeprefix("tar:"))
        else:
            _make_image(archive)
        contenders: dict[str, Start] = {}
        ending: list[Callable[[], object]] = []
        try:
            for driver in options.drivers:
                if _imported(place / driver, driver, archive, options.containers):
                    contenders[driver] = _command_line(place / driver, driver)
                    contenders[f"{driver}, in Python"] = _library(place / driver, driver, ending)
            contenders[ALONE] = _alone(place, archive, ending)
            if shutil.which(PODMAN) and not options.no_podman:
                contenders[PODMAN] = _podman(place / PODMAN, archive, options.containers, ending)
            runs = _measure(contenders, options.rounds)
        finally:
            for end in ending[::-1]:
                end()
    if options.json:
        json.dump(runs, sys.stdout)
    else:
        _print(runs)
    return 0


def _measure(contenders: dict[str, Start], rounds: int) -> dict[str, list[float]]:
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for start in contenders.values():
        start()  # caches, servers, compiled modules
    for number in range(rounds):
        # Nobody is always first.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(contenders[name]())
    return runs


def _make_image(path: Path) -> None:
    """Write a root file system of ``true`` and what it is linked with."""
    said = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True).stdout
    files = ["/bin/true", *(word for word in said.split() if word.startswith("/"))]
    with tarfile.open(path, "w") as file:
        for name in files:
            data = Path(name).resolve().read_bytes()
            member = tarfile.TarInfo(name.lstrip("/"))
            member.mode, member.size = 0o755, len(data)
            file.addfile(member, BytesIO(data))


def _imported(root: Path, driver: str, archive: Path, containers: int) -> bool:
    taken = subprocess.run(
        cowshed(root, driver, "import", "-q", f"tar:{archive}", IMAGE),
        capture_output=True,
        text=True,
    )
    if taken.returncode:
        print(f"{driver} is left out: {taken.stderr.strip()}", file=sys.stderr)
        return False
    if containers:
        run(cowshed(root, driver, "create", "-q", "--count", str(containers), IMAGE))
    return True


def _command_line(root: Path, driver: str) -> Start:
    command = cowshed(root, driver, "run", "--rm", "--runtime", "runc", IMAGE, "/bin/true")
    return lambda: run(command).seconds


def _library(root: Path, driver: str, ending: list[Callable[[], object]]) -> Start:
    from cowshed import Shed

    shed = Shed(root, driver=driver)
    ending.append(shed.close)
    return lambda: timed(lambda: shed.run(IMAGE, ["/bin/true"], runtime="runc"))


def _alone(place: Path, archive: Path, ending: list[Callable[[], object]]) -> Start:
    """Prepare a bundle, and give the bare call of its runtime."""
    root, bundle = place / "alone", place / "bundle"
    run(cowshed(root, "overlayfs", "import", "-q", f"tar:{archive}", IMAGE))
    run(cowshed(root, "overlayfs", "create", "-q", "--name", "alone", IMAGE))
    run(cowshed(root, "overlayfs", "bundle", "-q", "alone", str(bundle), "/bin/true"))
    ending.append(lambda: run(cowshed(root, "overlayfs", "umount", "-q", "alone")))
    command = ["runc", "run", "--bundle", str(bundle), f"cowshed-starting-{os.getpid()}"]
    return lambda: run(command).seconds


def _podman(
    root: Path, archive: Path, containers: int, ending: list[Callable[[], object]]
) -> Start:
    own = [PODMAN, "--root", f"{root}/storage", "--runroot", f"{root}/run"]
    own += ["--storage-driver", "overlay", "--runtime", "runc"]
    # Without any cgroups it takes crun alone; limits of its own need privilege that we may lack.
    how = ["--network", "host", "--cgroups=no-conmon"]
    how += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]

    def end() -> None:
        # Its overlay is mounted on itself.
        with suppress(OSError):
            subprocess.run(["umount", f"{root}/storage/overlay"], stderr=subprocess.DEVNULL)

    ending.append(end)
    run([*own, "import", "-q", str(archive), IMAGE])
    for _ in range(containers):
        run([*own, "create", *how, IMAGE, "/bin/true"])
    command = [*own, "run", "--rm", *how, IMAGE, "/bin/true"]
    return lambda: run(command).seconds


def _print(runs: dict[str, list[float]]) -> None:
    alone = runs[ALONE]
    print(f"{'':26}{'median':>12}{'beyond runc':>14}{'fastest':>12}")
    for name, seconds in runs.items():
        beyond = "" if name == ALONE else duration(
            median([one - other for one, other in zip(seconds, alone, strict=True)])
        )  # fmt: skip
        print(f"{name:26}{duration(median(seconds)):>12}{beyond:>14}{duration(min(seconds)):>12}")


if __name__ == "__main__":
    sys.exit(main())
