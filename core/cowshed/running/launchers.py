"""Launchers: what is common to the programs that tell us of the process which they start."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from typing import IO

from .ending import kill_all

FAILED = 125
#: See memfd_create(2); Python has no name for it.
_MFD_EXEC = 0x10
#: Seconds until a process that was started is in its container at the latest, and a pause.
_ENTERING, _PAUSE = 10.0, 0.001


def pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def descriptor_of(data: bytes) -> int:
    """Return a descriptor that ``data`` can be read from."""
    descriptor = os.memfd_create("cowshed", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def guarded(program: str) -> str:
    """Return a path to execute ``program`` by: a copy's, if who is in the container could write the
    original, as until the container's own program is executed that is its /proc/self/exe
    (CVE-2019-5736)."""
    user = os.geteuid()
    if user != 0 and os.stat(program).st_uid != user and not os.access(program, os.W_OK):
        return program
    # Once for all runs of this process: 1 ms for 1 MB while the machine is busy.
    return f"/proc/{os.getpid()}/fd/{_sealed_copy(program)}"


@cache
def _sealed_copy(program: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("cowshed", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all can be executed
        copy = os.memfd_create("cowshed", flags)
    os.fchmod(copy, 0o555)
    with open(program, "rb") as file:
        done, size = 0, os.fstat(file.fileno()).st_size
        while done < size:
            done += os.sendfile(copy, file.fileno(), done, size - done)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


class Status:
    """What a launcher says of its process."""

    def __init__(self, note: Callable[[int], None]) -> None:
        self._note = note
        self.read_end, self.write_end = pipe()
        self.pid: int | None = None
        self.error = ""
        self.code = FAILED
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Listen no longer."""
        if self._file is not None:
            self._file.close()

    def follow(self, key: str) -> None:
        """Read until the process runs, or couldn't be started."""
        # bubblewrap has more to say when it ends, and would take offence if nobody listened.
        self._file = os.fdopen(self.read_end, "rb")
        for line in self._file:
            said = json.loads(line)
            if key in said:
                self.pid = said[key]
                if key != "pid":
                    return
            if "error" in said:
                self.error, self.code = said["error"], said["status"]
        # Our own launcher closes it by executing the program. Before, the root may be the host's.
        if self.pid is not None and not self.error:
            self._note(self.pid)

    def follow_into(self, root: str) -> None:
        """Do it for bubblewrap, which tells of its child before that has entered ``root``."""
        self.follow("child-pid")
        if self.pid is not None and entered(self.pid, root):
            self._note(self.pid)

    def forward(self, process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the process, or end a launcher that hasn't one yet."""
        if self.pid is not None:
            os.kill(self.pid, number)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            kill_all(process)


def entered(pid: int, root: str) -> bool:
    """Wait until a process has ``root`` as its own; False: it ended before, or never did."""
    wanted = os.stat(root)
    deadline = time.monotonic() + _ENTERING
    while time.monotonic() < deadline:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/root"), wanted):
                return True
        except PermissionError:
            pass  # it isn't to be looked into just now
        except OSError:
            return False
        time.sleep(_PAUSE)
    return False
