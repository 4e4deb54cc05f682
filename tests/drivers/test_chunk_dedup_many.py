"""chunk-dedup's tables of very many rows: exact when they go to disk, and never all in memory."""

from __future__ import annotations

import errno
import io
import os
import random
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed.driver import ChangeKind
from cowshed.entry import Entry, Kind
from cowshed.sqlite import Connection
from cowshed_drivers.chunk_dedup import links, overlay, tally
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.folder import Folder
from cowshed_drivers.chunk_dedup.links import Seen, Table, differing
from cowshed_drivers.chunk_dedup.node import NO_DIGEST, digest_of
from cowshed_drivers.chunk_dedup.nodes import Nodes
from cowshed_drivers.chunk_dedup.relinks import Relinks
from cowshed_drivers.chunk_dedup.tally import Tally


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ChunkDedup]:
    with ChunkDedup(tmp_path) as driver:
        driver.durable = False
        yield driver


class Objects:
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def put(self, data: bytes) -> bytes:
        digest = digest_of(data)
        self.held[digest] = data
        return digest

    @property
    def nodes(self) -> Nodes:
        return Nodes(self.held.__getitem__)


def change(table: Table, model: dict[int, set[str]], chance: random.Random) -> None:
    number = chance.randrange(400)
    names = {f"d{chance.randrange(9)}/\udcff{n}" for n in chance.sample(range(2000), 3)}
    match chance.randrange(6):
        case 0:
            table.put(number, {"only/one"})
            model.pop(number, None)
        case 1 | 2 if number in model:
            name = f"d{chance.randrange(9)}/new-{chance.random()}"
            model[number].add(name)
            assert table.add(number, name) == len(model[number])
        case 3 if number in model:
            name = chance.choice(sorted(model[number]))
            model[number].remove(name)
            assert table.drop(number, name) == len(model[number])
            lose(table, model, number)
        case 4 if number in model:
            prefix = f"d{chance.randrange(9)}/"
            model[number] = {name for name in model[number] if not name.startswith(prefix)}
            assert table.drop_below(number, prefix) == len(model[number])
            lose(table, model, number)
        case _:
            table.put(number, names)
            model[number] = set(names)


def lose(table: Table, model: dict[int, set[str]], number: int) -> None:
    if len(model[number]) < 2:
        table.put(number, model.pop(number))


@pytest.mark.parametrize("looks", [8, 0], ids=["looked through", "indexed"])
def test_a_table_is_what_a_dictionary_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    monkeypatch.setattr(links, "_LOOKS", looks)
    chance = random.Random(11)
    objects = Objects()
    stored = NO_DIGEST
    model: dict[int, set[str]] = {}
    for most in (10_000, 50, 50, 3):
        monkeypatch.setattr(links, "_NEAR", most)
        table = Table(objects.nodes, stored, tmp_path)
        before = {number: set(names) for number, names in model.items()}
        list(table.below("d1/"))  # so that rows nobody has changed yet may get an index
        for _ in range(700):
            change(table, model, chance)
            number = chance.randrange(400)
            assert table.count(number) == len(model.get(number, ()))
            assert table.has(number, "d1/no such name") is False
            if number in model:
                assert table.names(number) == model[number]
                assert table.has(number, min(model[number]))
            else:
                with pytest.raises(KeyError):
                    table.names(number)
        for _ in range(20):
            prefix = f"d{chance.randrange(9)}/"
            below = {
                number
                for number, names in model.items()
                if any(name.startswith(prefix) for name in names)
            }
            assert set(table.below(prefix)) == below
            change(table, model, chance)
        assert set(table.below("")) == set(model)
        for number in range(400):
            changed = table.changed_count(number)
            assert changed == len(model.get(number, ())) or (
                changed == 0 and model[number] == before[number]
            )
        some = {
            name.rpartition("/")[0]
            for number, names in model.items()
            if len(names) > 3 and names != before.get(number)
            for name in names
        }
        all_of_them = {
            name.rpartition("/")[0] for names in model.values() if len(names) > 3 for name in names
        }
        assert some <= set(table.parents(4)) <= all_of_them
        new = table.store(objects.put)
        table.close()
        whole = Table(objects.nodes, NO_DIGEST, None)
        for number, names in model.items():
            whole.put(number, names)
        assert whole.store(objects.put) == new, "the same table has the same digest"
        pairs = list(differing(objects.nodes, stored, new))
        assert sorted(map(sorted, (b for _, b in pairs if b))) == sorted(
            sorted(names) for number, names in model.items() if before.get(number) != names
        )
        assert sorted(map(sorted, (a for a, _ in pairs if a))) == sorted(
            sorted(names) for number, names in before.items() if model.get(number) != names
        )
        stored = new
    assert not list(tmp_path.iterdir()), "its file has no name"
    assert Table(objects.nodes, stored, None).store(objects.put) == stored
    empty = Table(objects.nodes, stored, None)
    for number in model:
        empty.put(number, ())
    assert empty.store(objects.put) == NO_DIGEST


