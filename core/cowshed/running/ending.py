"""Ending: a launcher is killed together with what it has forked.

bubblewrap forks, and its child mounts what the container needs before it runs anything. Killed
alone, the parent may leave one that hasn't asked yet to be killed with it, and goes on to make
mount points in a container that we are clearing up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from .registry import stat_fields

#: Seconds to wait for a process to stop or to end, which it does as soon as it is scheduled.
_PATIENCE, _PAUSE = 5.0, 0.001


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill ``process`` and its children; return once those have ended."""
    children: list[int] = []
    with suppress(ProcessLookupError):
        # Stopped, it forks no more, and takes note of no child's end, whose number would be free.
        os.kill(process.pid, signal.SIGSTOP)
        _wait(lambda: _status(process.pid)[0] in ("T", "t", "Z", "X"))
        children = _children(process.pid)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.kill()
    _wait(lambda: all(_status(child)[0] in ("Z", "X") for child in children))


def _children(pid: int) -> list[int]:
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [one for one in found if _status(one)[1] == pid]


def _status(pid: int) -> tuple[str, int]:
    """Return a process's state and its parent; that of one that isn't is as of one that died."""
    try:
        state, parent, *_ = stat_fields(pid)
    except OSError:
        return "X", 0
    return state.decode(), int(parent)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
