"""What a kill or a power cut leaves of overlayfs's small files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowshed_drivers.overlayfs import freezing
from cowshed_drivers.overlayfs.driver import Overlayfs
from cowshed_drivers.overlayfs.journal import JOURNAL
from cowshed_drivers.overlayfs.plugin import SPEC
from cowshed_drivers.overlayfs.records import EXTRA, Extras, read_extras


@pytest.fixture
def driver(tmp_path: Path) -> Overlayfs:
    reason = SPEC.probe(tmp_path)
    if reason:
        pytest.skip(reason)
    (tmp_path / "store").mkdir()
    return Overlayfs(tmp_path / "store")


def test_a_line_behind_a_torn_one_counts(tmp_path: Path) -> None:
    file = tmp_path / f"diff{EXTRA}"
    Extras(str(tmp_path), ["diff"]).put("@a", 1)
    with file.open("ab") as torn:
        torn.write(b'{"@torn": "xxx')
    Extras(str(tmp_path), ["diff"]).put("@b", 2)
    assert read_extras([str(tmp_path / "diff")]) == {"@a": 1, "@b": 2}


def test_an_empty_notice_blocks_nobody(driver: Overlayfs, tmp_path: Path) -> None:
    for container in ("one", "two"):
        driver.prepare(container, None)
    notice = tmp_path / "store" / JOURNAL / f"one.{'0' * 16}"
    notice.touch()
    with driver.tree("two", writable=True) as tree:
        tree.write_bytes("file", b"")
    driver.fork("two", "three")
    driver.recover()
    assert not notice.exists()


def test_who_stands_on_frozen_directories_is_durable_before_they_do(
    driver: Overlayfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.prepare("origin", None)
    with driver.tree("origin", writable=True) as tree:
        tree.write_bytes("file", b"")
    synced: list[list[str]] = []
    sync = freezing.sync_directory

    def record(path: str) -> None:
        sync(path)
        synced.append(sorted(os.listdir(path)))

    monkeypatch.setattr(freezing, "sync_directory", record)
    driver.fork("origin", "first")
    driver.fork("origin", "second")
    assert synced == [["first", "origin"], ["first", "origin", "second"]]
