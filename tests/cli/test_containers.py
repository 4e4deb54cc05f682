"""Containers by the command line: create, ps, diff, commit, fork, rename, rm."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from cowshed import Container
from cowshed.driver import Usage


def test_create_prints_one_id_a_line(cowshed: Any, image: str) -> None:
    lines = cowshed("create", image, "--count", "3").lines
    assert len(lines) == 3
    assert all(re.fullmatch(r"[0-9a-f]{64}", line) for line in lines)


def test_a_batch_with_a_name_is_numbered(cowshed: Any, image: str) -> None:
    made = cowshed("create", image, "--name", "job", "--count", "2", "--json").json
    assert [one["name"] for one in made] == ["job-1", "job-2"]


def test_ps_lists_containers_with_their_images(cowshed: Any, container: str) -> None:
    heading, row = cowshed("ps", "-a").lines
    columns = ["CONTAINER ID", "IMAGE", "DRIVER", "CREATED", "STATUS", "NAMES"]
    assert re.split(r"\s{2,}", heading) == columns
    assert re.split(r"\s{2,}", row)[1:3] == ["base:1", "naive-copy"]
    assert row.endswith("box")


def test_ps_with_sizes_and_as_json(cowshed: Any, container: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"x" * 10)
    cowshed("cp", tmp_path / "new", f"{container}:/")
    assert "10B (virtual" in cowshed("ps", "-s").lines[1]
    (one,) = cowshed("--json", "ps", "-s").json
    assert one["size_rw"] == 10
    assert one["image_names"] == ["base:1"]
    assert "size_rw" not in cowshed("ps", "--json").json[0]


def test_ps_leaves_out_what_was_removed_since_it_was_listed(
    cowshed: Any, container: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cowshed("create", image, "--name", "brief")
    really = Container.usage

    def usage(one: Container) -> Usage:
        if one.name == "brief":
            one.remove()
        return really(one)

    monkeypatch.setattr(Container, "usage", usage)
    _, row = cowshed("ps", "-s").lines
    assert " box " in row


def test_ps_shows_the_newest_or_ids_only(cowshed: Any, image: str) -> None:
    first = cowshed("create", image).text.strip()
    second = cowshed("create", image).text.strip()
    assert cowshed("ps", "-q", "--no-trunc").lines == [second, first]
    assert cowshed("ps", "-q", "-n", "1").lines == [second[:12]]


def test_diff_prints_letters_and_absolute_paths(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("x")
    cowshed("cp", tmp_path / "new", f"{container}:/etc/new")
    assert cowshed("diff", container).lines == ["C /etc", "A /etc/new"]
    assert cowshed("diff", container, "--json").json[1] == {"kind": "A", "path": "/etc/new"}


def test_undecodable_names_go_out_as_they_are(cowshed: Any, container: str, tmp_path: Path) -> None:
    name = b"caf\xe9\x1b"
    (tmp_path / os.fsdecode(name)).write_text("x")
    cowshed("cp", os.path.join(str(tmp_path), os.fsdecode(name)), f"{container}:/data/deep")
    assert b"A /data/deep/" + name + b"\n" in cowshed("diff", container).out
    assert name + b"\n" in cowshed("ls", f"{container}:/data/deep").out


def test_commit_prints_the_new_images_id(cowshed: Any, container: str) -> None:
    id = cowshed("commit", container, "made", "-a", "me", "-c", 'CMD ["sh"]').text.strip()
    (made,) = cowshed("inspect", "made").json
    assert made["Id"] == id
    assert made["Author"] == "me"
    assert made["Config"]["Cmd"] == ["sh"]


def test_fork_and_rename(cowshed: Any, container: str) -> None:
    cowshed("fork", container, "--name", "copy")
    cowshed("rename", "copy", "other")
    assert cowshed("cat", "other:/etc/motd").text == "welcome\n"
    assert cowshed.try_("fork", container, "--name", "other").status == 1


def test_rm_removes_all_it_can(cowshed: Any, image: str) -> None:
    cowshed("create", image, "--name", "one")
    cowshed("create", image, "--name", "two")
    ran = cowshed.try_("rm", "one", "nothing", "two")
    assert ran.status == 1
    assert ran.lines == ["one", "two"]
    assert "no such container: nothing" in ran.err
    assert cowshed("ps", "-q").text == ""


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_stand_before_or_after_the_verb(
    cowshed: Any, tmp_path: Path, place: str
) -> None:
    options = ["--root", tmp_path / "elsewhere", "--driver", "hardlink-farm", "--json"]
    arguments = (
        [*options, "create", "scratch"] if place == "before" else ["create", "scratch", *options]
    )
    (one,) = cowshed(*arguments).json
    assert one["driver"] == "hardlink-farm"
    assert (tmp_path / "elsewhere/cowshed.json").exists()
