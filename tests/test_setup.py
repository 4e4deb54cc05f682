"""What a newcomer and the project's own checks rely on: make, CI, entry points, the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def test_make_says_what_can_be_made() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-s", "help"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for goal in ("demo", "test", "check"):
        assert f"make {goal}" in done.stdout


@pytest.mark.skipif(not (PROJECT / ".ci").is_dir(), reason="a copy without the CI's script")
def test_the_ci_script_is_a_program_that_bash_understands() -> None:
    script = PROJECT / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_every_entry_point_can_be_loaded() -> None:
    from importlib import import_module

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["cowshed"].partition(":")
    assert callable(getattr(import_module(module), function))
    for target in project["entry-points"]["cowshed"].values():
        import_module(target)


def test_the_demo_checks_a_drivers_whole_life(tmp_path: Path) -> None:
    from cowshed_benchmarks import demo, sample_image

    sample = sample_image.make_sample(tmp_path / "image", limit=sample_image.MEBI)
    pictures = sample.pictures
    assert sample_image.DATA in pictures["v1"]
    assert "srv/app/CHANGES" in pictures["v2"] and "srv/app/CHANGES" not in pictures["v1"]
    wrong = dict(pictures["v1"])
    wrong["srv/app/helper"] = pictures["v1"]["srv/app/current"]
    assert len(sample_image.differences(pictures["v1"], wrong)) == 1
    assert demo.main([str(tmp_path / "work"), "--driver", "chunk-dedup"]) == 0


def test_an_import_of_cowshed_loads_no_driver_and_nothing_heavy() -> None:
    code = (
        "import sys, cowshed, cowshed.cli.main; "
        "heavy = {'lmdb', 'zstandard', 'rich', 'pyfastcdc', 'tarfile', 'cowshed_drivers'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
