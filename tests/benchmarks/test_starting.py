"""The measurement of a container's start at work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cowshed_benchmarks import starting


@pytest.fixture(autouse=True)
def _possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")  # it takes it away
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed; .ci/run installs it")


def test_everybody_starts_in_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--drivers", "overlayfs", "--no-podman", "--work", str(tmp_path), "--containers", "2"]
    assert starting.main([*more, "--rounds", "2", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert list(runs) == ["overlayfs", "overlayfs, in Python", starting.ALONE]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in runs.values())
    assert list(tmp_path.iterdir()) == []
    assert starting.main([*more, "--rounds", "1"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert "beyond runc" in heading and [row.split("  ")[0] for row in rows] == list(runs)


def test_a_driver_that_cant_run_here_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--drivers", "nosuch", "--no-podman", "--work", str(tmp_path), "--rounds", "1"]
    assert starting.main(more) == 0
    said = capsys.readouterr()
    assert "nosuch is left out" in said.err and starting.ALONE in said.out
