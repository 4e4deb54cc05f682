"""Locks between processes and threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cowshed.errors import BusyError
from cowshed.locking import LockFile


def test_one_key_is_held_once_and_others_are_free(tmp_path: Path) -> None:
    locks = LockFile(tmp_path / "locks")
    with locks.acquire("a"):
        assert locks.attempt("a") is None
        other = locks.attempt("b")
        assert other is not None
        other.release()
    again = locks.attempt("a")
    assert again is not None
    again.release()
    again.release()


def test_shared_holders_exclude_an_exclusive_one(tmp_path: Path) -> None:
    locks = LockFile(tmp_path / "locks")
    with locks.acquire("a", shared=True), locks.acquire("a", shared=True):
        assert locks.attempt("a") is None


def test_waiting_in_vain_names_what_was_wanted(tmp_path: Path) -> None:
    locks = LockFile(tmp_path / "locks")
    with locks.acquire("a"), pytest.raises(BusyError, match="container calm_hopper is in use"):
        locks.acquire("a", timeout=0.01, what="container calm_hopper")


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    script = (
        "import sys, time; from pathlib import Path; from cowshed.locking import LockFile\n"
        "lock = LockFile(Path(sys.argv[1])).acquire('a'); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, os.fspath(path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "held\n"
        locks = LockFile(path)
        assert locks.attempt("a") is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        with locks.acquire("a", timeout=5):
            pass
