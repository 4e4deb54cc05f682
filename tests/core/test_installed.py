"""What is remembered of the installed plugins, and for how many ways to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Says whether the installed distributions had to be searched.
LOOK = (
    "import sys\n"
    "from cowshed.config import load_config\n"
    "from cowshed.plugin_manager import Plugins\n"
    "plugins = Plugins()\n"
    "plugins.load(load_config())\n"
    "assert 'chunk-dedup' in plugins.drivers\n"
    "print('importlib.metadata' in sys.modules)\n"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/cowshed"


def searches(script: Path) -> bool:
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=script.parent
    )
    return ran.stdout == "True\n"


def scripts(tmp_path: Path, count: int) -> list[Path]:
    """The same script in several directories, each the first entry of its ``sys.path``."""
    made: list[Path] = []
    for number in range(count):
        script = tmp_path / f"directory-{number}/look.py"
        script.parent.mkdir()
        script.write_text(LOOK)
        made.append(script)
    return made


def test_two_scripts_in_turn_search_once_each(tmp_path: Path, cache: Path) -> None:
    """As ``cowshed`` and ``python -m cowshed`` do."""
    one, two = scripts(tmp_path, 2)
    assert [searches(script) for script in (one, two, one, two, one)] == [
        True, True, False, False, False
    ]  # fmt: skip


def test_what_is_installed_where_the_script_lies_is_found(tmp_path: Path, cache: Path) -> None:
    (script,) = scripts(tmp_path, 1)
    assert searches(script)
    assert not searches(script)
    (script.parent / "other-1.0.dist-info").mkdir()
    assert searches(script)


def test_only_the_newest_are_kept(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    for number in range(60):
        old = cache / f"plugins-{number:08x}.json"
        old.write_text("{}")
        os.utime(old, ns=(number, number))
    other = cache / "something else"
    other.write_text("kept")
    (script,) = scripts(tmp_path, 1)
    assert searches(script)
    assert not searches(script)
    left = {file.name for file in cache.iterdir()}
    assert len(left) == 33
    assert "something else" in left
    assert "plugins-0000003b.json" in left
    assert "plugins-00000000.json" not in left
