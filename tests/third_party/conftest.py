"""A fresh virtual environment that has Cowshed and what it needs, but may be installed into."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

# The distributions' own tests are run where they are installed.
collect_ignore_glob = ["cowshed-*"]

needs_pip = pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0,
    reason="pip isn't there to install a distribution with",
)


class Environment:
    """What is installed goes into ``place``; Cowshed itself comes from where the tests have it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        venv.create(place / "venv", symlinks=True)
        self.bin = place / "venv/bin"
        self.work = place / "work"
        self.work.mkdir()
        script = self.bin / "cowshed"
        script.write_text(f'#!/bin/sh\nexec "{self.bin}/python" -m cowshed "$@"\n')
        script.chmod(0o755)
        outer = [path for path in sys.path if path and Path(path).is_dir()]
        self.variables = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("COWSHED_", "PYTEST_", "PIP_"))
            },
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(outer),
            "HOME": str(place),
            "TMPDIR": str(place),
            "XDG_CACHE_HOME": str(place / "cache"),
            "XDG_CONFIG_HOME": str(place / "config"),
            "COWSHED_ROOT": str(place / "shed"),
            "COWSHED_DURABILITY": "none",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PIP_NO_CACHE_DIR": "1",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.variables,
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def pip(self, *arguments: str) -> None:
        ran = self.run("python", "-m", "pip", "--quiet", *arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def install(self, distribution: str) -> None:
        """Build and install one of the distributions beside this file."""
        # Building writes beside the sources, which may not be ours to write to.
        copy = self.place / distribution
        shutil.copytree(
            HERE / distribution,
            copy,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
        self.pip("install", "--no-deps", "--no-build-isolation", str(copy))

    def cowshed(self, *arguments: str) -> str:
        ran = self.run("cowshed", *arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cowshed(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """Run a command that must fail; return the one line that it says why."""
        ran = self.run("cowshed", *arguments)
        assert ran.returncode in (1, 2), ran.stdout + ran.stderr
        assert "Traceback" not in ran.stderr
        return ran.stderr.splitlines()[-1]
