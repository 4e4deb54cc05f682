"""Native drivers after kills, on full disks, with damaged sidecars and hostile permissions."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import signal
import sqlite3
import stat as stat_module
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed.entry import Entry, Kind
from cowshed.errors import CorruptError
from cowshed.native import workspace
from cowshed.native.sidecar import Record, Sidecar
from cowshed.native.store import NativeDriver
from cowshed.sqlite import Connection
from cowshed_drivers.hardlink_farm.driver import HardlinkFarm
from cowshed_drivers.hardlink_farm.tree import FarmView
from cowshed_drivers.naive_copy.driver import NaiveCopy

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user reaches, as whom the test runs."""
    made = Path(tempfile.mkdtemp(prefix="cowshed-"))
    privileged = os.geteuid() == 0
    if privileged:
        os.chown(made, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield made
    finally:
        if privileged:
            os.seteuid(0)
            os.setegid(0)
        shutil.rmtree(made)


@pytest.fixture(params=[NaiveCopy, HardlinkFarm])
def driver(place: Path, request: pytest.FixtureRequest) -> Iterator[NativeDriver]:
    opened: NativeDriver = request.param(place)
    opened.durable = False
    assert opened.hosting.owner is not None
    yield opened
    opened.close()


def seal(driver: NativeDriver, layer: str, *entries: Entry, parent: str | None = None) -> None:
    with driver.stage(parent) as stage:
        for entry in entries:
            stage.add(entry, io.BytesIO(b"x" * entry.size) if entry.kind is Kind.FILE else None)
        stage.seal(layer)


# -- kills ---------------------------------------------------------------------------------------


def test_a_new_file_has_nothing_of_one_whose_removal_was_cut_short(driver: NativeDriver) -> None:
    driver.prepare("c", None)
    with driver.tree("c", writable=True) as tree:
        tree.mknod("d", stat_module.S_IFCHR | 0o600, os.makedev(1, 3))
        tree.write_bytes("f", b"1")
        tree.chown("f", 7, 8)
        tree.mkdir("dir")
        tree.setxattr("dir", "trusted.x", b"y")
    # Killed between the disk and the sidecar.
    rootfs = Path(driver.root, "containers", "c", "rootfs")
    (rootfs / "d").unlink()
    (rootfs / "f").unlink()
    (rootfs / "dir").rmdir()
    with driver.tree("c", writable=True) as tree:
        tree.write_bytes("d", b"data")
        tree.symlink("target", "f")
        tree.mkdir("dir")
        assert tree.read_bytes("d") == b"data"
        assert (tree.stat("d").kind, tree.stat("d").mode) == (Kind.FILE, 0o644)
        assert (tree.stat("f").kind, tree.stat("f").uid) == (Kind.SYMLINK, 0)
        assert not tree.stat("dir").xattrs


def test_a_new_name_has_nothing_of_one_whose_removal_was_cut_short(driver: NativeDriver) -> None:
    driver.prepare("c", None)
    with driver.tree("c", writable=True) as tree:
        tree.mknod("old", stat_module.S_IFCHR | 0o600, os.makedev(1, 3))
        tree.mkdir("gone")
        tree.mknod("gone/null", stat_module.S_IFCHR | 0o600, os.makedev(1, 3))
    rootfs = Path(driver.root, "containers", "c", "rootfs")
    (rootfs / "old").unlink()
    (rootfs / "gone" / "null").unlink()
    (rootfs / "gone").rmdir()
    with driver.tree("c", writable=True) as tree:
        tree.write_bytes("a", b"a")
        tree.rename("a", "old")
        assert tree.read_bytes("old") == b"a"
        tree.mkdir("moved")
        tree.write_bytes("moved/null", b"b")
        tree.rename("moved", "gone")
        assert tree.read_bytes("gone/null") == b"b"


def test_two_names_torn_apart_by_a_kill_are_one_file_again_with_the_next_write(
    place: Path,
) -> None:
    farm = HardlinkFarm(place)
    farm.durable = False
    seal(
        farm,
        "l",
        Entry(path="a", kind=Kind.FILE, mode=0o644, size=3),
        Entry(path="b", kind=Kind.HARDLINK, target="a"),
    )
    for container, name, other in (("c", "a", "b"), ("d", "b", "a")):
        farm.prepare(container, "l")
        farm.tree(container, writable=True).close()
        view = FarmView(os.path.join(farm.root, "containers", container), farm.hosting, "live")
        os.mkdir(os.path.join(view.home, "aside"))
        with open(os.path.join(view.home, "aside", "copy"), "wb") as file:
            file.write(b"xxx")
        os.chmod(file.name, 0o644)
        # As FarmView.detach of `a` when it is killed between the two names.
        os.link(file.name, file.name + ".link")
        os.rename(file.name + ".link", os.path.join(view.home, "rootfs", "b"))
        view.close_view()
        with farm.tree(container, writable=True) as tree:
            with tree.open(name, "r+b") as opened:
                opened.write(b"new")
            assert tree.read_bytes(other) == b"new"
    farm.recover()
    for container in ("c", "d"):
        assert not Path(farm.root, "containers", container, "aside").exists()
    farm.close()


def test_recover_leaves_the_marks_of_a_layer_that_is_being_built_on(driver: NativeDriver) -> None:
    mark = Path(driver.root, "children", "l", "c")
    mark.parent.mkdir()
    mark.touch()
    # What ``prepare`` holds from before it looks for the layer until its container is there.
    with driver.locks.acquire("parent:l", shared=True):
        driver.recover()
        assert mark.exists()
    driver.recover()
    assert not mark.exists()


def test_what_is_damaged_can_be_removed(driver: NativeDriver) -> None:
    seal(driver, "l")
    driver.prepare("c", "l")
    item = Path(driver.root, "containers/c/item.json")
    item.unlink()
    item.write_text("nonsense")
    with pytest.raises(CorruptError, match="c"):
        list(driver.changes("c"))
    driver.remove("c")
    driver.remove("l")
    assert list(driver.items()) == []


def test_a_name_left_in_the_sidecar_by_a_kill_shares_nothing(place: Path) -> None:
    farm = HardlinkFarm(place)
    farm.durable = False
    farm.prepare("c", None)
    with farm.tree("c", writable=True) as tree:
        tree.write_bytes("a", b"old")
        tree.link("a", "b")
    farm.fork("c", "d")
    with farm.tree("d", writable=True) as tree:
        tree.unlink("b")
    # Killed between the disk and the sidecar.
    Path(farm.root, "containers", "c", "rootfs", "b").unlink()
    with farm.tree("c", writable=True) as tree:
        tree.write_bytes("a", b"new")
        assert [entry.path for entry in tree.scandir("")] == ["a"]
    with farm.tree("d") as tree:
        assert tree.read_bytes("a") == b"old"
    farm.close()


# -- damage and full disks -----------------------------------------------------------------------


def test_a_damaged_sidecar_is_named(driver: NativeDriver) -> None:
    for size in (0, 100, 5000):
        layer = f"l{size}"
        seal(
            driver,
            layer,
            *(
                Entry(path=f"f{number}", kind=Kind.FILE, mode=0o644, uid=number + 1, size=1)
                for number in range(200)
            ),
        )
        sidecar = Path(driver.root, "layers", layer, "sidecar.db")
        with open(sidecar, "r+b") as file:
            file.seek(size)
            file.write(b"\xa5" * 8000)
        with pytest.raises(CorruptError, match=layer), driver.tree(layer) as tree:
            list(tree.walk())
        assert list(driver.verify(layer))
        assert list(driver.verify(layer, deep=True))


def test_a_full_disk_while_a_sidecar_is_copied_is_an_oserror(place: Path) -> None:
    sidecar = Sidecar(str(place / "s.db"), "live")
    for number in range(2000):
        sidecar.put(f"file number {number}", Record(uid=5))
    copy = place / "copy.db"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        with pytest.raises(OSError, match=r"No space|Input/output"):
            sidecar.copy_to(str(copy))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    sidecar.close()


@pytest.mark.parametrize("name", ["link", "rename"])
def test_a_full_disk_leaves_a_tree_as_it_was(
    driver: NativeDriver, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    execute = Connection.execute

    def full(self: Connection, *arguments: Any) -> sqlite3.Cursor:
        if arguments[0] == "COMMIT":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return execute(self, *arguments)

    driver.prepare("c", None)
    with driver.tree("c", writable=True) as tree:
        tree.mknod("null", stat_module.S_IFCHR | 0o600, os.makedev(1, 3))
        before = tree.stat("null")
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "execute", full)
            with pytest.raises(OSError, match="No space"):
                getattr(tree, name)("null", "other")
        assert list(tree.scandir("")) == [before]
        assert tree.stat("null").links == 1


# -- permissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o500])
def test_directories_that_nobody_may_enter_are_removed(driver: NativeDriver, mode: int) -> None:
    driver.prepare("c", None)
    with driver.tree("c", writable=True) as tree:
        tree.mkdir("a")
        tree.mkdir("a/b")
        tree.write_bytes("a/b/f", b"")
    rootfs = Path(driver.root, "containers", "c", "rootfs")
    (rootfs / "a" / "b").chmod(mode)
    (rootfs / "a").chmod(mode)
    driver.remove("c")
    assert os.listdir(os.path.join(driver.root, "trash")) == []


def test_nothing_is_synced_for_a_container_that_is_thrown_away_soon(
    driver: NativeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(driver, "l1", Entry(path="f", kind=Kind.FILE, mode=0o644))
    for first, parent in (("c", "l1"), ("bare", None)):
        driver.prepare(first, parent)  # which what all on that parent share is synced for
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(workspace, "syncfs", synced.append)
    driver.durable = True
    driver.prepare_unsynced("c1", "l1")
    driver.prepare_unsynced("c2", None)
    assert synced == []
    driver.prepare("c3", "l1")
    assert synced != []
