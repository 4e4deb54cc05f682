"""Signals that come before there is a container to forward them to."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from cowshed import Container, Shed
from cowshed.mounting import Mounts
from cowshed.running.options import Options
from cowshed.running.starter import Starter
from cowshed.running.supervising import Interrupted, Signals, Streams

from .helpers import letters


def _interrupted(shed: Shed, box: Container, runtime: str | None = None) -> int:
    options = Options(command=("sleep", "1000"), runtime=runtime)
    with Signals() as signals, pytest.raises(Interrupted) as caught:
        shed.running.starter.run(box, options, Streams(), signals)
    return caught.value.number


def test_a_second_one_doesnt_cut_the_clearing_up_short(
    shed: Shed, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = Mounts._leave  # pyright: ignore[reportPrivateUsage]

    def choose(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def interrupt(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        leave(*arguments, **options)

    monkeypatch.setattr(Starter, "_choose", choose)
    monkeypatch.setattr(Mounts, "_leave", interrupt)
    assert _interrupted(shed, box) == signal.SIGTERM
    assert shed.mounts() == []
    assert letters(box) == []


def test_one_that_comes_while_the_runtime_is_started_ends_it(
    shed: Shed, box: Container, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, command: Any, **details: Any) -> None:
            super().__init__(command, **details)
            if details.get("start_new_session"):
                started.append(self.pid)
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    assert _interrupted(shed, box, runtime) == signal.SIGTERM
    [pid] = started
    assert not os.path.exists(f"/proc/{pid}")
    assert not shed.running.running(box.id)
    assert shed.mounts() == []
    # Killed while it makes a mount point, bubblewrap can leave its directory touched, and no more.
    assert letters(box) in ([], ["C /etc"])
