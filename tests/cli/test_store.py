"""The shed by the command line: df, gc, check, migrate, drivers, plugins, config, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_the_parts_of_df_add_up_to_what_is_on_disk(cowshed: Any, container: str) -> None:
    usage = cowshed("df", "--json").json
    parts = ("images", "containers", "blobs", "partial", "recipes", "catalog", "temporary", "other")
    assert sum(usage[part] for part in parts) == usage["total"]
    assert usage["drivers"][0]["name"] == "naive-copy"
    du = subprocess.run(
        ["du", "-s", "-B1", os.environ["COWSHED_ROOT"]], capture_output=True, check=True
    )
    assert int(du.stdout.split()[0]) == usage["total"]


def test_df_reads_as_dockers(cowshed: Any, container: str) -> None:
    lines = cowshed("df", "-v").lines
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1].split()[:3] == ["Images", "1", "1"]
    assert any(line.startswith("naive-copy") for line in lines)
    assert any(line.startswith("base:1") for line in lines)


def test_gc_and_check_find_nothing_in_a_sound_shed(cowshed: Any, container: str) -> None:
    assert cowshed("gc").lines[-1].startswith("Total reclaimed space: ")
    assert "No damage found" in cowshed("check", "--deep").text
    assert [one["severity"] for one in cowshed("check", "--json").json] == ["notice"]


def test_check_fails_on_damage(cowshed: Any, container: str, image: str) -> None:
    (blob,) = [one["Id"] for one in cowshed("inspect", image).json]
    path = Path(os.environ["COWSHED_ROOT"], "blobs/sha256", blob.removeprefix("sha256:"))
    path.chmod(0o600)
    path.write_text("{}")
    ran = cowshed.try_("check", "--deep")
    assert ran.status == 1
    assert "damage: " in ran.text


def test_migrate_moves_everything(cowshed: Any, container: str) -> None:
    assert "1 images, 1 containers" in cowshed("migrate", "--to", "hardlink-farm").text
    assert cowshed("ps", "--json").json[0]["driver"] == "hardlink-farm"
    assert cowshed("cat", container, "etc/motd").text == "welcome\n"


def test_drivers_says_what_each_can_do_here(cowshed: Any) -> None:
    drivers = {one["name"]: one for one in cowshed("drivers", "--json").json}
    assert {"naive-copy", "hardlink-farm", "chunk-dedup"} <= set(drivers)
    assert drivers["naive-copy"]["default"]
    assert "instant_prepare" in drivers["chunk-dedup"]["capabilities"]
    shown = cowshed("drivers").lines
    assert shown[0].split() == ["NAME", "AVAILABLE", "SUMMARY"]
    assert ["chunk-dedup", "yes"] in [line.split()[:2] for line in shown]
    assert "naive-copy      native-path, unprivileged" in shown


def test_plugins_names_the_one_that_fails(cowshed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COWSHED_PLUGINS", "no_such_module")
    failed = [one for one in cowshed("plugins", "--json").json if one["failure"]]
    assert [one["name"] for one in failed] == ["no_such_module"]
    assert "ModuleNotFoundError" in cowshed("plugins").text
    cowshed("ps")


def test_config_says_where_each_value_comes_from(cowshed: Any) -> None:
    values = cowshed("config", "--json", "--set", "limits.entries=5").json
    assert values["driver"] == {"value": "naive-copy", "source": "COWSHED_DRIVER"}
    assert values["limits"] == {"value": {"entries": 5}, "source": "--set"}
    assert values["keep_blobs"]["source"] == "default"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(cowshed: Any, shell: str) -> None:
    assert "_COWSHED_COMPLETE" in cowshed("completion", shell).text


def completions(words: str) -> list[str]:
    environment = {
        **os.environ,
        "_COWSHED_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "cowshed"], capture_output=True, check=True, env=environment
    )
    return [line.partition(",")[2] for line in ran.stdout.decode().split()]


def test_completion_offers_commands_images_containers_and_drivers(
    cowshed: Any, container: str
) -> None:
    assert completions("cowshed im") == ["import", "images"]
    assert completions("cowshed rmi ba") == ["base:1"]
    assert completions("cowshed rm ") == ["box"]
    assert completions("cowshed create --driver na") == ["naive-copy"]


def test_completion_makes_no_shed(cowshed: Any, tmp_path: Path) -> None:
    assert completions("cowshed rm ") == []
    assert not (tmp_path / "shed").exists()
