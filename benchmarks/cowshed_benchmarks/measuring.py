"""Measuring: what a window of time cost, and what a program did in its own.

Processor time and bytes written are the kernel's accounts of this process and of every child it has
waited for (getrusage(2), ``/proc/PID/io``), so that a program which forks is counted whole. Bytes
count when pages are dirtied, whether or not they have reached the disk; what a file system writes
for itself, its journal say, isn't among them. A daemon is asked for its own accounts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs

#: What a command is made of.
Word: TypeAlias = "str | os.PathLike[str]"
_TICKS = os.sysconf("SC_CLK_TCK")


class ProgramError(Exception):
    """A program failed; the message is its name and the last line that it said."""


@attrs.frozen
class Ran:
    """What one process took."""

    seconds: float
    #: Processor seconds, its own and the system's for it.
    cpu: float
    #: Largest resident set, bytes.
    peak: int
    #: What it said on standard output.
    output: bytes = b""


#: Largest resident set of each program that ran in the open window.
_peaks: list[int] = []


def run(
    command: Sequence[Word],
    *,
    sync: Path | None = None,
    environment: Mapping[str, str] | None = None,
    out: Path | None = None,
) -> Ran:
    """Run a process to its end, then wait until the file system of ``sync`` is on the disk.

    Its standard output goes to the file ``out``, or is returned.

    Raises:
        ProgramError: it failed.
    """
    # Memory files rather than pipes: nobody need read while it runs, nor wait for daemons.
    with (
        open(os.memfd_create("said"), "w+b") as said,
        open(os.memfd_create("output"), "w+b") if out is None else out.open("w+b") as output,
    ):
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=said, env=environment
            )
        except OSError as error:
            raise ProgramError(f"{command[0]}: {error.strerror}") from None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if sync is not None:
            sync_file_system(sync)
        seconds = time.perf_counter() - began
        peak = usage.ru_maxrss * 1024
        _peaks.append(peak)
        output.seek(0)
        text = output.read() if out is None else b""
        if process.returncode:
            said.seek(0)
            raise ProgramError(failure(command, process.returncode, said.read() or text))
    return Ran(seconds, usage.ru_utime + usage.ru_stime, peak, text)


def failure(command: Sequence[Word], status: int, said: bytes) -> str:
    """Say in one line how a program failed: what it said last, or else its exit status."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    name = os.path.basename(str(command[0]))
    return f"{name}: {' '.join(lines[-1].split())[:500] if lines else f'exit status {status}'}"


def cowshed(root: Path, driver: str, *arguments: str) -> list[str]:
    """Return the command line of Cowshed with a shed and a driver."""
    program = Path(sys.executable).with_name("cowshed")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "cowshed"]
    return [*start, "--root", str(root), "--driver", driver, *arguments]


def sync_file_system(path: Path) -> None:
    """Wait until everything on the file system of ``path`` is on the disk (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)


_libc = ctypes.CDLL(None, use_errno=True)


# -- a window --------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Measures:
    """What happened in a window."""

    wall: float
    cpu: float
    #: Of the programs that ran in it, or of this process where none did; of daemons if larger.
    peak_memory: int | None
    written: int | None


@attrs.define
class Window:
    """What is measured happens between ``begin`` and ``end``.

    ``flush`` names a file system that must be on the disk at the end, for whoever didn't see to it
    itself; what was dirty before is written before. ``marked`` leaves a mark at both ends for who
    traces this process: an fdatasync of no file.
    """

    flush: Path | None = None
    marked: bool = False
    daemons: tuple[int, ...] = ()
    _wall: float = 0.0
    _cpu: float = 0.0
    _written: int | None = None

    def begin(self) -> None:
        """Open the window."""
        if self.flush is not None:
            sync_file_system(self.flush)
        _peaks.clear()
        _forget_peak("self")
        for pid in self.daemons:
            _forget_peak(pid)
        self._mark()
        self._written = _written(self.daemons)
        self._cpu = _cpu(self.daemons)
        self._wall = time.perf_counter()

    def end(self) -> Measures:
        """Close the window and return what happened in it."""
        self._mark()
        if self.flush is not None:
            sync_file_system(self.flush)
        wall = time.perf_counter() - self._wall
        cpu = _cpu(self.daemons) - self._cpu
        written = _written(self.daemons)
        own: list[int | None] = [*_peaks] or [_peak("self")]
        own += [_peak(pid) for pid in self.daemons]
        known = [peak for peak in own if peak is not None]
        return Measures(
            wall=wall,
            cpu=cpu,
            peak_memory=max(known, default=None),
            written=None if written is None or self._written is None else written - self._written,
        )

    def _mark(self) -> None:
        if self.marked:
            with contextlib.suppress(OSError):
                os.fdatasync(-1)


def _cpu(daemons: Sequence[int]) -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    for pid in daemons:
        # proc_pid_stat(5): fields 14 to 17, counted after the command's closing bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / _TICKS
    return total


def _written(daemons: Sequence[int]) -> int | None:
    total = 0
    for pid in ("self", *map(str, daemons)):
        found = proc_field(f"/proc/{pid}/io", "write_bytes")
        if found is None:
            return None
        total += found
    return total


def _peak(pid: int | str) -> int | None:
    found = proc_field(f"/proc/{pid}/status", "VmHWM")
    return None if found is None else found * 1024


def _forget_peak(pid: int | str) -> None:
    """Let the largest resident set be the present one (proc_pid_clear_refs(5), 5)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def proc_field(path: str, name: str) -> int | None:
    """Return a number out of lines of names and numbers; None: the kernel doesn't say."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None  # a kernel without this account
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return None


# -- small things ----------------------------------------------------------------------------------


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def median(values: Sequence[float]) -> float:
    """Return the median; of nothing it is not a number."""
    return statistics.median(values) if values else float("nan")


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
