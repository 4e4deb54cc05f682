"""Images by the command line: import, save, images, inspect, history, tag, rmi."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ID = re.compile(r"sha256:[0-9a-f]{64}")


def test_import_says_layer_by_layer_what_it_does(cowshed: Any, image: str, tmp_path: Path) -> None:
    cowshed("save", image, f"oci:{tmp_path}/layout:one")
    cowshed("rmi", image)
    first = cowshed("import", f"oci:{tmp_path}/layout:one", "again:1")
    assert re.fullmatch(r"sha256:[0-9a-f]{12} imported \d[\d.]*k?B", first.lines[0])
    assert first.lines[-2] == "Loaded image: again:1"
    assert ID.fullmatch(first.lines[-1])
    second = cowshed("import", f"oci:{tmp_path}/layout:one", "again:1")
    assert re.fullmatch(r"sha256:[0-9a-f]{12} exists", second.lines[0])
    assert "1 already here" in second.text


def test_quiet_import_prints_the_id_only(cowshed: Any, files: Path) -> None:
    ran = cowshed("import", f"dir:{files}", "quiet", "--quiet")
    assert ID.fullmatch(ran.text.strip())


def test_import_as_json(cowshed: Any, files: Path) -> None:
    (one,) = cowshed("--json", "import", f"dir:{files}", "plain").json
    assert one["names"] == ["plain:latest"]
    assert one["layers"] == 1
    assert ID.fullmatch(one["id"])


def test_images_has_dockers_columns(cowshed: Any, image: str) -> None:
    cowshed("tag", image, "other/name:2")
    heading, *rows = cowshed("images").lines
    assert heading.split("   ")[0] == "REPOSITORY"
    assert re.split(r"\s{2,}", heading) == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert sorted(row.split()[0] for row in rows) == ["base", "other/name"]
    assert len(cowshed("images", "base").lines) == 2
    assert re.fullmatch(r"[0-9a-f]{12}\n", cowshed("images", "-q").text)


def test_images_as_json(cowshed: Any, image: str) -> None:
    (one,) = cowshed("images", "--json").json
    assert one["names"] == [image]
    assert one["drivers"] == ["naive-copy"]
    assert isinstance(one["size"], int)


def test_inspect_finds_containers_and_images(cowshed: Any, container: str, image: str) -> None:
    box, base = cowshed("inspect", container, image).json
    assert box["Name"] == "/box"
    assert base["RepoTags"] == [image]
    assert box["Image"] == base["Id"]


def test_inspect_reports_what_it_cannot_find_and_shows_the_rest(cowshed: Any, image: str) -> None:
    ran = cowshed.try_("inspect", "nothing", image)
    assert ran.status == 1
    assert "no such container or image: nothing" in ran.err
    assert len(ran.json) == 1


def test_history_shows_every_step_with_its_layer(cowshed: Any, container: str) -> None:
    cowshed("commit", container, "next", "-m", "nothing changed", "-c", "ENV A=b")
    heading, last, first = cowshed("history", "next").lines
    assert heading.startswith("LAYER")
    assert last.startswith("<none>") and "0B" in last and "nothing changed" in last
    assert re.match(r"[0-9a-f]{12} ", first)
    steps = cowshed("history", "next", "--json").json
    assert [step["size"] for step in steps][1] == 0
    assert steps[1]["layer"] is None


def test_rmi_untags_and_then_deletes(cowshed: Any, image: str) -> None:
    cowshed("tag", image, "second")
    assert cowshed("rmi", "second").lines == ["Untagged: second:latest"]
    lines = cowshed("rmi", image).lines
    assert lines[0] == f"Untagged: {image}"
    assert lines[1].startswith("Deleted: sha256:")
    assert cowshed("images", "-q").text == ""


def test_rmi_goes_on_after_an_error(cowshed: Any, image: str) -> None:
    ran = cowshed.try_("rmi", "nothing", image)
    assert ran.status == 1
    assert "no such image: nothing" in ran.err
    assert f"Untagged: {image}" in ran.text


def test_an_image_in_use_is_removed_only_by_force(cowshed: Any, container: str, image: str) -> None:
    refused = cowshed.try_("rmi", image)
    assert refused.status == 1
    assert "in use by 1 container" in refused.err
    cowshed("rmi", "-f", image)
    assert cowshed("cat", container, "etc/motd").text == "welcome\n"


def test_escapes_in_a_history_reach_no_terminal(cowshed: Any, container: str) -> None:
    cowshed("commit", container, "evil", "-m", "\x1b]0;owned\x07")
    assert b"\x1b" not in cowshed("history", "evil").out
    assert b"\x1b" not in cowshed("inspect", "evil").out
