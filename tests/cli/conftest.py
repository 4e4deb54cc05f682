"""The command line, called as from a shell: arguments in; status, output and errors out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cowshed.cli.main import main


class Ran(NamedTuple):
    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs ``cowshed`` in this process, or for what only a process shows, in one of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def try_(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        out, err = io.BytesIO(), io.BytesIO()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8", write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8", write_through=True))
            status = main([str(argument) for argument in arguments])
            sys.stdout.flush()
            return Ran(status, out.getvalue(), err.getvalue().decode())

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        ran = self.try_(*arguments, stdin=stdin)
        assert ran.status == 0, ran.err
        return ran

    def process(self, *arguments: str | Path, **details: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "cowshed", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False, **details)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("COWSHED_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COWSHED_ROOT", str(tmp_path / "shed"))
    monkeypatch.setenv("COWSHED_DRIVER", "naive-copy")
    monkeypatch.setenv("COWSHED_DURABILITY", "none")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def cowshed(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small root file system."""
    root = tmp_path / "files"
    (root / "etc").mkdir(parents=True)
    (root / "etc/motd").write_text("welcome\n")
    (root / "etc/issue").write_text("Debian\n")
    (root / "data/deep").mkdir(parents=True)
    (root / "data/one").write_bytes(b"1" * 1000)
    os.link(root / "data/one", root / "data/two")
    (root / "data/deep/leaf").write_text("leaf\n")
    (root / "etc/link").symlink_to("/data/one")
    (root / "out").symlink_to("/../../../../../../tmp")
    return root


@pytest.fixture
def image(cowshed: CommandLine, files: Path) -> str:
    cowshed("import", f"dir:{files}", "base:1", "-q")
    return "base:1"


@pytest.fixture
def container(cowshed: CommandLine, image: str) -> str:
    cowshed("create", image, "--name", "box")
    return "box"
