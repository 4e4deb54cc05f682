"""Registry: which containers ran or run, and what a run has left to clear away.

    ROOT/running/CONTAINER/state.json    this record
    ROOT/running/CONTAINER/pid           number of the container's first process, once it exists
    ROOT/running/CONTAINER/config.json … the bundle (see ``spec``)

Whoever runs a container holds the lock ``running:ID``, which a killed process drops. If that was
``cowshed run`` itself and the runtime outlived it, the process in ``pid`` tells that the container
still runs: it was started before the file was written.

Light: ``cowshed ps`` reads this, one small file for each container that ever ran.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..boot import boot_id, since_boot_ns
from ..home import made

STATE, PID = "state.json", "pid"

#: Seconds that a process may seem younger than the file that names it, as the kernel counts in
#: ticks and a file's time is that of the last one. Who was given the number later is younger.
_YOUNGER = 1.0
#: Seconds in which a runtime whose ``cowshed run`` was killed has started its process, or ended.
_STARTING = 5.0


class State(NamedTuple):
    """One container's last run."""

    started_ns: int
    runtime: str = ""
    #: The process that runs it: ours, not the container's. For messages.
    supervisor: int = 0
    #: Mount points that were made for the run; see ``stubs``.
    stubs: tuple[str, ...] = ()
    finished_ns: int = 0
    #: Exit status as Docker's; None while it runs.
    status: int | None = None
    #: Whether the record is of a bundle that was handed to somebody else.
    bundle: str = ""
    #: ``started_ns`` as time since the machine was booted, and that boot: the clock may be set.
    booted_ns: int = 0
    boot: str = ""


def begun(*, runtime: str = "", supervisor: int = 0, bundle: str = "") -> State:
    """Return the record of a run that begins now."""
    return State(
        time.time_ns(),
        runtime=runtime,
        supervisor=supervisor,
        bundle=bundle,
        booted_ns=since_boot_ns(),
        boot=boot_id(),
    )


class Registry:
    """The records below ``root``, which is made when it is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def home(self, container: str) -> Path:
        """Return the directory of one container's run."""
        return self.root / container

    def any(self) -> bool:
        """Say whether anything ever ran, in one call."""
        return self.root.exists()

    def containers(self) -> list[str]:
        """Return the containers that have a record."""
        try:
            return sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []

    def read(self, container: str) -> State | None:
        """Return a record; None: there is none, or it can't be read."""
        try:
            with open(self.root / container / STATE, "rb") as file:
                found: dict[str, Any] = json.loads(file.read())
            found["stubs"] = tuple(found["stubs"])
            return State(**found)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, container: str, state: State) -> None:
        """Write a record, in place of the one there was."""
        home = made(self.root, container)
        aside = home / f"{STATE}.new"  # who runs it is alone
        with open(aside, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(json.dumps(state._asdict()))
        os.rename(aside, home / STATE)

    def forget(self, container: str) -> None:
        """Remove a record and all that belongs to it."""
        from ..native.removal import remove_directory  # with ctypes

        with suppress(FileNotFoundError):
            remove_directory(os.fspath(self.root), container)

    def may_start(self, container: str) -> bool:
        """Say whether a process may appear any moment: its ``cowshed run`` has called the runtime,
        and was killed before that said more. It still needs the mount."""
        state = self.read(container)
        if state is None or state.status is not None or state.bundle or state.boot != boot_id():
            return False
        if state.supervisor == os.getpid() or (self.home(container) / PID).exists():
            return False
        return since_boot_ns() - state.booted_ns < _STARTING * 1e9

    def process(self, container: str) -> int | None:
        """Return the number of the container's first process, if it lives."""
        path = self.home(container) / PID
        try:
            pid, written = int(path.read_bytes()), path.stat().st_mtime_ns
            started = _start_of(pid)
        except (OSError, ValueError, IndexError):
            return None
        state = self.read(container)
        if started is None or state is None or state.boot != boot_id():
            return None
        # What the clock said when the run began says when that was since the boot.
        written -= state.started_ns - state.booted_ns
        return pid if started - written / 1e9 < _YOUNGER else None


def stat_fields(pid: int) -> list[bytes]:
    """Return what the kernel says of a process after its name, which may have anything in it: its
    state, its parent and so on (proc(5), /proc/PID/stat).

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _start_of(pid: int) -> float | None:
    """Return when a process was started, in seconds since the boot; None: it has ended."""
    fields = stat_fields(pid)
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
