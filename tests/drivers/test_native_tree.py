"""NativeTree and NativeStage on the disk itself: what the kit can't see through the interface."""

from __future__ import annotations

import io
import os
import sqlite3
import stat as stat_module
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.driver import Stage
from cowshed.entry import Entry, Kind
from cowshed.errors import BusyError, InUseError
from cowshed.native import spooled
from cowshed.native.directories import Directories
from cowshed.native.hosting import Hosting, open_hosting
from cowshed.native.removal import remove_directory
from cowshed.native.sidecar import Record, Sidecar
from cowshed.native.spooled import Spooled
from cowshed_drivers.naive_copy.driver import NaiveCopy


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[NaiveCopy]:
    with NaiveCopy(tmp_path) as driver:
        driver.durable = False
        yield driver


def add_file(stage: Stage, path: str, data: bytes = b"x", **fields: int) -> None:
    entry = Entry(
        path=path, kind=Kind.FILE, size=len(data), mode=fields.pop("mode", 0o644), **fields
    )
    stage.add(entry, io.BytesIO(data))  # type: ignore[attr-defined]


def test_a_link_in_the_middle_of_a_path_is_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not yours")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    directories = Directories(str(tree))
    with pytest.raises(NotADirectoryError):
        directories.at("link/secret")
    for path in ("..", "../outside/secret", "link/..", "a//b", "."):
        with pytest.raises(OSError):
            directories.fd(path)
    directories.close()


def test_a_container_that_swaps_a_directory_for_a_link_reaches_nothing(
    driver: NaiveCopy, tmp_path: Path
) -> None:
    target = tmp_path / "host"
    target.mkdir()
    driver.prepare("c1", None)
    with driver.tree("c1", writable=True) as tree:
        tree.mkdir("etc")
        assert tree.path is not None
        os.rmdir(os.path.join(tree.path, "etc"))
        os.symlink(target, os.path.join(tree.path, "etc"))
    with driver.tree("c1", writable=True) as tree:
        with pytest.raises(NotADirectoryError):
            tree.write_bytes("etc/passwd", b"root::0:0")
        with pytest.raises(OSError):
            tree.chmod("etc", 0o777)
    assert list(target.iterdir()) == []


