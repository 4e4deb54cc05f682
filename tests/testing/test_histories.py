"""What a failing history shows: a short script that fails the same way when it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed.testing.kit import Kit, kit_at, where
from cowshed.testing.pair import Pair
from cowshed.testing.shortening import script

from . import faults


class Faulty(DriverConformance):
    """Its containers share the contents of their layer."""

    processes = False
    histories = 60

    def open_driver(self, root: Path) -> Driver:
        return faults.WritesThrough(root)


class Sound(DriverConformance):
    processes = False

    def open_driver(self, root: Path) -> Driver:
        return faults.MemoryDriver(root)


def script_of(error: BaseException) -> str:
    (note,) = [note for note in error.__notes__ if note.startswith("To see it again:")]
    return "\n".join(line.removeprefix("    ") for line in note.splitlines()[2:]) + "\n"


def test_a_failing_history_is_a_short_script_that_fails_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        Faulty().test_random_histories_agree_with_the_model()
    script = script_of(caught.value)
    steps = [line for line in script.splitlines() if line.startswith("pair.")]
    assert len(steps) <= 8, script
    assert "broken promise (histories)" in "\n".join(caught.value.__notes__)
    (tmp_path / "again.py").write_text(script)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "again.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert str(caught.value).splitlines()[0] in ran.stderr, ran.stderr


def test_a_kit_is_found_again_by_where_it_is() -> None:
    assert type(kit_at(where(Faulty()))).__name__ == "Faulty"
    assert isinstance(kit_at(where(Faulty())), Kit)


def test_a_registered_driver_s_pair_is_opened_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COWSHED_TESTED_DRIVER", "naive-copy")
    pair = Pair("naive-copy")
    assert "pair = Pair('naive-copy')" in script(pair.kit, pair.steps)
    pair.seal("layer", None)
    pair.prepare("container", "layer")
    pair.do("container", "mkdir", "d")
    pair.crash_writing("container", "mkdir", "d/e", synced=False)
    pair.crash_writing("container", "mkdir", "d/f", synced=True)
    pair.crash_staging("layer")
    pair.finish("container")
    pair.close()


def test_a_pair_fails_where_driver_and_model_part() -> None:
    pair = Pair(Sound())
    pair.prepare("container", None)
    with pair.real.write(next(iter(pair.real.held()))) as tree:
        tree.mkdir("behind")
    with pytest.raises(pytest.fail.Exception, match="'behind': should not be there"):
        pair.do("container", "mkdir", "d")
    assert pair.failed
    pair.close()
