"""chunk-dedup: full and failing disks in mid-write, and trees read while others write them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed.entry import Entry, Kind
from cowshed.errors import ConflictError, CorruptError, NoSpaceError
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.options import Options
from cowshed_drivers.chunk_dedup.pack import scan

KIB, MIB = 1 << 10, 1 << 20


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir(mode=0o700)
    return tmp_path / "d"


@pytest.fixture
def driver(root: Path) -> Iterator[ChunkDedup]:
    opened = open_driver(root)
    yield opened
    opened.close()


@pytest.fixture
def other(root: Path) -> Iterator[ChunkDedup]:
    opened = open_driver(root)
    yield opened
    opened.close()


def open_driver(root: Path) -> ChunkDedup:
    return ChunkDedup(root, Options(pack_size=256 * KIB, window_size=64 * KIB, group_size=64 * KIB))


def seal(driver: ChunkDedup, name: str, files: dict[str, bytes], parent: str | None = None) -> str:
    with driver.stage(parent) as stage:
        for path, data in files.items():
            entry = Entry(path=path, kind=Kind.FILE, mode=0o644, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(key(name))
    return key(name)


def contents(driver: ChunkDedup, id: str) -> dict[str, bytes]:
    with driver.tree(id) as tree:
        return {
            entry.path: tree.read_bytes(entry.path)
            for entry in tree.walk()
            if entry.kind is Kind.FILE
        }


def sound(driver: ChunkDedup) -> None:
    for item in driver.items():
        assert list(driver.verify(item.id, deep=True)) == []


class FullDisk:
    """Lets so many writes of packs through; of the next it takes half and then says ENOSPC."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pwrite: Callable[..., int] = os.pwrite
        self.room = 1 << 60
        monkeypatch.setattr("os.pwrite", self._write)

    def _write(self, descriptor: int, data: Any, offset: int) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._pwrite(descriptor, memoryview(data)[: self.room], offset)
        self.room -= taken
        return taken


