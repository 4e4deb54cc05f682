"""The measurement of memory imports what it says."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.records import LayerRecord
from cowshed.tree import Tree
from cowshed_benchmarks import crowds


def test_it_shows_a_row_for_each_kind_and_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drivers = ["hardlink-farm", "chunk-dedup"]
    assert crowds.main(["--entries", "250", "--work", str(tmp_path), "--drivers", *drivers]) == 0
    said = capsys.readouterr()
    head, *rows = said.out.splitlines()
    assert said.err == ""
    assert head.startswith("250 entries")
    assert [row.split()[:2] for row in rows] == [
        [kind, driver] for kind in (*crowds.KINDS, *crowds.UPPER) for driver in drivers
    ]
    for row in rows:
        found = re.search(r"([\d.]+) MB +([\d.]+) MB +[\d.]+$", row)
        assert found is not None, row
        assert 5 < float(found[1]) < float(found[2])
    assert list(tmp_path.iterdir()) == [], "what it made is gone"


@pytest.mark.parametrize("kind", crowds.KINDS)
def test_a_crowd_is_a_tar_of_as_many_entries(kind: str) -> None:
    tar = b"".join(crowds.KINDS[kind](250))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
    inside = [member for member in members if "/" in member.name]
    assert len(inside) == 250
    assert len({member.name for member in inside}) == 250
    kinds = {member.type for member in inside}
    expected = {
        "links": {tarfile.SYMTYPE},
        "directories": {tarfile.DIRTYPE},
        "pairs": {tarfile.REGTYPE, tarfile.LNKTYPE},
        "names": {tarfile.REGTYPE, tarfile.LNKTYPE},
    }
    assert kinds == expected.get(kind, {tarfile.REGTYPE})


@pytest.mark.parametrize(("kind", "left"), [("whiteouts", 125), ("opaque", 1), ("relinked", 250)])
def test_an_upper_layer_changes_what_the_lower_one_has(
    tmp_path: Path, kind: str, left: int
) -> None:
    crowds.write_layout(tmp_path / "image", kind, 250)
    with Shed(tmp_path / "shed", driver="chunk-dedup") as shed:
        shed.import_image(f"oci:{tmp_path / 'image'}:crowd", "crowd")
        lower, upper = shed.image("crowd").layer_records()
        assert len(list(tree_of(shed, lower).scandir("directory-000000"))) == 250
        assert len(list(tree_of(shed, upper).scandir("directory-000000"))) == left


def tree_of(shed: Shed, record: LayerRecord) -> Tree:
    return shed.driver(record.driver).tree(record.chain)


def test_what_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        crowds.main(["--entries", "5", "--work", str(tmp_path / "file")])
    assert "anonymous" in capsys.readouterr().out
