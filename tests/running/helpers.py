"""The command line in a process of its own, as signals and terminals need it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cowshed import Container

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def heed_signals() -> None:
    """Ignore none, as a person's shell starts a program. Who runs these tests in the background or
    under nohup ignores some, and so would what they start: it would never end."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class CommandLine:
    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command = command
        self.environment = environment

    def __call__(self, *arguments: str, **details: Any) -> subprocess.CompletedProcess[bytes]:
        details.setdefault("stdin", subprocess.DEVNULL)
        if "input" in details:
            del details["stdin"]
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=120,
            preexec_fn=heed_signals,
            **details,
        )

    def start(self, *arguments: str, **details: Any) -> subprocess.Popen[bytes]:
        details.setdefault("stdin", subprocess.DEVNULL)
        details.setdefault("preexec_fn", heed_signals)
        return subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **details,
        )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it holds; a loaded machine may take a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def until_it_waits(pid: int) -> None:
    """Wait until a ``cowshed run`` does nothing but wait for its container: what a container says
    may be read before its runner knows of it, and a signal then ends the start instead."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        where = Path(f"/proc/{pid}/wchan").read_text()
        if where == "do_wait":
            return
        if where == "0":  # a kernel that doesn't tell, or one that is just running
            time.sleep(0.05)
        time.sleep(0.01)


def sh(container: Container, script: str, **how: Any) -> str:
    """Run a script, which must succeed, and return what it printed."""
    ended = container.run(["sh", "-c", script], capture=True, **how)
    assert ended.stdout is not None and ended.stderr is not None
    assert ended.status == 0, ended.stderr.decode()
    return ended.stdout.decode()


@contextmanager
def started(container: Container, script: str, **how: Any) -> Iterator[threading.Thread]:
    """Run a script, which ends once there is a /tmp/stop, beside what is in the block."""
    thread = threading.Thread(
        target=lambda: container.run(["sh", "-c", script], timeout=120, **how), daemon=True
    )
    thread.start()
    try:
        yield thread
    finally:
        container.exec(["touch", "/tmp/stop"])
        thread.join(60)
    assert not thread.is_alive()


def letters(container: Container) -> list[str]:
    """Return its changes as ``diff`` prints them."""
    return [f"{change.kind.value} /{change.path}" for change in container.diff()]
