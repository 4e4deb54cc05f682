"""chunk-dedup: sudden death at each step, and several processes at once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cowshed.entry import Entry, Kind
from cowshed.errors import InUseError, NoSpaceError, NotFoundError
from cowshed_drivers.chunk_dedup import collect as collect_module
from cowshed_drivers.chunk_dedup import stage as stage_module
from cowshed_drivers.chunk_dedup import tree as tree_module
from cowshed_drivers.chunk_dedup import writer as writer_module
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.ledger import Ledger
from cowshed_drivers.chunk_dedup.options import Options
from cowshed_drivers.chunk_dedup.store import Store
from cowshed_drivers.chunk_dedup.writer import Writer

# Forked, so that a patch made in the test holds in the child; no environment is open by then.
_context = multiprocessing.get_context("fork")


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir(mode=0o700)
    return tmp_path / "d"


def open_driver(root: Path) -> ChunkDedup:
    return ChunkDedup(root, Options(pack_size=64 << 10, window_size=64 << 10))


def files_of(number: int) -> dict[str, bytes]:
    return {f"f{n}": noise(8000 + n, number * 100 + n) for n in range(30)}


def seal(driver: ChunkDedup, id: str, files: dict[str, bytes], parent: str | None) -> None:
    with driver.stage(parent) as stage:
        for path, data in files.items():
            entry = Entry(path=path, kind=Kind.FILE, mode=0o644, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(id)


def contents(driver: ChunkDedup, id: str) -> dict[str, bytes]:
    with driver.tree(id) as tree:
        return {
            entry.path: tree.read_bytes(entry.path)
            for entry in tree.walk()
            if entry.kind is Kind.FILE
        }


def assert_sound(root: Path, driver: ChunkDedup) -> None:
    for item in driver.items():
        assert list(driver.verify(item.id, deep=True)) == []
    index = driver._store.index
    with index.read() as txn, txn.cursor(db=index.packs) as cursor:
        known = {f"{int.from_bytes(name, 'big'):016x}" for name, _ in cursor}
    assert {path.name for path in (root / "packs").iterdir()} == known
    assert list((root / "staging").iterdir()) == []


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(work: Callable[..., None], *arguments: object) -> int:
    process = _context.Process(target=work, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def stage_all(root: Path) -> None:
    with open_driver(root) as driver:
        seal(driver, key("new"), files_of(2), key("base"))


def write_all(root: Path) -> None:
    with open_driver(root) as driver, driver.tree(key("c"), writable=True) as tree:
        for path, data in files_of(2).items():
            tree.write_bytes(path, data)


def collect_all(root: Path) -> None:
    with open_driver(root) as driver:
        driver.collect()


STEPS = {
    "writing a group": (Writer, "_store_group"),
    "noting the root": (Writer, "note"),
    "syncing a pack": (writer_module, "sync_and_close"),
    "publishing": (Writer, "publish"),
    "syncing the directory": (writer_module, "sync_directory"),
    "inside the transaction": (Ledger, "settle"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("work", [stage_all, write_all], ids=["seal", "commit"])
def test_a_kill_before_the_commit_leaves_the_state_before(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, work: Callable[[Path], None]
) -> None:
    with open_driver(root) as driver:
        seal(driver, key("base"), files_of(1), None)
        driver.prepare(key("c"), key("base"))
    owner, name = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        assert run(work, root) == -signal.SIGKILL
    with open_driver(root) as driver:
        driver.recover()
        assert {item.id for item in driver.items()} == {key("base"), key("c")}
        assert contents(driver, key("c")) == files_of(1)
        assert list(driver.changes(key("c"))) == []
        assert_sound(root, driver)
    work(root)
    with open_driver(root) as driver:
        assert contents(driver, key("new" if work is stage_all else "c")) == files_of(2)
        assert_sound(root, driver)


@pytest.mark.parametrize("work", [stage_all, write_all], ids=["seal", "commit"])
def test_a_kill_after_the_commit_leaves_the_state_after(
    root: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path], None]
) -> None:
    with open_driver(root) as driver:
        seal(driver, key("base"), files_of(1), None)
        driver.prepare(key("c"), key("base"))
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "sweep", die)
        patch.setattr(tree_module, "sweep", die)
        assert run(work, root) == -signal.SIGKILL
    with open_driver(root) as driver:
        assert contents(driver, key("new" if work is stage_all else "c")) == files_of(2)
        driver.recover()
        assert contents(driver, key("new" if work is stage_all else "c")) == files_of(2)
        assert_sound(root, driver)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Writer, "publish"),
        (writer_module, "sync_directory"),
        (collect_module, "_move"),
        (collect_module, "_delete"),
        (Store, "forget"),
    ],
    ids=["copied", "published", "moving", "moved", "deleted"],
)
def test_a_kill_during_collect_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    keep = dict(list(files_of(1).items())[::4])
    with open_driver(root) as driver:
        seal(driver, key("whole"), files_of(1), None)
        seal(driver, key("part"), keep, None)
        monkeypatch.setattr(collect_module, "sweep", lambda store: 0)
        monkeypatch.setattr("cowshed_drivers.chunk_dedup.driver.sweep", lambda store: 0)
        driver.remove(key("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        assert run(collect_all, root) == -signal.SIGKILL
    monkeypatch.undo()
    with open_driver(root) as driver:
        driver.recover()
        assert contents(driver, key("part")) == keep
        assert_sound(root, driver)
        driver.collect()
        assert contents(driver, key("part")) == keep
        assert_sound(root, driver)


def test_a_full_disk_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_driver(root) as driver:
        seal(driver, key("base"), files_of(1), None)
        driver.prepare(key("c"), key("base"))
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "sync_and_close", full)
            with pytest.raises(NoSpaceError):
                seal(driver, key("new"), files_of(2), key("base"))
            tree = driver.tree(key("c"), writable=True)
            with pytest.raises(NoSpaceError):
                for path, data in files_of(3).items():
                    tree.write_bytes(path, data)
                tree.sync()
            with pytest.raises(NoSpaceError):
                tree.write_bytes("f1", b"again" * 100)
                tree.close()
        driver.recover()
        assert contents(driver, key("c")) == files_of(1)
        assert {item.id for item in driver.items()} == {key("base"), key("c")}
        assert_sound(root, driver)


# -- several processes ---------------------------------------------------------------------------


def stage_and_remove(root: Path, number: int) -> None:
    with open_driver(root) as driver:
        for turn in range(6):
            common, own = key(f"common{turn}"), key(f"own{number}-{turn}")
            seal(driver, common, files_of(turn), key("base"))
            seal(driver, own, {**files_of(turn), "own": noise(9000, number)}, key("base"))
            container = key(f"c{number}-{turn}")
            driver.prepare(container, own)
            with driver.tree(container, writable=True) as tree:
                tree.write_bytes("f3", noise(5000, turn))
                tree.sync()
                tree.unlink("f4")
            driver.fork(container, key(f"fork{number}-{turn}"))
            expected = {**files_of(turn), "own": noise(9000, number), "f3": noise(5000, turn)}
            del expected["f4"]
            assert contents(driver, container) == expected
            driver.remove(container)
            assert contents(driver, key(f"fork{number}-{turn}")) == expected
            if turn % 2:
                driver.remove_many([key(f"fork{number}-{turn}"), own])
                with contextlib.suppress(InUseError, NotFoundError):
                    driver.remove(common)
            else:
                assert contents(driver, own)["own"] == noise(9000, number)


def collect_until_told(root: Path, done: str) -> None:
    with open_driver(root) as driver:
        while not Path(done).exists():
            driver.collect()
            driver.recover()


def test_staging_goes_on_while_others_remove_and_collect(root: Path, tmp_path: Path) -> None:
    with open_driver(root) as driver:
        seal(driver, key("base"), files_of(99), None)
    done = tmp_path / "done"
    collector = _context.Process(target=collect_until_told, args=(root, str(done)))
    stagers = [
        _context.Process(target=stage_and_remove, args=(root, number)) for number in range(3)
    ]
    for process in (collector, *stagers):
        process.start()
    for process in stagers:
        process.join(300)
    done.touch()
    collector.join(60)
    assert [process.exitcode for process in (*stagers, collector)] == [0, 0, 0, 0]
    with open_driver(root) as driver:
        driver.recover()
        driver.collect()
        for number in range(3):
            for turn in (0, 2, 4):
                found = contents(driver, key(f"own{number}-{turn}"))
                assert found == {**files_of(turn), **found, "own": noise(9000, number)}
        assert_sound(root, driver)


def test_a_driver_opened_before_a_fork_works_on_both_sides(root: Path) -> None:
    def child() -> None:
        seal(driver, key("child"), files_of(2), key("base"))
        assert contents(driver, key("child")) == files_of(2)

    with open_driver(root) as driver:
        seal(driver, key("base"), files_of(1), None)
        assert run(child) == 0
        # A slot of the reader table that the child took for its own would show here.
        for _ in range(3):
            assert contents(driver, key("base")) == files_of(1)
        seal(driver, key("parent"), files_of(3), key("base"))
        assert contents(driver, key("child")) == files_of(2)
        assert_sound(root, driver)
