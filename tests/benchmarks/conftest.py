"""Runs on disk, and the commands that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from cowshed.cli.failures import explain
from cowshed.cli.session import Session, add_global_options
from cowshed_benchmarks.results import Run

#: Calls a command; returns its exit status, what it printed and what it said on standard error.
Call = Callable[..., tuple[int, str, str]]
#: Writes a run to a file of that name and returns its path.
Store = Callable[[str, Run], str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Write runs into the test's directory."""

    def write(name: str, run: Run) -> str:
        path = tmp_path / name
        run.write(path)
        return str(path)

    return write


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call a command as ``cowshed bench`` would."""

    def run(command: click.Command, *arguments: str) -> tuple[int, str, str]:
        session = Session()
        capsys.readouterr()
        error, status = "", 0
        try:
            add_global_options(command).main(
                list(arguments), "cowshed bench", standalone_mode=False, obj=session
            )
        except Exception as failure:
            error, status = explain(failure)
        printed = capsys.readouterr()
        return status or session.exit_status, printed.out, printed.err + error

    return run
