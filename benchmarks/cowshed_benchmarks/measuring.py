"""How things are measured: whole processes with their peak memory, medians, disks by blocks."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs


@attrs.frozen
class Ran:
    """What one process took."""

    seconds: float
    #: Processor seconds, its own and the system's for it.
    cpu: float
    #: Largest resident set, bytes.
    peak: int


def run(
    command: Sequence[str], *, sync: Path | None = None, environment: dict[str, str] | None = None
) -> Ran:
    """Run a process to its end, then wait until the file system of ``sync`` is on the disk.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {output.decode(errors='replace')}")
    if sync is not None:
        subprocess.run(["sync", "-f", str(sync)], check=True)
    seconds = time.perf_counter() - began
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def cowshed(root: Path, driver: str, *arguments: str) -> list[str]:
    """Return the command line of Cowshed with a shed and a driver."""
    program = Path(sys.executable).with_name("cowshed")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "cowshed"]
    return [*start, "--root", str(root), "--driver", driver, *arguments]


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def median(values: Sequence[float]) -> float:
    """Return the median; of nothing it is not a number."""
    return statistics.median(values) if values else float("nan")


def on_disk(root: Path) -> int:
    """Return the bytes allocated below ``root``, each inode once, as ``du`` counts."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for above, _, files in os.walk(root):
        for path in (above, *(os.path.join(above, name) for name in files)):
            status = os.lstat(path)
            key = status.st_dev, status.st_ino
            if key not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total


def size(count: float) -> str:
    """Write bytes as people do."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    """Write seconds as people do."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"
