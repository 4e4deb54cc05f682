"""Killed at any moment, or many at once: what was acknowledged is there, the rest is swept."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cowshed import CowshedError, Shed

from .helpers import assert_consistent, cowshed_command, must

#: Enough that some hit every stage of an import; each costs a process or two.
KILLS = 8


def start(shed: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Start the command line and don't wait for it."""
    command, environment = cowshed_command(shed, *arguments)
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_killed_import_leaves_a_whole_image_or_nothing(
    driver: str, shed_root: Path, layout: Path
) -> None:
    arguments = ("--driver", driver, "import", f"oci:{layout}:v2", "app")
    began = time.monotonic()
    must(shed_root, *arguments)
    whole = time.monotonic() - began
    must(shed_root, "rmi", "app")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    finished = 0
    for _ in range(KILLS):
        process = start(shed_root, *arguments)
        time.sleep(chance.uniform(0.05, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Shed(shed_root) as shed:
            there = [one.names for one in shed.images()]
            assert there in ([], [("app:latest",)]), f"seed {seed}"
            findings = shed.check(deep=True)
            assert findings == [], f"seed {seed}"
            if there:
                finished += 1
                with shed.create("app", driver=driver).tree() as tree:
                    assert tree.read_bytes("lib/module7.py") == b"value = 'changed'\n"
                shed.remove_containers([one.id for one in shed.containers()])
                shed.remove_image("app")
            shed.gc()
            assert list(shed.driver(driver).items()) == [], f"seed {seed}"
            assert shed.df().recipes < 100_000, f"seed {seed}: a layer's recipe stays"
    must(shed_root, *arguments)
    assert_consistent(shed_root)


def test_a_killed_removal_or_creation_is_finished_or_undone(
    driver: str, shed_root: Path, layout: Path
) -> None:
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
    kept = must(shed_root, "--driver", driver, "create", "app").strip()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(4):
        process = start(shed_root, "--driver", driver, "create", "--count", 5, "app")
        time.sleep(chance.uniform(0.05, 0.6))
        process.kill()
        process.communicate()
        with Shed(shed_root) as shed:
            made = [one.id for one in shed.containers() if one.id != kept]
            assert len(made) in (0, 5), f"seed {seed}: half of a batch"
        if made:
            process = start(shed_root, "rm", *made)
            time.sleep(chance.uniform(0.05, 0.4))
            process.kill()
            process.communicate()
        with Shed(shed_root) as shed:
            shed.gc()
            known = {one.id for one in shed.containers()}
            held = {one.id for one in shed.driver(driver).items() if one.held.value == "container"}
            assert held == known, f"seed {seed}"
            shed.remove_containers([id for id in known if id != kept])
    assert_consistent(shed_root)


def test_several_processes_at_once_lose_nothing(driver: str, shed_root: Path, layout: Path) -> None:
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v1", "kept")
    processes = [
        start(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", f"app:{number}")
        for number in range(3)
    ]
    processes += [
        start(shed_root, "--driver", driver, "create", "--name", f"box{number}", "kept")
        for number in range(3)
    ]
    processes += [start(shed_root, "gc"), start(shed_root, "ps"), start(shed_root, "gc")]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, (process.args, output, errors)
    with Shed(shed_root) as shed:
        names = sorted(name for one in shed.images() for name in one.names)
        assert names == ["app:0", "app:1", "app:2", "kept:latest"]
        assert {one.name for one in shed.containers()} == {"box0", "box1", "box2"}
    assert_consistent(shed_root)


def test_removing_an_image_while_it_is_imported_loses_nothing(
    driver: str, shed_root: Path, layout: Path
) -> None:
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v1", "shared")
    importing = start(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
    removing = start(shed_root, "rmi", "shared")
    sweeping = start(shed_root, "gc")
    for process in (importing, removing, sweeping):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with Shed(shed_root) as shed:
        assert [one.names for one in shed.images()] == [("app:latest",)]
        with pytest.raises(CowshedError):
            shed.image("shared")
    assert_consistent(shed_root)
