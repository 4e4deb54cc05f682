"""What a kill or a power cut leaves of overlayfs's small files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowshed.errors import BusyError
from cowshed_drivers.overlayfs import attaching, freezing
from cowshed_drivers.overlayfs.attaching import ATTACHED
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


def attached(driver: Overlayfs, place: Path) -> None:
    place.mkdir()
    try:
        driver.attach("box").mount(os.fspath(place))
    except OSError as error:
        pytest.skip(f"nothing can be mounted: {error}")


def test_who_still_works_in_a_mount_that_was_taken_away_is_noticed(
    driver: Overlayfs, tmp_path: Path
) -> None:
    driver.prepare("box", None)
    works = tmp_path / "store" / ATTACHED
    attached(driver, tmp_path / "mount")
    with (tmp_path / "mount/file").open("w"):
        driver.attach("box").unmount(os.fspath(tmp_path / "mount"))
        assert len(list(works.iterdir())) == 1
        with pytest.raises(BusyError, match="mounted and in use"):
            driver.remove("box")
    driver.remove("box")
    assert not list(works.iterdir())


def test_a_mount_that_nobody_used_leaves_nothing_and_costs_no_other(
    driver: Overlayfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To try an upper directory takes the kernel as long as to take a mount away."""
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has ustat(2)")
    tries: list[int] = []
    monkeypatch.setattr(attaching, "is_upper", lambda upper, **_: tries.append(upper))
    driver.prepare("box", None)
    attached(driver, tmp_path / "mount")
    driver.attach("box").unmount(os.fspath(tmp_path / "mount"))
    assert not list((tmp_path / "store" / ATTACHED).iterdir())
    driver.remove("box")
    assert tries == []


def test_a_container_is_synced_once_it_is_published_and_before_that_is_said(
    driver: Overlayfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One journal is written then, not two; it has all names in their order."""
    with driver.stage(None) as stage:
        stage.seal("layer")
    driver.prepare("first", "layer")  # the layer's own files are there
    home = tmp_path / "store/containers/box"
    synced: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((os.path.relpath(path, tmp_path / "store"), home.exists()))

    monkeypatch.setattr(os, "fsync", record)
    driver.prepare("box", "layer")
    places = ["containers/box/diff", "containers/box", "containers"]
    assert synced == [(place, True) for place in places]
