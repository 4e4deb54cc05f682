"""Serving: the one process of a shed that answers for all its FUSE mounts.

It listens at ROOT/lowers/NAME.socket. Who has mounted hands it the open ``/dev/fuse`` together with
what to show there. It ends when the last of them was unmounted and nobody is about to bring another
(``lowers``). It is a process of its own so that mounts survive who made them, and one for all so
that thousands of them cost no more memory than one.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import CowshedError
from .format import Format
from .showing import Shown

if TYPE_CHECKING:
    from ..shed import Shed

#: Held by whoever is about to bring a mount, and by a server that is about to end.
STARTING = "fuse-server-starting"
#: Seconds without a mount.
PATIENCE = 2.0
_LONGEST = 1 << 16
#: What is run. It opens a shed, as nothing here may.
_MAIN = "cowshed.cli.serving"


def start(config: dict[str, Any], name: str, directory: str) -> None:
    """Start a server for the shed of ``config`` that listens at ``directory/NAME.socket``, and
    return once it does."""
    import subprocess

    path = os.pathsep.join(one for one in sys.path if one)
    read, write = os.pipe()
    try:
        log = os.open(
            os.path.join(directory, f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", _MAIN],
                stdin=subprocess.PIPE,
                stdout=write,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={
                    **os.environ,
                    "MALLOC_ARENA_MAX": "1",
                    "MALLOC_MMAP_THRESHOLD_": "262144",
                    "MALLOC_TRIM_THRESHOLD_": "262144",
                    "PYTHONPATH": path,
                },
            )
        finally:
            os.close(log)
        os.close(write)
        write = -1
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(json.dumps({"config": config, "name": name, "at": directory}).encode())
        if os.read(read, 1) != b"+":
            process.wait()
            with open(os.path.join(directory, f"{name}.log"), encoding="utf-8") as file:
                said = file.read().strip().splitlines()
            raise OSError(5, f"the FUSE server didn't start: {said[-1] if said else 'no reason'}")
        process.returncode = 0  # it is nobody's child: no warning that it still runs
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


class Server:
    """Answers for any number of mounts, one request after the other."""

    def __init__(self, shed: Shed, listener: socket.socket, path: str) -> None:
        self._shed = shed
        self._listener = listener
        self._path = path
        self._shown: dict[int, Shown] = {}
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until nobody needs it."""
        while True:
            ready = self._poll.poll(-1 if self._shown else PATIENCE)
            for descriptor, _ in ready:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif not self._shown[descriptor].serve():
                    self._drop(descriptor)
            if not ready and not self._shown and self._end():
                return

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(10)
            try:
                data, descriptors, _, _ = socket.recv_fds(connection, _LONGEST, 1)
                if not descriptors:
                    return
                wanted = json.loads(data)
                answer = self._show(wanted, descriptors[0])
            except (OSError, ValueError, KeyError, CowshedError) as error:
                answer = str(error) or type(error).__name__
            with suppress(OSError):  # it has gone; what it mounted is served if it stays
                connection.sendall(answer.encode())

    def _show(self, wanted: dict[str, Any], device: int) -> str:
        try:
            driver = self._shed.driver(wanted["driver"])
            driver.economise()
            shown = Shown(device, driver, wanted["layer"], Format.read(wanted["format"]))
        except BaseException:
            os.close(device)
            raise
        self._shown[device] = shown
        self._poll.register(device, select.EPOLLIN)
        return "+"

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._shown.pop(descriptor).close()
        gc.collect()

    def _end(self) -> bool:
        lock = self._shed.locks.attempt(STARTING)
        if lock is None:
            return False
        with lock:
            # Somebody may have connected before we had the lock.
            if self._poll.poll(0):
                return False
            os.unlink(self._path)
            log = f"{self._path.removesuffix('.socket')}.log"
            with suppress(OSError):
                if not os.stat(log).st_size:
                    os.unlink(log)
            return True