def test_the_umask_does_not_matter(driver: NaiveCopy) -> None:
    # SQLite can't open again what an ordinary user's umask of 0777 made of its files.
    before = os.umask(0o777 if os.geteuid() == 0 else 0o077)
    try:
        with driver.stage(None) as stage:
            stage.add(Entry(path="d", kind=Kind.DIRECTORY, mode=0o775))
            add_file(stage, "d/f", mode=0o666)
            stage.seal("l1")
        driver.prepare("c1", "l1")
        with driver.tree("c1", writable=True) as tree:
            tree.mkdir("d/new", 0o777)
            tree.write_bytes("d/new/f", b"")
            assert [entry.mode for entry in tree.walk()] == [0o755, 0o775, 0o666, 0o777, 0o644]
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a privileged store holds it all natively")
def test_a_privileged_store_needs_no_sidecar(driver: NaiveCopy, tmp_path: Path) -> None:
    with driver.stage(None) as stage:
        add_file(stage, "f", mode=0o4751, uid=7, gid=9)
        stage.add(Entry(path="d", kind=Kind.DIRECTORY, mode=0, uid=3))
        stage.add(Entry(path="s", kind=Kind.SYMLINK, mode=0o777, target="f", gid=5))
        stage.seal("l1")
    assert not (tmp_path / "layers/l1/sidecar.db").exists()
    status = (tmp_path / "layers/l1/rootfs/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o4751, 7, 9)


def test_a_users_store_needs_no_record_for_what_belongs_to_root() -> None:
    hosting = Hosting((1000, 1000))
    assert hosting.shown_ids(1000, 1000) == (0, 0)
    assert hosting.native_ids(0, 0) == hosting.native_ids(33, 33) == (1000, 1000)
    assert hosting.native_mode(Kind.FILE, 0o444) == 0o644
    assert hosting.native_mode(Kind.DIRECTORY, 0) == 0o700


def test_a_stores_rule_outlives_whoever_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    path.write_text('{"format": 1, "owner": [1000, 100]}')
    assert open_hosting(str(path), "x") == Hosting((1000, 100))


def test_records_follow_renames_of_directories_and_names_that_sort_between(tmp_path: Path) -> None:
    sidecar = Sidecar(str(tmp_path / "s.db"), "live")
    for path in ("a/f", "a/b/f", "a.b/f", "a0/f", "ab"):
        sidecar.put(path, Record(uid=5))
    sidecar.move("a", "z")
    kept = {p for p in ("z/f", "z/b/f", "a.b/f", "a0/f", "ab", "a/f", "a/b/f") if sidecar.get(p)}
    assert kept == {"z/f", "z/b/f", "a.b/f", "a0/f", "ab"}
    sidecar.close()


def test_a_sidecar_left_by_a_killed_process_is_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    child = os.fork()
    if child == 0:
        Sidecar(path, "live").put("f", Record(uid=5))
        os._exit(9)
    os.waitpid(child, 0)
    sidecar = Sidecar(path, "live")
    record = sidecar.get("f")
    assert record is not None and record.uid == 5
    assert sidecar.problems() == []
    sidecar.close()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_directories_deeper_than_descriptors_last_are_removed(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    here = os.open(tmp_path / "top", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_directory(str(tmp_path), "top")
    assert list(tmp_path.iterdir()) == []


def test_recover_sweeps_dead_stages_and_leaves_live_ones(driver: NaiveCopy, tmp_path: Path) -> None:
    (tmp_path / "staging/dead").mkdir()
    (tmp_path / "trash/old/deep").mkdir(parents=True)
    with driver.stage(None) as stage:
        add_file(stage, "f")
        driver.recover()
        assert len(list((tmp_path / "staging").iterdir())) == 1
        assert not list((tmp_path / "trash").iterdir())
        stage.seal("l1")
    assert not list((tmp_path / "staging").iterdir())
    assert driver.tree("l1").read_bytes("f") == b"x"


def test_a_parent_being_built_on_can_not_be_removed(driver: NaiveCopy) -> None:
    with driver.stage(None) as stage:
        stage.seal("l1")
    with driver.stage("l1") as stage:
        with pytest.raises(BusyError):
            driver.remove("l1")
        stage.seal("l2")
    with pytest.raises(InUseError, match="layer l2"):
        driver.remove("l1")
    driver.remove("l2")
    driver.remove("l1")


def test_a_mark_without_its_child_holds_nothing_back(driver: NaiveCopy, tmp_path: Path) -> None:
    with driver.stage(None) as stage:
        stage.seal("l1")
    (tmp_path / "children/l1").mkdir()
    (tmp_path / "children/l1/never-made").touch()
    driver.remove("l1")


def test_a_store_copied_without_its_hard_links_knows_what_is_needed(tmp_path: Path) -> None:
    driver = NaiveCopy(tmp_path)
    with driver.stage(None) as stage:
        stage.seal("l1")
    driver.prepare("c1", "l1")
    item = tmp_path / "containers/c1/item.json"
    assert item.stat().st_nlink == 2
    copy = item.with_name("copy")
    copy.write_bytes(item.read_bytes())
    copy.rename(item)
    with pytest.raises(InUseError, match="container c1"):
        driver.remove("l1")
    driver.remove("c1")
    driver.remove("l1")
    assert not list(driver.items())


def test_a_container_whose_parent_nobody_knows_can_be_removed(
    driver: NaiveCopy, tmp_path: Path
) -> None:
    with driver.stage(None) as stage:
        stage.seal("l1")
    driver.prepare("c1", "l1")
    (tmp_path / "containers/c1/item.json").unlink()
    (tmp_path / "containers/c1/item.json").write_text("{}")
    with pytest.raises(InUseError, match="container c1, which is to be removed first"):
        driver.remove("l1")
    driver.remove("c1")
    driver.remove("l1")
    assert not list(driver.items())


def test_what_an_item_stands_on_is_never_taken_from_an_older_file(tmp_path: Path) -> None:
    """The file of one layer's containers may get the number that another's had."""
    driver = NaiveCopy(tmp_path)
    driver.durable = False
    for turn in range(50):
        layer = f"l{turn}"
        with driver.stage(None) as stage:
            stage.seal(layer)
        driver.prepare("c", layer)
        assert [item.parent for item in driver.items() if item.id == "c"] == [layer]
        driver.remove("c")
        driver.remove(layer)


def test_zeros_become_holes_and_holes_stay(driver: NaiveCopy) -> None:
    data = b"a" * 4096 + bytes(8 << 20) + b"z" + bytes(1 << 20)
    with driver.stage(None) as stage:
        add_file(stage, "sparse", data)
        stage.seal("l1")
    driver.prepare("c1", "l1")
    for id in ("l1", "c1"):
        with driver.tree(id) as tree:
            assert tree.read_bytes("sparse") == data
            assert tree.path is not None
            assert os.stat(os.path.join(tree.path, "sparse")).st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("form", ["opaque", "whiteout", "replaced"])
def test_a_directory_of_many_names_is_removed(
    driver: NaiveCopy, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Of which a few are in memory."""
    monkeypatch.setattr(spooled, "_NEAR", 64)
    names = [f"d/name\n{number}" for number in range(50)] + ["d/\udcff\udcfe" + "n" * 100]
    with driver.stage(None) as stage:
        for path in ("d", "d/sub", "d/sub/sub"):
            stage.add(Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, mtime_ns=5))
        for name in names:
            add_file(stage, name)
            add_file(stage, name.replace("d/", "d/sub/sub/"))
        add_file(stage, "keep")
        stage.seal("l1")
    with driver.stage("l1") as stage:
        match form:
            case "opaque":
                stage.add(Entry(path="d", kind=Kind.OPAQUE))
            case "whiteout":
                stage.add(Entry(path="d", kind=Kind.WHITEOUT))
            case _:
                add_file(stage, "d")
        stage.seal("l2")
    with driver.tree("l2") as tree:
        left = [(entry.path, entry.kind) for entry in tree.walk("")]
        expected: dict[str, list[tuple[str, Kind]]] = {
            "opaque": [("d", Kind.DIRECTORY)],
            "whiteout": [],
            "replaced": [("d", Kind.FILE)],
        }
        assert left[1:] == [*expected[form], ("keep", Kind.FILE)]
        assert form != "opaque" or tree.stat("d").mtime_ns == 5
    with driver.tree("l1") as tree:
        assert sorted(tree.listdir("d")) == sorted(["sub", *(name[2:] for name in names)])


def test_deep_trees_are_removed_with_few_descriptors(
    driver: NaiveCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled, "_NEAR", 8)
    with driver.stage(None) as stage:
        path = "d"
        for _ in range(300):
            stage.add(Entry(path=path, kind=Kind.DIRECTORY, mode=0o755))
            add_file(stage, f"{path}/a-file")
            path += "/d"
        stage.seal("l1")
    most = 0
    really = Spooled.append

    def append(self: Spooled, text: str) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        really(self, text)

    with driver.stage("l1") as stage:
        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(Spooled, "append", append)
        stage.add(Entry(path="d", kind=Kind.WHITEOUT))
        stage.seal("l2")
    assert before <= most < before + 100, "the directories that are kept open, no file a level"
    with driver.tree("l2") as tree:
        assert list(tree.listdir("")) == []


def test_listing_a_directory_leaves_other_listings_of_it_alone(driver: NaiveCopy) -> None:
    with driver.stage(None) as stage:
        for number in range(3000):
            add_file(stage, f"f{number:04d}")
        stage.seal("l1")
    with driver.tree("l1") as tree:
        names = tree.listdir("")
        some = {next(names)}
        assert len(list(tree.scandir(""))) == 3000
        some |= {next(names), *tree.listdir("")}
        assert len({*some, *names}) == 3000


def test_sockets_are_not_listed(driver: NaiveCopy) -> None:
    driver.prepare("c1", None)
    with driver.tree("c1", writable=True) as tree:
        tree.mknod("fifo", stat_module.S_IFIFO | 0o600)
        assert tree.path is not None
        os.mknod(os.path.join(tree.path, "socket"), stat_module.S_IFSOCK | 0o600)
    with driver.tree("c1") as tree:
        assert list(tree.listdir("")) == ["fifo"]
