"""chunk-dedup: what it stores, what it costs and what it does about damage; counts, not timings."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.driver import ChangeKind
from cowshed.entry import Entry, Kind
from cowshed.errors import CorruptError, NotFoundError
from cowshed_drivers.chunk_dedup import index as index_module
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.options import Options

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
    with ChunkDedup(root, Options()) as opened:
        yield opened


def seal(driver: ChunkDedup, name: str, files: dict[str, bytes], parent: str | None = None) -> str:
    directories: set[str] = set()
    with driver.stage(parent) as stage:
        for path, data in files.items():
            above = path.rpartition("/")[0]
            if above and above not in directories:
                directories.add(above)
                stage.add(Entry(path=above, kind=Kind.DIRECTORY, mode=0o755))
            entry = Entry(path=path, kind=Kind.FILE, mode=0o644, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(key(name))
    return key(name)


def packs(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (root / "packs").iterdir()}


def live_and_dead(driver: ChunkDedup) -> int:
    """Return the bytes in packs that the index holds to be live."""
    index = driver._store.index
    with index.read() as txn, txn.cursor(db=index.packs) as cursor:
        return sum(index_module.PACK.unpack(row)[1] for _, row in cursor)


def sound(driver: ChunkDedup) -> None:
    for item in driver.items():
        assert list(driver.verify(item.id, deep=True)) == []


# -- what is stored ------------------------------------------------------------------------------


def test_a_one_byte_write_to_a_large_file_stores_one_chunk(driver: ChunkDedup, root: Path) -> None:
    data = noise(40 * MIB)
    layer = seal(driver, "layer", {"d/large": data, **{f"d/{n}": b"%d" % n for n in range(200)}})
    driver.prepare(key("c"), layer)
    before = packs(root)
    with driver.tree(key("c"), writable=True) as tree, tree.open("d/large", "r+b") as file:
        file.seek(20 * MIB)
        file.write(b"!")
    new = [size for name, size in packs(root).items() if name not in before]
    assert len(new) == 1
    assert new[0] <= 192 * KIB
    with driver.tree(key("c")) as tree:
        changed = data[: 20 * MIB] + b"!" + data[20 * MIB + 1 :]
        assert tree.read_bytes("d/large") == changed
    with driver.tree(layer) as tree:
        assert tree.read_bytes("d/large") == data
    sound(driver)


def test_a_write_in_a_directory_of_thousands_stores_one_page(
    driver: ChunkDedup, root: Path
) -> None:
    layer = seal(driver, "layer", {f"d/file-{n}": noise(200, n) for n in range(5000)})
    driver.prepare(key("c"), layer)
    before = packs(root)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("d/file-17", b"new")
    (new,) = [size for name, size in packs(root).items() if name not in before]
    assert new < 40 * KIB
    found = [change.path for change in driver.changes(key("c"))]
    assert found == ["d", "d/file-17"]


def test_equal_directories_have_equal_digests_whatever_their_history(driver: ChunkDedup) -> None:
    files = {f"d/{n}": b"%d" % n for n in range(700)}
    one = seal(driver, "one", files)
    driver.prepare(key("c"), None)
    with driver.tree(key("c"), writable=True) as tree:
        tree.mkdir("d")
        for number in reversed(range(900)):
            tree.write_bytes(f"d/{number}", b"%d" % number)
        for number in range(700, 900):
            tree.unlink(f"d/{number}")
        for number in range(700):
            tree.utime(f"d/{number}", 0)
        tree.utime("d", 0)
        tree.utime("", 0)
    with driver._store.index.read() as txn:
        roots = [driver._store.index.find(txn, id)[1].root for id in (one, key("c"))]
    assert roots[0] == roots[1]
    sound(driver)


def test_a_file_appended_to_in_steps_is_cut_like_one_written_whole(
    driver: ChunkDedup,
) -> None:
    data = noise(3 * MIB, 5)
    seal(driver, "layer", {"log": data})
    driver.prepare(key("c"), None)
    for start in range(0, len(data), 100_000):
        with driver.tree(key("c"), writable=True) as tree, tree.open("log", "ab") as file:
            file.write(data[start : start + 100_000])
    with driver.tree(key("c"), writable=True) as tree:
        tree.utime("log", 0)
        tree.utime("", 0)
    driver.collect()
    assert driver.usage(key("c")).exclusive < 8 * KIB


def test_a_second_version_costs_what_changed(driver: ChunkDedup, root: Path) -> None:
    files = {f"lib/{n}.py": noise(3000, n) for n in range(300)}
    seal(driver, "one", files)
    before = sum(packs(root).values())
    files["lib/7.py"] = noise(3000, 1000)
    seal(driver, "two", files)
    assert sum(packs(root).values()) - before < 60 * KIB
    sound(driver)


def test_a_hole_is_not_stored(driver: ChunkDedup, root: Path) -> None:
    driver.prepare(key("c"), None)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("f", b"start")
        tree.truncate("f", 10 << 30)
        with tree.open("f", "r+b") as file:
            file.seek(5 << 30)
            file.write(b"middle")
    assert sum(packs(root).values()) < 8 * KIB
    with driver.tree(key("c")) as tree, tree.open("f") as file:
        assert file.read(5) == b"start"
        file.seek((5 << 30) - 3)
        assert file.read(12) == b"\0\0\0middle\0\0\0"
        assert file.seek(0, os.SEEK_END) == 10 << 30
    seal(driver, "zeros", {"z": bytes(5 * MIB) + b"x" + bytes(5 * MIB)})
    assert driver.usage(key("zeros")).exclusive < 4 * KIB


def test_preparing_is_one_commit_and_one_small_row(driver: ChunkDedup, root: Path) -> None:
    layer = seal(driver, "layer", {"f": b"x"})
    index = driver._store.index

    def commits() -> int:
        with index.read() as txn:
            return txn.id()

    before, stored = commits(), packs(root)
    driver.prepare(key("c"), layer)
    assert commits() - before == 1
    many = [key(f"m{n}") for n in range(2000)]
    size = (root / "index" / "data.mdb").stat().st_size
    driver.prepare_many(many, layer)
    assert commits() - before == 2
    assert (root / "index" / "data.mdb").stat().st_size - size < 400 * len(many)
    driver.remove_many(many)
    assert commits() - before == 3
    assert packs(root) == stored


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_writes_reads_back(driver: ChunkDedup, seed: int) -> None:
    choose = random.Random(seed)
    driver.prepare(key("c"), None)
    model = bytearray()
    for _ in range(6):
        with driver.tree(key("c"), writable=True) as tree:
            with tree.open("f", "r+b" if tree.exists("f") else "wb") as file:
                for _ in range(8):
                    at = choose.randrange(len(model) + 300_000)
                    size = choose.choice((1, 5000, 140_000, 1_300_000))
                    data = choose.choice((bytes(size), choose.randbytes(size)))
                    file.seek(at)
                    file.write(data)
                    model.extend(bytes(max(0, at - len(model))))
                    model[at : at + size] = data
                    if choose.random() < 0.2:
                        file.flush()
                        tree.sync()
            cut = choose.randrange(len(model) + 200_000)
            tree.truncate("f", cut)
            del model[cut:]
            model.extend(bytes(cut - len(model)))
        with driver.tree(key("c")) as tree:
            assert tree.read_bytes("f") == bytes(model)
            assert tree.stat("f").size == len(model)
    sound(driver)
    driver.collect()
    with driver.tree(key("c")) as tree:
        assert tree.read_bytes("f") == bytes(model)


def test_a_file_open_during_a_sync_keeps_what_it_wrote(driver: ChunkDedup) -> None:
    driver.prepare(key("c"), None)
    data = noise(5 * MIB, 3)
    with driver.tree(key("c"), writable=True) as tree:
        file = tree.open("f", "wb")
        file.write(data[: 4 * MIB])
        tree.mkdir("d")
        tree.sync()
        driver.collect()
        driver.recover()
        file.write(data[4 * MIB :])
        file.close()
    with driver.tree(key("c")) as tree:
        assert tree.read_bytes("f") == data
    sound(driver)


def test_a_sync_without_changes_keeps_what_an_open_file_wrote(driver: ChunkDedup) -> None:
    driver.prepare(key("c"), None)
    data = noise(3 * MIB, 4)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("f", b"old")
        tree.sync()
        mode = tree.stat("f").mode
        file = tree.open("f", "r+b")
        file.write(data)
        tree.chmod("f", 0o600)
        tree.chmod("f", mode)
        tree.sync()
        file.close()
        assert tree.read_bytes("f") == data
    with driver.tree(key("c")) as tree:
        assert tree.read_bytes("f") == data


# -- accounts ------------------------------------------------------------------------------------


def test_exclusive_bytes_are_those_that_live_no_more_after_removal(driver: ChunkDedup) -> None:
    shared = {f"s/{n}": noise(5000, n) for n in range(50)}
    own = {name: {f"{name}/{n}": noise(7000, hash((name, n))) for n in range(20)} for name in "ab"}
    twice = {"b/copy1": noise(9000, 77), "b/copy2": noise(9000, 77)}
    one = seal(driver, "one", {**shared, **own["a"]})
    two = seal(driver, "two", {**shared, **own["b"], **twice})
    driver.prepare(key("c"), one)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("copy", own["b"]["b/3"])
        tree.write_bytes("mine", noise(30_000, 99))
        tree.remove_tree("s")
    driver.fork(key("c"), key("fork"))
    with driver.tree(key("fork"), writable=True) as tree:
        tree.write_bytes("mine", noise(30_000, 98))
        tree.unlink("copy")
    for id in (two, key("c"), key("fork"), one):
        expected = driver.usage(id).exclusive
        before = live_and_dead(driver)
        driver.remove(id)
        assert before - live_and_dead(driver) == expected, id
        sound(driver)
    assert live_and_dead(driver) == 0


def test_random_lives_keep_exact_accounts(driver: ChunkDedup) -> None:
    choose = random.Random(4)
    layer = seal(driver, "base", {f"d/{n}": noise(2000, n) for n in range(40)})
    alive = ["0"]
    driver.prepare(key("0"), layer)
    for step in range(1, 60):
        id = choose.choice(alive)
        action = choose.random()
        if action < 0.5:
            with driver.tree(key(id), writable=True) as tree:
                for _ in range(choose.randrange(1, 6)):
                    path = f"d/{choose.randrange(60)}"
                    if choose.random() < 0.3 and tree.exists(path):
                        tree.unlink(path)
                    elif choose.random() < 0.2 and not tree.exists(f"l{step}"):
                        tree.write_bytes("target", noise(500, step))
                        tree.link("target", f"l{step}")
                    else:
                        tree.write_bytes(path, noise(2000, choose.randrange(60)))
        elif action < 0.8 or len(alive) == 1:
            driver.fork(key(id), key(str(step)))
            alive.append(str(step))
        else:
            expected = driver.usage(key(id)).exclusive
            before = live_and_dead(driver)
            driver.remove(key(id))
            alive.remove(id)
            assert before - live_and_dead(driver) == expected
        if step % 10 == 0:
            driver.collect()
            sound(driver)
    for id in alive:
        driver.remove(key(id))
    driver.remove(layer)
    assert live_and_dead(driver) == 0
    with driver._store.index.read() as txn:
        for database in ("owners", "edges", "items", "objects", "packs"):
            assert txn.stat(getattr(driver._store.index, database))["entries"] == 0, database


def test_removing_a_container_gives_its_packs_back_at_once(driver: ChunkDedup, root: Path) -> None:
    layer = seal(driver, "layer", {"f": noise(1000)})
    before = packs(root)
    driver.prepare(key("c"), layer)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("big", noise(3 * MIB))
    assert len(packs(root)) > len(before)
    driver.remove(key("c"))
    assert packs(root) == before


def test_collect_rewrites_packs_that_are_mostly_dead(driver: ChunkDedup, root: Path) -> None:
    keep = {f"k/{n}": noise(3000, n) for n in range(30)}
    one = seal(driver, "one", {**keep, **{f"x/{n}": noise(60_000, n + 100) for n in range(40)}})
    two = seal(driver, "two", keep)
    driver.remove(one)
    before = sum(packs(root).values())
    freed = driver.collect()
    assert freed == before - sum(packs(root).values())
    assert sum(packs(root).values()) < 160_000
    with driver.tree(two) as tree:
        assert all(tree.read_bytes(path) == data for path, data in keep.items())
    sound(driver)
    assert driver.collect() == 0


# -- damage --------------------------------------------------------------------------------------


def damage(root: Path, driver: ChunkDedup, data: bytes) -> None:
    """Flip a byte in the frame that holds ``data``."""
    row = driver._store.index.lookup(hashlib.sha256(data).digest())
    assert row is not None
    pack, at, length = index_module.OBJECT.unpack(row)[:3]
    with (root / "packs" / f"{pack:016x}").open("r+b") as file:
        file.seek(at + length // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x55]))
    driver._store.forget_all()


def test_damage_is_named_localised_and_repaired(root: Path) -> None:
    options = Options(group_size=64 * KIB)
    files = {f"d/{n}": noise(50_000, n) for n in range(20)}
    with ChunkDedup(root, options) as driver:
        layer = seal(driver, "layer", files)
        driver.prepare(key("c"), layer)
        damage(root, driver, files["d/7"])
        with driver.tree(layer) as tree:
            with pytest.raises(CorruptError) as caught:
                tree.read_bytes("d/7")
            assert "d/7" in str(caught.value)
            assert layer in str(caught.value)
            assert tree.read_bytes("d/9") == files["d/9"]
        found = list(driver.verify(layer, deep=True))
        assert [problem.path for problem in found] == ["d/7"]
        assert [problem.path for problem in driver.verify(key("c"), deep=True)] == ["d/7"]
        assert list(driver.verify(layer)) == []
        assert not driver.repair(layer, "d/7", io.BytesIO(b"other"))
        assert driver.repair(layer, "d/7", io.BytesIO(files["d/7"]))
        sound(driver)
        with driver.tree(key("c")) as tree:
            assert tree.read_bytes("d/7") == files["d/7"]


def test_a_missing_pack_is_a_problem_of_its_paths(driver: ChunkDedup, root: Path) -> None:
    layer = seal(driver, "layer", {"f": noise(5000)})
    other = seal(driver, "other", {"g": noise(6000, 1)})
    driver.close()
    for path in (root / "packs").iterdir():
        if noise(5000)[:2000] in path.read_bytes():
            path.unlink()
    with ChunkDedup(root, Options()) as again:
        assert list(again.verify(layer))
        assert list(again.verify(other, deep=True)) == []
        again.remove(layer)
        assert [item.id for item in again.items()] == [other]


def test_the_index_is_rebuilt_from_packs_alone(driver: ChunkDedup, root: Path) -> None:
    one = seal(driver, "one", {f"d/{n}": noise(4000, n) for n in range(30)})
    two = seal(driver, "two", {"e": noise(500_000), "d/3": b"changed"}, one)
    driver.prepare(key("c"), two)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("own", noise(3000, 9))
    usage = {item.id: driver.usage(item.id).exclusive for item in driver.items()}
    changes = [(change.kind, change.path) for change in driver.changes(key("c"))]
    driver.close()
    (root / "index" / "data.mdb").unlink()
    with ChunkDedup(root, Options()) as again:
        assert set(again.rebuild()) == {one, two, key("c")}
        assert {item.id: again.usage(item.id).exclusive for item in again.items()} == usage
        assert [(change.kind, change.path) for change in again.changes(key("c"))] == changes
        sound(again)
        again.recover()
        with again.tree(two) as tree:
            assert tree.read_bytes("d/29") == noise(4000, 29)
            assert tree.read_bytes("d/3") == b"changed"


def test_removing_works_although_the_data_is_gone(driver: ChunkDedup, root: Path) -> None:
    layer = seal(driver, "layer", {"f": noise(5000)})
    driver.prepare(key("c"), layer)
    with driver.tree(key("c"), writable=True) as tree:
        tree.write_bytes("g", noise(5000, 1))
    driver._store.forget_all()
    for path in (root / "packs").iterdir():
        path.write_bytes(b"")
    driver.remove_many([key("c"), layer])
    assert list(driver.items()) == []
    with pytest.raises(NotFoundError):
        driver.tree(layer)
    seal(driver, "layer", {"f": noise(5000)})
    sound(driver)


def test_rewriting_the_same_bytes_is_no_change(driver: ChunkDedup) -> None:
    data = noise(2 * MIB, 8)
    layer = seal(driver, "layer", {"f": data})
    driver.prepare(key("c"), layer)
    with driver.tree(key("c"), writable=True) as tree:
        with tree.open("f", "r+b") as file:
            file.write(b"?" * 700_000)
        tree.sync()
        tree.truncate("f", 900_001)
        with tree.open("f", "ab") as file:
            file.write(data[900_001:])
        with tree.open("f", "r+b") as file:
            file.write(data[:700_000])
        tree.utime("f", 0)
    assert list(driver.changes(key("c"))) == []
    assert driver.usage(key("c")).apparent == 0
    with driver.tree(key("c"), writable=True) as tree:
        tree.utime("f", 1)
    assert [change.kind for change in driver.changes(key("c"))] == [ChangeKind.MODIFIED]