@pytest.mark.parametrize("looks", [8, 0])
def test_a_name_is_added_to_a_row_that_nobody_had_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    monkeypatch.setattr(links, "_LOOKS", looks)
    objects = Objects()
    first = Table(objects.nodes, NO_DIGEST, None)
    first.put(7, {"a", "b"})
    first.put(8, {f"d/{number}" for number in range(20)})
    stored = first.store(objects.put)
    table = Table(objects.nodes, stored, tmp_path)
    assert list(table.below("nothing/")) == []
    assert list(table.parents(2)) == []
    assert table.store(objects.put) == stored
    assert table.add(7, "c") == 3
    assert list(table.parents(2)) == [""]
    assert (table.changed_count(7), table.changed_count(8)) == (3, 0)
    new = table.store(objects.put)
    table.close()
    assert Table(objects.nodes, new, None).names(7) == {"a", "b", "c"}


def test_nothing_is_sorted_in_files_that_lie_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[str] = []

    def noting(name: str) -> None:
        really = getattr(Connection, name)

        def call(self: Connection, statement: str, *arguments: Any) -> Any:
            if statement.startswith(("SELECT", "INSERT", "DELETE", "UPDATE")):
                explained = f"EXPLAIN QUERY PLAN {statement}"
                values = [None] * statement.count("?")
                plan = sqlite3.Connection.execute(self, explained, values)
                plans.extend(row[-1] for row in plan)
            return really(self, statement, *arguments)

        monkeypatch.setattr(Connection, name, call)

    for name in ("execute", "executemany", "rows"):
        noting(name)
    monkeypatch.setattr(links, "_NEAR", 3)
    monkeypatch.setattr(links, "_LOOKS", 0)
    objects = Objects()
    table = Table(objects.nodes, NO_DIGEST, tmp_path)
    for number in range(40):
        table.put(number, {f"d/{number}", f"e/{number}", f"f/{number}"})
    one = table.store(objects.put)
    for number in table.below("d/"):
        table.drop_below(number, "d/")
    assert set(table.parents(2)) == {"e", "f"}
    two = table.store(objects.put)
    table.close()
    for place in (tmp_path, None):
        relinks = Relinks(place)
        relinks.find(objects.nodes, one, two, lambda path: True)
        assert not relinks.are_none
        relinks.close()
    assert [plan for plan in plans if "names" in plan or "equal" in plan]
    assert [plan for plan in plans if "TEMP" in plan] == []


def test_a_table_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_NEAR", 3000)
    table = Table(Objects().nodes, NO_DIGEST, tmp_path)
    taken: list[int] = []
    tracemalloc.start()
    try:
        for number in range(1, 20_001):
            table.put(number, {f"some/directory/name-{number}", f"other/name-{number}"})
            if number % 10_000 == 0:
                taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        table.close()
    assert taken[1] - taken[0] < 10_000 * 50, "500 bytes a row in memory"


