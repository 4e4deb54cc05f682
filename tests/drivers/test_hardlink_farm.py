"""hardlink-farm against the kit, and what is its own."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cowshed.driver import Driver, make_options
from cowshed.entry import Change, Entry, Kind
from cowshed.errors import ConfigError, InUseError, NotFoundError
from cowshed.native.view import NativeView
from cowshed.testing import DriverConformance
from cowshed_drivers.hardlink_farm.driver import HardlinkFarm
from cowshed_drivers.hardlink_farm.options import FarmOptions
from cowshed_drivers.hardlink_farm.plugin import SPEC
from cowshed_drivers.hardlink_farm.tree import FarmView


class TestHardlinkFarm(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return HardlinkFarm(root)


class TestHardlinkFarmWithFewLinks(DriverConformance):
    """Nearly every clone meets a full inode."""

    spec = SPEC
    more_than_links = 100

    def open_driver(self, root: Path) -> Driver:
        driver = HardlinkFarm(root, FarmOptions(max_links=4))
        driver.durable = False
        return driver


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[HardlinkFarm]:
    with HardlinkFarm(tmp_path) as farm:
        farm.durable = False
        yield farm


def seal(farm: HardlinkFarm, layer: str, **files: bytes) -> None:
    with farm.stage(None) as stage:
        for name, data in files.items():
            entry = Entry(path=name, kind=Kind.FILE, mode=0o644, mtime_ns=5, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(layer)


def inode(farm: HardlinkFarm, place: str) -> int:
    return os.stat(os.path.join(farm.root, place)).st_ino


def test_equal_files_of_two_layers_are_one_inode(farm: HardlinkFarm) -> None:
    big = b"b" * (3 << 20)
    seal(farm, "l1", f=b"same", g=b"one", h=big)
    seal(farm, "l2", e=b"same", g=b"two", h=big)
    assert inode(farm, "layers/l1/rootfs/f") == inode(farm, "layers/l2/rootfs/e")
    assert inode(farm, "layers/l1/rootfs/h") == inode(farm, "layers/l2/rootfs/h")
    assert inode(farm, "layers/l1/rootfs/g") != inode(farm, "layers/l2/rootfs/g")


def test_renaming_onto_a_file_with_the_same_inode_still_removes_the_source(
    farm: HardlinkFarm,
) -> None:
    seal(farm, "l1", a=b"same", b=b"same")
    farm.prepare("c1", "l1")
    with farm.tree("c1", writable=True) as tree:
        tree.rename("a", "b")
        assert [entry.path for entry in tree.walk()] == ["", "b"]


def test_a_second_write_copies_nothing(farm: HardlinkFarm) -> None:
    seal(farm, "l1", f=b"x")
    farm.prepare("c1", "l1")
    with farm.tree("c1", writable=True) as tree:
        tree.chmod("f", 0o600)
        first = inode(farm, "containers/c1/rootfs/f")
        tree.write_bytes("f", b"y")
    assert inode(farm, "containers/c1/rootfs/f") == first != inode(farm, "layers/l1/rootfs/f")


def test_a_fork_made_while_a_file_is_open_for_writing_stays_as_it_was(farm: HardlinkFarm) -> None:
    seal(farm, "l1", f=b"x")
    farm.prepare("c1", "l1")
    with farm.tree("c1", writable=True) as tree, tree.open("f", "r+b") as file:
        file.write(b"1")
        file.flush()
        farm.fork("c1", "c2")
        file.seek(0)
        file.write(b"2")
    assert farm.tree("c1").read_bytes("f") == b"2"
    assert farm.tree("c2").read_bytes("f") == b"1"


def test_verify_names_the_layer_and_path_of_a_write_that_went_around(
    farm: HardlinkFarm, tmp_path: Path
) -> None:
    seal(farm, "l1", f=b"before", g=b"other")
    path = tmp_path / "layers/l1/rootfs/f"
    path.write_bytes(b"beside")
    os.utime(path, ns=(5, 5))
    problems = list(farm.verify("l1", deep=True))
    assert [(problem.id, problem.path) for problem in problems] == [("l1", "f")]


def test_removing_a_layer_gives_back_what_no_tree_needs_and_nothing_else(
    farm: HardlinkFarm, tmp_path: Path
) -> None:
    seal(farm, "l1", f=b"f" * 100_000, g=b"g" * 100_000)
    seal(farm, "l2", f=b"f" * 100_000)
    assert farm.collect() == 0
    before = farm.disk_usage()
    farm.remove("l1")
    assert farm.disk_usage() <= before - 100_000
    assert farm.collect() == 0
    assert len(list((tmp_path / "objects").iterdir())) == 1
    assert list(farm.verify("l2", deep=True)) == []
    seal(farm, "l3", f=b"f" * 100_000)
    assert inode(farm, "layers/l2/rootfs/f") == inode(farm, "layers/l3/rootfs/f")


def own_tree(farm: HardlinkFarm, container: str, layer: str) -> None:
    """Make a container that has a tree of its own already."""
    farm.prepare(container, layer)
    farm.tree(container, writable=True).close()


def test_a_kill_while_a_full_inode_is_renewed_leaves_its_directory_s_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = HardlinkFarm(tmp_path, FarmOptions(max_links=4))
    with farm.stage(None) as stage:
        stage.add(Entry(path="d", kind=Kind.DIRECTORY, mode=0o755, mtime_ns=12345))
        stage.add(Entry(path="d/f", kind=Kind.FILE, mode=0o644, size=1), io.BytesIO(b"x"))
        stage.seal("l1")

    def killed(view: FarmView, aside_fd: int, temporary: str, path: str, *, link: bool) -> None:
        fd, name = view.directories.at(path)
        os.rename(temporary, name, src_dir_fd=aside_fd, dst_dir_fd=fd)
        os._exit(9)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(FarmView, "_replace", killed)
        for number in range(8):
            own_tree(farm, f"c{number}", "l1")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    native = tmp_path / "layers/l1/rootfs/d"
    assert native.stat().st_mtime_ns != 12345
    assert farm.tree("l1").stat("d").mtime_ns == 12345
    farm.recover()
    assert native.stat().st_mtime_ns == 12345
    assert farm.tree("l1").stat("d").mtime_ns == 12345
    assert not (tmp_path / "layers/l1/aside").exists()
    farm.close()


def test_nobody_sees_a_full_inode_being_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = HardlinkFarm(tmp_path, FarmOptions(max_links=4))
    farm.durable = False
    with farm.stage(None) as stage:
        stage.add(Entry(path="d", kind=Kind.DIRECTORY, mode=0o755, mtime_ns=12345))
        stage.add(Entry(path="d/f", kind=Kind.FILE, mode=0o644, size=1), io.BytesIO(b"x"))
        stage.add(Entry(path="d/g", kind=Kind.HARDLINK, target="d/f"))
        stage.seal("l1")
    native = tmp_path / "layers/l1/rootfs/d"
    really = FarmView._replace  # pyright: ignore[reportPrivateUsage]
    seen: list[tuple[int, int]] = []

    def replace(view: FarmView, aside_fd: int, temporary: str, path: str, *, link: bool) -> None:
        really(view, aside_fd, temporary, path, link=link)
        if view.home == os.fspath(tmp_path / "layers/l1"):
            kept = native.stat().st_mtime_ns
            os.utime(native, ns=(99, 99))  # a moment ago
            with farm.tree("l1") as tree:
                seen.append((native.stat().st_mtime_ns, tree.stat("d").mtime_ns))
            os.utime(native, ns=(kept, kept))

    monkeypatch.setattr(FarmView, "_replace", replace)
    for number in range(8):
        own_tree(farm, f"c{number}", "l1")
        assert farm.tree(f"c{number}").stat("d").mtime_ns == 12345
    assert seen
    assert set(seen) == {(99, 12345)}
    farm.close()


def test_an_object_linked_while_it_was_dying_lives_on(farm: HardlinkFarm, tmp_path: Path) -> None:
    seal(farm, "l1", f=b"x")
    (object_,) = (tmp_path / "objects").glob("*/*")
    object_.rename(f"{object_}.dying")
    assert farm.collect() == 0
    assert object_.exists()


def test_what_a_layer_alone_holds_grows_when_the_other_goes(farm: HardlinkFarm) -> None:
    seal(farm, "l1", f=b"f" * 100_000)
    seal(farm, "l2", f=b"f" * 100_000)
    shared = farm.usage("l1").exclusive
    farm.remove("l2")
    assert farm.usage("l1").exclusive >= shared + 100_000
    assert farm.usage("l1").apparent == 100_000


def test_more_containers_than_links_share_fresh_inodes(tmp_path: Path) -> None:
    with HardlinkFarm(tmp_path, FarmOptions(max_links=8)) as farm:
        farm.durable = False
        seal(farm, "l1", f=b"x", g=b"y")
        for number in range(30):
            own_tree(farm, f"c{number}", "l1")
        assert len(list(tmp_path.glob("containers/*/rootfs/f"))) == 30
        assert max(os.stat(path).st_nlink for path in tmp_path.glob("*/*/rootfs/f")) <= 8
        assert len({os.stat(path).st_ino for path in tmp_path.glob("*/*/rootfs/f")}) <= 6
        assert all(not list(farm.changes(f"c{number}")) for number in range(30))
        assert list(farm.verify("l1", deep=True)) == []


@pytest.mark.parametrize("value", [3, 0, -1, True, "9", 4.5])
def test_max_links_must_leave_room_for_the_farms_own_names(value: object) -> None:
    with pytest.raises(ConfigError, match="max_links"):
        make_options(SPEC, {"max_links": value})


def test_what_nobody_wrote_in_isnt_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    really = HardlinkFarm.compare

    def compare(self: HardlinkFarm, old: NativeView | None, new: NativeView) -> Iterator[Change]:
        compared.append(new.home)
        return really(self, old, new)

    monkeypatch.setattr(HardlinkFarm, "compare", compare)
    with HardlinkFarm(tmp_path) as farm:
        with farm.stage(None) as stage:
            stage.add(Entry(path="f", kind=Kind.FILE, mode=0o644))
            stage.seal("layer")
        farm.prepare("c", "layer")
        with farm.tree("c") as tree:
            tree.stat("f")
        assert list(farm.changes("c")) == []
        assert farm.usage("c").apparent == 0
        assert compared == []
        with farm.tree("c", writable=True) as tree:
            # From now on it may have changed, whatever becomes of the writer.
            assert list(farm.changes("c")) == []
            assert len(compared) == 1
            tree.write_bytes("g", b"new")
        assert [change.path for change in farm.changes("c")] == ["", "g"]
        farm.fork("c", "d")
        assert [change.path for change in farm.changes("d")] == ["", "g"]


def test_a_container_gets_a_tree_when_it_is_opened_for_writing(
    farm: HardlinkFarm, tmp_path: Path
) -> None:
    seal(farm, "l1", f=b"1")
    seal(farm, "l2", g=b"2")
    before = farm.disk_usage()
    farm.prepare("c1", "l1")
    farm.fork("c1", "c2")
    farm.prepare("other", "l2")
    assert sorted(os.listdir(tmp_path / "containers/c1")) == ["item.json", "untouched"]
    assert sorted(os.listdir(tmp_path / "containers/c2")) == ["item.json", "untouched"]
    reader = farm.tree("c1")
    assert reader.read_bytes("f") == b"1"
    assert farm.usage("c1").apparent == 0
    assert list(farm.verify("c1", deep=True)) == []
    assert farm.disk_usage() - before < 64 << 10
    with farm.tree("c1", writable=True) as tree:
        tree.write_bytes("f", b"new")
    assert {"item.json", "rootfs"} <= (there := set(os.listdir(tmp_path / "containers/c1")))
    assert "untouched" not in there
    assert reader.read_bytes("f") == b"1", "it shows what it showed when it was opened"
    reader.close()
    assert farm.tree("c1").read_bytes("f") == b"new"
    assert farm.tree("c2").read_bytes("f") == b"1"
    assert farm.tree("l1").read_bytes("f") == b"1"
    with pytest.raises(InUseError):
        farm.remove("l1")
    farm.remove("c1")
    with pytest.raises(InUseError):
        farm.remove("l1")
    farm.remove("c2")
    farm.remove("l1")
    assert [item.id for item in farm.items()] == ["l2", "other"]


@pytest.mark.parametrize("step", ["sidecar.db", "rootfs", "untouched"])
def test_a_kill_while_a_container_gets_its_tree_loses_nothing(
    farm: HardlinkFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with farm.stage(None) as stage:
        stage.add(Entry(path="f", kind=Kind.FILE, mode=0o644, size=1), io.BytesIO(b"1"))
        stage.add(Entry(path="g", kind=Kind.HARDLINK, target="f"))  # which takes a sidecar
        stage.seal("l1")
    farm.prepare("c", "l1")
    child = os.fork()
    if child == 0:
        for name in ("rename", "unlink"):
            really = getattr(os, name)

            def killed(path: str, *rest: str, really: Callable[..., None] = really) -> None:
                really(path, *rest)
                if str(path).endswith(f"/{step}"):
                    os._exit(9)

            monkeypatch.setattr(os, name, killed)
        farm.tree("c", writable=True)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    farm.recover()
    assert list(farm.verify("c", deep=True)) == []
    assert list(farm.changes("c")) == []
    assert farm.tree("c").read_bytes("g") == b"1"
    with farm.tree("c", writable=True) as tree:
        assert tree.stat("f").links == 2
        tree.write_bytes("g", b"2")
    assert farm.tree("c").read_bytes("f") == b"2"
    assert [change.path for change in farm.changes("c")] == ["f", "g"]
    assert list(farm.verify("c", deep=True)) == []
    assert os.listdir(tmp_path / "staging") == []


def test_writers_that_come_at_once_get_one_tree(farm: HardlinkFarm, tmp_path: Path) -> None:
    seal(farm, "l1", **{f"f{number}": b"%d" % number for number in range(200)})
    farm.prepare("c", "l1")
    children: list[int] = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            with HardlinkFarm(tmp_path) as own, own.tree("c", writable=True) as tree:
                tree.write_bytes(f"new-{number}", b"new")
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [change.path for change in farm.changes("c")] == [
        "",
        *(f"new-{number}" for number in range(8)),
    ]


def test_removing_waits_for_a_tree_that_is_being_made(
    farm: HardlinkFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(farm, "l1", f=b"1")
    seal(farm, "l2", g=b"2")
    farm.prepare("c", "l1")
    laid = threading.Event()
    really = HardlinkFarm.lay

    def lay(self: HardlinkFarm, home: str, parent: str | None) -> None:
        really(self, home, parent)
        laid.set()
        time.sleep(0.1)

    monkeypatch.setattr(HardlinkFarm, "lay", lay)
    opened: list[object] = []

    def write() -> None:
        with suppress(NotFoundError, FileNotFoundError), farm.tree("c", writable=True) as tree:
            opened.append(tree)

    writer = threading.Thread(target=write)
    writer.start()
    assert laid.wait(60)
    with HardlinkFarm(tmp_path) as other:
        other.remove("c")
        other.prepare("c", "l2")
        assert sorted(os.listdir(tmp_path / "containers/c")) == ["item.json", "untouched"]
        assert other.tree("c").read_bytes("g") == b"2"
    writer.join()
    assert list(farm.verify("c", deep=True)) == []
    assert os.listdir(tmp_path / "trash") == os.listdir(tmp_path / "staging") == []


def test_a_tree_that_went_is_found_missing(farm: HardlinkFarm, tmp_path: Path) -> None:
    seal(farm, "l1", f=b"1")
    own_tree(farm, "c", "l1")
    shutil.rmtree(tmp_path / "containers/c/rootfs")
    assert [problem.what for problem in farm.verify("c")] == ["its directory rootfs is missing"]