# -- full disks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 5, 100, 70_000, 150_000])
def test_what_is_written_after_a_full_disk_had_room_again_is_whole(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    disk = FullDisk(monkeypatch)
    driver.prepare(key("c"), None)
    expected: dict[str, bytes] = {}
    with driver.tree(key("c"), writable=True) as tree:
        disk.room = room
        for number in range(40):
            data = noise(30_000 + number, number)
            try:
                tree.write_bytes(f"f{number}", data)
            except NoSpaceError:
                disk.room = 1 << 60
                tree.write_bytes(f"f{number}", data)
            expected[f"f{number}"] = data
    assert contents(driver, key("c")) == expected
    sound(driver)


@pytest.mark.parametrize("room", [0, 5, 100, 70_000, 150_000])
def test_a_sync_that_found_the_disk_full_can_be_tried_again(
    driver: ChunkDedup, root: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    disk = FullDisk(monkeypatch)
    driver.prepare(key("c"), None)
    files = {f"f{number}": noise(11_000, number) for number in range(15)}
    with driver.tree(key("c"), writable=True) as tree:
        try:
            disk.room = room
            for path, data in files.items():
                tree.write_bytes(path, data)
            with pytest.raises(NoSpaceError):
                tree.sync()
        except NoSpaceError:
            disk.room = 1 << 60
            for path, data in files.items():
                tree.write_bytes(path, data)
        disk.room = 1 << 60
        assert tree.read_bytes("f3") == files["f3"]
        tree.sync()
        assert contents(driver, key("c")) == files
    sound(driver)
    for pack in (root / "packs").iterdir():
        assert list(scan(str(pack)))


def test_a_pack_whose_sync_failed_never_counts(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    failures = [True]

    def fsync(descriptor: int) -> None:
        if failures:
            failures.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    driver.prepare(key("c"), None)
    tree = driver.tree(key("c"), writable=True)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            for number in range(100):
                tree.write_bytes(f"f{number}", noise(20_000, number))
            tree.sync()
    # The kernel reports a failed write-back once; what it lost stays lost.
    with pytest.raises(OSError, match="Input/output"):
        tree.sync()
    with pytest.raises(OSError, match="Input/output"):
        tree.close()
    assert contents(driver, key("c")) == {}


def test_an_unreadable_sector_is_a_problem_of_its_paths(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = seal(driver, "l", {"a": noise(5000, 1), "b": b"small"})
    driver._store.forget_all()
    list(driver.tree(layer).walk())

    def pread(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("os.pread", pread)
        problems = list(driver.verify(layer, deep=True))
    assert problems
    assert all("Input/output error" in problem.what for problem in problems)


# -- reading while others write ------------------------------------------------------------------


def rewrite(driver: ChunkDedup, container: str, files: dict[str, bytes]) -> None:
    with driver.tree(container, writable=True) as tree:
        for path, data in files.items():
            tree.write_bytes(path, data)
            tree.sync()
    driver.collect()
    driver._store.forget_all()


def test_an_open_file_is_read_to_its_end_whatever_is_committed(
    driver: ChunkDedup, other: ChunkDedup
) -> None:
    driver.prepare(key("c"), None)
    data = noise(3 * MIB)
    rewrite(driver, key("c"), {"big": data})
    with other.tree(key("c")) as tree:
        with tree.open("big") as file:
            start = file.read(100 * KIB)
            rewrite(driver, key("c"), {"big": b"other"})
            assert start + file.read() == data
        assert tree.read_bytes("big") == b"other"


def test_a_file_that_was_read_keeps_no_space(driver: ChunkDedup, root: Path) -> None:
    driver.prepare(key("c"), None)
    rewrite(driver, key("c"), {"big": noise(3 * MIB)})
    with driver.tree(key("c")) as tree:
        assert tree.read_bytes("big") == noise(3 * MIB)
    rewrite(driver, key("c"), {"big": b"other"})
    assert sum(pack.stat().st_size for pack in (root / "packs").iterdir()) < 4 * KIB


def test_changes_are_those_of_one_moment_whatever_is_committed(
    driver: ChunkDedup, other: ChunkDedup
) -> None:
    layer = seal(driver, "l", {})
    driver.prepare(key("c"), layer)
    with driver.tree(key("c"), writable=True) as tree:
        for directory in ("a", "b", "c"):
            tree.mkdir(directory)
            for number in range(300):
                tree.write_bytes(f"{directory}/{number:03}", noise(200, number))
    found = iter(other.changes(key("c")))
    seen = [next(found)]
    with driver.tree(key("c"), writable=True) as tree:
        for directory in ("a", "b", "c"):
            tree.remove_tree(directory)
    driver.collect()
    other._store.forget_all()
    seen += found
    assert len([change for change in seen if change.path]) == 903


def test_verify_finds_nothing_wrong_with_a_container_that_is_being_written(
    driver: ChunkDedup, other: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.prepare(key("c"), None)
    rewrite(driver, key("c"), {f"f{number}": noise(3000, number) for number in range(50)})
    lookup = other._store.index.lookup
    turn = iter(range(1000))

    def look(digest: bytes) -> bytes | None:
        if next(turn) == 20:
            rewrite(driver, key("c"), {f"f{number}": b"new" for number in range(50)})
        return lookup(digest)

    monkeypatch.setattr(other._store.index, "lookup", look)
    assert list(other.verify(key("c"), deep=True)) == []


def test_a_layer_whose_parent_was_replaced_meanwhile_is_not_sealed(driver: ChunkDedup) -> None:
    parent = seal(driver, "parent", {"a": noise(9000, 1)})
    with driver.stage(parent) as stage:
        stage.add(Entry(path="b", kind=Kind.FILE, size=1), io.BytesIO(b"b"))
        driver.remove(parent)
        seal(driver, "parent", {"a": noise(9000, 2)})
        with pytest.raises(ConflictError, match="parent"):
            stage.seal(key("child"))
    assert {item.id for item in driver.items()} == {parent}


def test_a_damaged_chunk_is_still_an_error_for_who_reads_it(driver: ChunkDedup, root: Path) -> None:
    driver.prepare(key("c"), None)
    rewrite(driver, key("c"), {"big": noise(MIB)})
    for pack in (root / "packs").iterdir():
        pack.unlink()
    with driver.tree(key("c")) as tree, pytest.raises(CorruptError):
        tree.read_bytes("big")
