"""Launching: a worker process for each job, and an end to those that find none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .job import Job, Report, failed
from .measuring import failure
from .space import unmount_below

WORKER = (sys.executable, "-m", "cowshed_benchmarks.worker")


def launch(
    job: Job, before: Sequence[str], seconds: float, command: Sequence[str] = WORKER
) -> Report:
    """Run a job in a process of its own and return its report, whatever becomes of it.

    ``before`` are words to put before the command: a tracer. After ``seconds`` the process and all
    that it started are killed.
    """
    process = subprocess.Popen(
        [*before, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        errors="replace",
        env=_environment(),
    )
    try:
        out, err = process.communicate(job.to_json(), timeout=seconds)
    except BaseException as error:
        _kill(process)
        unmount_below(Path(job.place))
        if isinstance(error, subprocess.TimeoutExpired):
            reason = f"it hadn't ended after {seconds:.0f} s and was killed"
            return Report(outcome="failed", reason=reason, killed=True)
        raise
    if process.returncode:
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            return failed(f"its process was killed by {name}")
        return failed(failure(command, process.returncode, err.encode()))
    try:
        return Report.from_json(out)
    except (ValueError, TypeError):
        return failed(f"its process reported {out[:100]!r}")


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _environment() -> dict[str, str]:
    """Return an environment in which a worker finds the packages that this process found."""
    paths = [path for path in sys.path if path and os.path.isdir(path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