def test_a_tally_is_what_a_counter_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "_MOST", 2000)
    chance = random.Random(13)
    digests = [digest_of(b"%d" % number) for number in range(300)]
    counts = Tally(tmp_path)
    model: Counter[bytes] = Counter()
    for _ in range(5000):
        digest, by = chance.choice(digests), chance.choice((1, 1, -1, 3, -2, 1000, -999))
        counts.add(digest, by)
        model[digest] += by
    expected = sorted((digest, count) for digest, count in model.items() if count)
    assert list(counts.items()) == expected
    assert list(counts.gained()) == [digest for digest, count in expected if count > 0]
    assert not list(tmp_path.iterdir()), "its file has no name"


def test_a_tally_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_MOST", 100_000)
    counts = Tally(tmp_path)
    taken: list[int] = []
    tracemalloc.start()
    try:
        for number in range(40_001):
            counts.add(digest_of(b"%d" % number), 1)
            if number and number % 20_000 == 0:
                taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert taken[1] - taken[0] < 20_000 * 20, "32 bytes each in memory"
    assert len(list(counts.items())) == 40_001


@pytest.mark.parametrize("written", [0, 3])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_where_nothing_can_be_written_it_counts_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, written: int
) -> None:
    """Who checks a store on a read-only disk, or removes from one on a full disk."""
    monkeypatch.setattr(tally, "_MOST", 200)
    really = os.pwrite
    left = written

    def pwrite(file: int, data: bytes, at: int) -> int:
        nonlocal left
        if not left:
            raise OSError(number, os.strerror(number))
        left -= 1
        return really(file, bytes(data)[: 32 * left + 1], at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    counts = Tally(tmp_path)
    digests = sorted(digest_of(b"%d" % number) for number in range(50))
    for digest in digests:
        counts.add(digest, 2)
        counts.add(digest, -1)
    assert list(counts.items()) == [(digest, 1) for digest in digests]


def test_seen_knows_every_number() -> None:
    seen = Seen()
    chance = random.Random(17)
    model: set[int] = set()
    for _ in range(5000):
        number = chance.randrange(3000)
        assert seen.add(number) == (number not in model)
        model.add(number)


def bring(driver: ChunkDedup, layer: str, parent: str | None, *entries: Entry) -> None:
    with driver.stage(parent) as stage:
        for entry in entries:
            content = io.BytesIO(b"same") if entry.kind is Kind.FILE else None
            stage.add(entry, content)
        stage.seal(layer)


def file(path: str) -> Entry:
    return Entry(path=path, kind=Kind.FILE, mode=0o644, size=4)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, kind=Kind.HARDLINK, target=target)


def directory(path: str) -> Entry:
    return Entry(path=path, kind=Kind.DIRECTORY, mode=0o755)


LAYER, ABOVE = "a" * 64, "b" * 64


@pytest.mark.parametrize("fresh", [32_768, 1000], ids=["in memory", "unloaded meanwhile"])
def test_each_of_very_many_names_says_how_many_there_are(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch, fresh: int
) -> None:
    """And it takes a step a name: with the count put right each time, two million for 2,000."""
    monkeypatch.setattr(overlay, "_FRESH_MAX", fresh)
    steps = 0
    put = Folder.put

    def counting(self: Folder, name: str, record: object) -> None:
        nonlocal steps
        steps += 1
        put(self, name, record)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "put", counting)
    names = [f"d{number % 7}/{number}" for number in range(2000)]
    bring(
        driver,
        LAYER,
        None,
        *(directory(f"d{number}") for number in range(7)),
        file("first"),
        *(link(name, "first") for name in names),
    )
    assert steps < 2000 * 6
    with driver.tree(LAYER) as tree:
        assert {tree.stat(name).links for name in ("first", *names)} == {2001}
        assert len({tree.stat(name).inode for name in ("first", *names)}) == 1
    assert driver.usage(LAYER).apparent == 4
    bring(
        driver,
        ABOVE,
        LAYER,
        Entry(path="d3", kind=Kind.WHITEOUT),
        *(link(f"more-{number}", "first") for number in range(100)),
        Entry(path="d4/4", kind=Kind.WHITEOUT),
    )
    gone = {"d4/4", *(name for name in names if name.startswith("d3/"))}
    with driver.tree(ABOVE) as tree:
        left = ["first", *(name for name in names if name not in gone)]
        left += [f"more-{number}" for number in range(100)]
        assert {tree.stat(name).links for name in left} == {len(left)}
    assert not list(driver.verify(ABOVE, deep=True))


