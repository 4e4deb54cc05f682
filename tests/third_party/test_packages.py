"""A third party's distribution adds a driver, a transport and a command; clashes are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Environment, needs_pip

pytestmark = needs_pip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which pigeonhole was just installed."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    assert "pigeonhole" not in environment.cowshed("drivers", "-q").split()
    environment.install("cowshed-pigeonhole")
    return environment


def test_its_driver_is_listed_with_all_others(installed: Environment) -> None:
    drivers = {driver["name"]: driver for driver in installed.json("drivers")}
    assert {"naive-copy", "hardlink-farm", "chunk-dedup", "pigeonhole"} <= set(drivers)
    found = drivers["pigeonhole"]
    assert found["available"] and not found["refused"] and found["plugin"] == "pigeonhole"
    assert found["capabilities"] == ["instant_prepare", "unprivileged"]
    assert found["summary"] == "an index for each tree, and holes that never change"


def test_its_plugins_are_listed(installed: Environment) -> None:
    plugins = {plugin["name"]: plugin for plugin in installed.json("plugins")}
    assert plugins["pigeonhole"]["hooks"] == ["cowshed_register_drivers"]
    assert plugins["pigeonhole-post"]["hooks"] == [
        "cowshed_register_commands",
        "cowshed_register_transports",
    ]
    assert all(plugin["failure"] == "" for plugin in plugins.values())
    assert plugins["pigeonhole"]["origin"] == "entry point"


def test_its_transport_brings_images_and_its_driver_holds_them(installed: Environment) -> None:
    installed.cowshed("import", "pigeon:all is well", "--driver", "pigeonhole")
    installed.cowshed("create", "message", "--name", "box", "--driver", "pigeonhole")
    assert installed.cowshed("cat", "box:/message") == "all is well"
    assert installed.json("ps")[0]["driver"] == "pigeonhole"
    assert "pigeons only arrive" in installed.refused("save", "message", "pigeon:anywhere")
    assert installed.cowshed("migrate", "--to", "chunk-dedup", "message")
    assert "No damage found" in installed.cowshed("check", "--deep")


def test_its_command_is_there_with_its_help(installed: Environment) -> None:
    installed.cowshed("import", "pigeon:counted", "counted", "--driver", "pigeonhole")
    installed.cowshed("create", "counted", "--driver", "pigeonhole")
    assert "holes" in installed.cowshed("--help")
    assert "Count the holes" in installed.cowshed("holes", "--help")
    assert any(line.startswith("container ") for line in installed.cowshed("holes").splitlines())


def test_its_driver_takes_part_in_the_benchmark(installed: Environment) -> None:
    subjects = {one["name"]: one for one in installed.json("bench", "--list")["subjects"]}
    found = subjects["pigeonhole"]
    assert (found["kind"], found["version"], found["plugin"]) == ("driver", "0.1", "pigeonhole")
    assert found["unable"] == "" and "chunk-dedup" in subjects
    installed.cowshed(
        *("bench", "--quick", "--minutes", "20", "--rounds", "1", "--synthetic", "1MB"),
        *("--driver", "pigeonhole", "--peer", "none", "--out", "run.json"),
        *("--workload", "import-first", "--workload", "diff"),
    )
    run = json.loads((installed.work / "run.json").read_text())
    outcomes = {(one["subject"], one["workload"]): one["outcome"] for one in run["samples"]}
    assert outcomes["pigeonhole", "import-first"] == outcomes["pigeonhole", "diff"] == "ok"
    assert outcomes["floor", "import-first"] == "ok"


def test_a_wrong_option_of_its_driver_is_named(installed: Environment) -> None:
    said = installed.refused(
        *("create", "scratch", "--driver", "pigeonhole"),
        *("--set", "drivers.pigeonhole.link_froks=true"),
    )
    assert "driver pigeonhole has no option 'link_froks'; did you mean 'link_forks'?" in said


def test_the_kit_runs_on_it_without_a_test_file(installed: Environment) -> None:
    ran = installed.run(
        "python", "-m", "cowshed.testing", "pigeonhole", "-q", "-k", "fork and not leaves or killed"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "containers" in ran.stdout and "concurrency" in ran.stdout


@pytest.fixture
def clashing(tmp_path: Path) -> Iterator[Environment]:
    """An environment with a second distribution that claims the same names."""
    environment = Environment(tmp_path)
    environment.install("cowshed-pigeonhole")
    environment.install("cowshed-magpie")
    return environment


def test_two_that_claim_one_name_are_named_and_the_rest_works(clashing: Environment) -> None:
    drivers = {driver["name"]: driver for driver in clashing.json("drivers")}
    clash = "driver 'pigeonhole' is claimed by both pigeonhole and magpie"
    other = "driver 'pigeonhole' is claimed by both magpie and pigeonhole"
    assert drivers["pigeonhole"]["refused"]
    assert drivers["pigeonhole"]["reason"].startswith((clash, other))
    assert drivers["magpie"]["reason"].startswith("Magpie lacks changes and close and")
    assert drivers["naive-copy"]["available"]

    said = clashing.refused("create", "scratch", "--driver", "pigeonhole")
    assert clash in said or other in said
    said = clashing.refused("import", "pigeon:lost")
    assert "transport 'pigeon' is claimed by both" in said and "magpie" in said
    said = clashing.refused("holes")
    assert "command 'holes' is claimed by both" in said and "pigeonhole-post" in said

    plugins = {plugin["name"]: plugin for plugin in clashing.json("plugins")}
    assert "driver magpie refused" in plugins["magpie"]["failure"]
    clashing.cowshed("create", "scratch", "--name", "works")
    assert clashing.json("ps")[0]["name"] == "works"

    # Whoever is disabled or removed claims nothing.
    off = ("--set", 'disabled_plugins=["magpie"]')
    clashing.cowshed("import", "pigeon:found", "--driver", "pigeonhole", *off)
    clashing.pip("uninstall", "--yes", "cowshed-magpie")
    clashing.cowshed("create", "message", "--driver", "pigeonhole")
    assert "magpie" not in clashing.cowshed("drivers", "-q").split()


def test_the_shed_outlives_a_driver_that_was_uninstalled(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install("cowshed-pigeonhole")
    environment.cowshed("import", "pigeon:kept", "--driver", "pigeonhole")
    environment.cowshed("create", "message", "--name", "box", "--driver", "pigeonhole")
    environment.pip("uninstall", "--yes", "cowshed-pigeonhole")
    assert environment.json("ps")[0]["driver"] == "pigeonhole"
    assert "no such driver: pigeonhole" in environment.refused("cat", "box:/message")
    environment.cowshed("create", "scratch", "--name", "other", "--driver", "naive-copy")
    environment.install("cowshed-pigeonhole")
    assert environment.cowshed("cat", "box:/message") == "kept"
