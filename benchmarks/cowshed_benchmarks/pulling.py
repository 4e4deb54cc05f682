"""Pull a real image from a registry on loopback, beside podman, in the same run.

    python -m cowshed_benchmarks.pulling oci:DIRECTORY --versions v1 v2

Debian's ``docker-registry`` serves the versions of the image. Each round takes all contenders in
turn, each into an empty store: the first version cold, the second, which shares layers with it, and
the second once more, when there is nothing to fetch. Pulls that bring something end with a sync of
the file system. The last columns divide by podman's time of the same round. ``real_image`` makes an
image worth it. Needs root, and docker-registry; podman is left out where it isn't installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from .measuring import Ran, cowshed, duration, median, run, size

DRIVERS = ("hardlink-farm", "chunk-dedup", "overlayfs")
PODMAN = "podman"
STEPS = ("cold", "second version", "nothing new")
_REPOSITORY = "real"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; with ``--json``, every single run."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.pulling", description=__doc__)
    parser.add_argument("image", help="oci:DIRECTORY, without a tag")
    parser.add_argument("--versions", nargs=2, default=("v1", "v2"), metavar="TAG")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drivers", nargs="+", default=DRIVERS)
    parser.add_argument("--no-podman", action="store_true", help="only our own drivers")
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    contenders = list(options.drivers)
    if not options.no_podman and shutil.which(PODMAN):
        contenders.append(PODMAN)
    runs: dict[str, list[dict[str, Ran]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory(prefix="cow-", dir=options.work) as work:
        place = Path(work)
        with served(place / "registry") as host:
            references = [f"{host}/{_REPOSITORY}:{tag}" for tag in options.versions]
            for tag, reference in zip(options.versions, references, strict=True):
                source = f"{options.image}:{tag}"
                run(cowshed(place / "copying", DRIVERS[0], "copy", "-q", source, reference))
            for number in range(options.rounds):
                # Nobody is always first, when the disk is still at rest.
                for name in (
                    contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
                ):
                    runs[name].append(_round(place / name, name, references))
    if options.json:
        json.dump(
            {name: [_fields(one) for one in rounds] for name, rounds in runs.items()}, sys.stdout
        )
    else:
        _print(runs)
    return 0


@contextlib.contextmanager
def served(directory: Path) -> Generator[str]:
    """Run a registry on loopback; give its host and port."""
    directory.mkdir(parents=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "store")}},
        "http": {"addr": host},
    }
    (directory / "config.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(directory / "config.yml")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(_address(host)):
                break
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait()


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name, int(port)


def _round(root: Path, name: str, references: Sequence[str]) -> dict[str, Ran]:
    """Pull into an empty store; remove it afterwards."""
    root.mkdir()
    # As it is installed: with its modules compiled, whatever this process was told.
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
    }
    options = (
        "--root",
        f"{root}/storage",
        "--runroot",
        f"{root}/run",
        "--storage-driver",
        "overlay",
    )

    def pulled(reference: str, *, sync: bool = True) -> Ran:
        if name == PODMAN:
            command = [PODMAN, *options, "pull", "-q", "--tls-verify=false", reference]
        else:
            command = cowshed(root, name, "pull", "-q", reference)
        return run(command, sync=root if sync else None, environment=environment)

    try:
        first, second = references
        subprocess.run(["sync", "-f", str(root)], check=True)
        return dict(
            zip(STEPS, (pulled(first), pulled(second), pulled(second, sync=False)), strict=True)
        )
    finally:
        if name == PODMAN:
            # Its overlay is mounted on itself.
            with contextlib.suppress(OSError):
                subprocess.run(["umount", f"{root}/storage/overlay"], stderr=subprocess.DEVNULL)
        shutil.rmtree(root)


def _fields(one: dict[str, Ran]) -> dict[str, dict[str, float]]:
    return {
        step: {"seconds": ran.seconds, "cpu": ran.cpu, "peak": ran.peak}
        for step, ran in one.items()
    }


def _print(runs: dict[str, list[dict[str, Ran]]]) -> None:
    print(
        f"{'':15}"
        + "".join(f"{step:>17}" for step in STEPS)
        + f"{'cpu':>9}{'peak':>9}   beside podman"
    )
    for name, rounds in runs.items():
        cells = [duration(median([one[step].seconds for one in rounds])) for step in STEPS]
        cpu = duration(median([one[STEPS[0]].cpu for one in rounds]))
        peak = size(max(ran.peak for one in rounds for ran in one.values()))
        beside = ""
        if name != PODMAN and runs.get(PODMAN):
            ratios = [
                median(
                    [
                        ours[step].seconds / theirs[step].seconds
                        for ours, theirs in zip(rounds, runs[PODMAN], strict=True)
                    ]
                )
                for step in STEPS
            ]
            beside = "  ".join(f"{ratio:5.2f}" for ratio in ratios)
        print(
            f"{name:15}"
            + "".join(f"{cell:>17}" for cell in cells)
            + f"{cpu:>9}{peak:>9}   {beside}"
        )


if __name__ == "__main__":
    sys.exit(main())
