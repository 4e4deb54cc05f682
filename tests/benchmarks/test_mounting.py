"""The measurement of mounts at work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cowshed.mounting import kernel
from cowshed_benchmarks import mounting


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a small image, with a small wheel."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    pytest.importorskip("pip")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")  # it takes it away
    # Whoever else runs on this machine keeps his caches.
    monkeypatch.setattr(mounting, "_drop_caches", lambda: None)
    library, image = tmp_path / "library", tmp_path / "image"
    for path in (library, image):
        (path / "within").mkdir(parents=True)
        for number in range(5):
            (path / f"within/m{number}.py").write_text(f"N = {number}\n")
    monkeypatch.setattr(mounting.sysconfig, "get_path", lambda name: str(library))
    more = ["--image", f"dir:{image}", "--work", str(tmp_path / "work"), "--rounds", "2"]
    return [*more, "--containers", "2", "--contenders"]


def test_everybody_is_measured_in_every_round(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["plain overlayfs", "overlayfs", "naive-copy", "chunk-dedup"]
    assert mounting.main([*arguments, *names, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["seconds"]) == names
    for columns in said["seconds"].values():
        assert tuple(columns) == mounting.COLUMNS
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in columns.values())
    memory = {name: set(known) for name, known in said["memory"].items()}
    assert memory == {
        "overlayfs": {"each container"},
        "naive-copy": set(),
        "chunk-dedup": {"each container", "server"},
    }
    assert said["memory"]["chunk-dedup"]["server"] > 1_000_000
    assert [one.path for one in kernel.points() if str(tmp_path) in one.path] == []
    # What was imported is there for the next run.
    assert mounting.main([*arguments, "plain overlayfs", "overlayfs"]) == 0
    heading, plain, own, *_ = capsys.readouterr().out.splitlines()
    assert "walk, cold" in heading and "×" not in plain
    assert own.startswith("overlayfs ") and own.count("×") == len(mounting.COLUMNS)


def test_who_cant_be_measured_is_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cowshed_benchmarks.mounted.shutil.which", lambda name: None)
    assert mounting.main([*arguments, "fuse-overlayfs"]) == 0
    assert "fuse-overlayfs is left out: it isn't installed" in capsys.readouterr().err
