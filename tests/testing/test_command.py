"""``python -m cowshed.testing``, ``--thorough``, and how the kit's failures read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cowshed.testing.kit import THOROUGH, Kit

STRANGERS = """
import os
from cowshed.driver import DriverSpec
from cowshed.hookspecs import hookimpl


def load():
    from cowshed.testing import MemoryDriver

    class Forgetful(MemoryDriver):
        def __init__(self, root, options):
            super().__init__(root)

        def fork(self, container, new):
            self.prepare(new, self._item(container).parent)

    return Forgetful


def probe(root):
    return None if "FITS" in os.environ else f"it needs something that {root.name[:11]} hasn't"


@hookimpl
def cowshed_register_drivers():
    return [
        DriverSpec(name="forgetful", summary="Forks forget.", load=load),
        DriverSpec(name="picky", summary="Needs something.", load=load, probe=probe),
        DriverSpec(name="broken", summary="Isn't there.", load=lambda: __import__("no_such")),
    ]
"""


@pytest.fixture
def kit(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "strangers.py").write_text(STRANGERS)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "COWSHED_PLUGINS": "strangers",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cowshed.testing", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=tmp_path,
        )

    return run


def test_a_registered_driver_is_tested_without_a_test_file(
    kit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").touch()
    ran = kit("naive-copy", "--root", str(there), "-k", "test_a_fork_is_equal")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "containers  1 passed" in ran.stdout
    assert [path.name for path in there.iterdir()] == ["mine"], "it leaves --root as it was"


def test_what_is_broken_is_named_by_the_promise_and_the_status_is_pytests(
    kit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    ran = kit("forgetful", "-k", "test_a_fork_is_equal or test_a_container_equals")
    assert ran.returncode == 1
    assert "broken promise (containers): a fork is equal in content and changes" in ran.stdout
    assert "broken promise: a fork equals its origin" in ran.stdout
    assert "'linked': the file is missing" in ran.stdout
    assert "containers  1 passed, 1 failed" in ran.stdout
    (place,) = tmp_path.glob("cowshed-kit-*")
    assert f"What failing tests left is in {place}" in ran.stderr


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ("naive", "no such driver: naive; did you mean 'naive-copy'?"),
        ("broken", "driver broken: can't be imported: No module named 'no_such'"),
        ("picky", "driver picky can't run in "),
    ],
)
def test_a_driver_that_can_t_be_tested_is_one_line_and_a_usage_error(
    driver: str,
    message: str,
    kit: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    ran = kit(driver)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = ran.stderr.splitlines()
    assert line.startswith(message)
    assert not list(tmp_path.glob("cowshed-kit-*")), "nothing is left"


def test_a_root_that_isn_t_there_is_said(
    kit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ran = kit("naive-copy", "--root", "/no/such/place")
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--root: " in ran.stderr and "/no/such/place" in ran.stderr


def test_thorough_is_a_variable_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, thorough in (("1", True), ("", False), ("0", False)):
        monkeypatch.setenv(THOROUGH, value)
        assert Kit().thorough is thorough
    monkeypatch.delenv(THOROUGH)
    assert Kit().thorough is False


PROBE = """
from cowshed.testing.kit import Kit

class TestMine(Kit):
    def test_it(self):
        assert self.thorough
"""


@pytest.mark.parametrize("options", [["-p", "cowshed.testing.plugin"], []])
@pytest.mark.parametrize("thorough", [True, False])
def test_an_author_s_own_tests_take_thorough_from_the_plugin(
    options: list[str], thorough: bool, tmp_path: Path
) -> None:
    (tmp_path / "test_mine.py").write_text(PROBE)
    if not options:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["cowshed.testing.plugin"]\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop(THOROUGH, None)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options),
            *(["--thorough"] if thorough else []),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert ran.returncode == (0 if thorough else 1), ran.stdout + ran.stderr