def test_names_of_other_files_are_not_counted_again(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that was a look at all names of the other file: 28 s for 20,000 of them."""
    bring(driver, LAYER, None, file("f"), file("g"), directory("d"))
    bring(driver, ABOVE, LAYER, *(link(f"d/{number}", "f") for number in range(300)))
    read = 0
    really = Table.names

    def names(self: Table, number: int) -> set[str]:
        nonlocal read
        found = really(self, number)
        read += len(found)
        return found

    monkeypatch.setattr(Table, "names", names)
    bring(driver, "9" * 64, ABOVE, *(link(f"d/g{number}", "g") for number in range(20)))
    assert read < 300
    with driver.tree("9" * 64) as tree:
        assert (tree.stat("f").links, tree.stat("d/g3").links) == (301, 21)


def test_a_file_has_no_more_names_than_on_ext4(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "LINK_MAX", 40)
    bring(driver, LAYER, None, file("f"), *(link(f"l{number}", "f") for number in range(38)))
    driver.prepare("c" * 64, LAYER)
    with driver.tree("c" * 64, writable=True) as tree:
        tree.link("l7", "last")
        with pytest.raises(OSError, match="Too many links") as caught:
            tree.link("last", "more")
        assert caught.value.errno == errno.EMLINK
        tree.unlink("l3")
        tree.link("last", "more")
        assert tree.stat("f").links == 40
    with pytest.raises(OSError, match="Too many links"):
        bring(driver, ABOVE, LAYER, *(link(f"m{number}", "f") for number in range(2)))


@pytest.mark.parametrize("near", [32_768, 10])
def test_the_names_of_a_file_are_not_too_long_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """65,000 paths of 4 KiB each would take a quarter of a gigabyte several times over."""
    monkeypatch.setattr(links, "_NEAR", near)
    monkeypatch.setattr(links, "_EVERY", 8)
    monkeypatch.setattr(links, "LINK_BYTES", 10_000)
    table = Table(Objects().nodes, NO_DIGEST, tmp_path)
    table.put(3, {"a", "b"})
    with pytest.raises(OSError, match="Too many links"):
        for number in range(100):
            table.add(3, f"{number:0400d}")
    assert table.count(3) == 32
    table.close()


def test_changes_of_a_layer_of_many_pairs(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_NEAR", 40)
    pairs = [(file(f"f{number}"), link(f"l{number}", f"f{number}")) for number in range(600)]
    bring(driver, LAYER, None, *(entry for pair in pairs for entry in pair))
    driver.prepare("c" * 64, LAYER)
    with driver.tree("c" * 64, writable=True) as tree:
        tree.unlink("l7")
        tree.unlink("l8")
        tree.link("f9", "l8")
        tree.rename("l10", "moved")
        tree.mkdir("d")
        tree.rename("l11", "d/l11")
        tree.rename("d", "e")
    changed = {
        change.entry.path: change.kind
        for change in driver.changes("c" * 64)
        if change.entry.path != ""
    }
    with driver.tree("c" * 64) as tree:
        assert tree.stat("f7").links == 1
        assert tree.stat("f8").links == 1
        assert tree.stat("f9").links == 3
        assert tree.stat("f10").inode == tree.stat("moved").inode != 0
        assert tree.stat("f11").inode == tree.stat("e/l11").inode != 0
    assert changed["l7"] is ChangeKind.DELETED
    assert changed["l8"] is ChangeKind.MODIFIED
    assert changed["moved"] is ChangeKind.ADDED
    assert changed["e/l11"] is ChangeKind.ADDED
    assert not list(driver.verify("c" * 64, deep=True))
