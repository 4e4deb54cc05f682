"""chunk-dedup with directories of very many entries: exact, and never all in memory."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from cowshed.driver import ChangeKind
from cowshed.entry import Entry, Kind
from cowshed_drivers.chunk_dedup import links, nodes, overlay
from cowshed_drivers.chunk_dedup import runs as runs_module
from cowshed_drivers.chunk_dedup.compare import Comparison
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.node import Listing, Root, digest_of, put_directory
from cowshed_drivers.chunk_dedup.record import Record, make
from cowshed_drivers.chunk_dedup.runs import Runs


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ChunkDedup]:
    with ChunkDedup(tmp_path) as driver:
        driver.durable = False
        yield driver


def entry(path: str, text: str = "", **fields: object) -> tuple[Entry, io.BytesIO]:
    data = text.encode()
    made = Entry(path=path, kind=Kind.FILE, mode=0o644, size=len(data), **fields)  # type: ignore[arg-type]
    return made, io.BytesIO(data)


@pytest.mark.parametrize("bits", [1 << 21, 8], ids=["as it is", "a filter that grows"])
def test_runs_are_what_one_dictionary_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    monkeypatch.setattr(runs_module, "_FILTER", bits)
    runs = Runs(tmp_path)
    runs.add({})
    chance = random.Random(3)
    model: dict[str, Record] = {}
    names = [f"\udcff{n}" if n % 7 == 0 else "n" * (n % 200) + str(n) for n in range(3000)]
    for lot in range(6):
        entries = {
            name: make(0, mode=lot, form=1, payload=b"x" * chance.randrange(2000))
            for name in chance.sample(names, 700)
        }
        runs.add(entries)
        model.update(entries)
    newer = {name: make(1, mode=9) for name in names[:20]}
    for name in names:
        assert runs.get(name) == model.get(name)
    model.update(newer)
    by_bytes = sorted(model, key=lambda name: name.encode("utf-8", "surrogateescape"))
    assert list(runs.merged(newer)) == [(name, model[name]) for name in by_bytes]
    runs.close()
    assert not list(tmp_path.iterdir())


def test_a_large_directory_is_the_same_tree_whatever_was_spilled(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spilled or not, with everything that may happen to a name of it on the way."""

    def fill(layer: str) -> None:
        with driver.stage(None) as stage:
            stage.add(Entry(path="big", kind=Kind.DIRECTORY, mode=0o755))
            for number in range(3000):
                stage.add(*entry(f"big/f{number * 7919 % 3000:04d}", str(number)))
                if number % 250 == 0:
                    name = f"big/d{number}"
                    stage.add(Entry(path=name, kind=Kind.DIRECTORY, mode=0o700))
                    stage.add(*entry(f"{name}/inside", name))
            stage.add(*entry("big/f0001", "again"))
            stage.add(Entry(path="big/f0002", kind=Kind.DIRECTORY, mode=0o711))
            stage.add(Entry(path="big/linked", kind=Kind.HARDLINK, target="big/f0003"))
            stage.add(*entry("big/d250/late", "into a folder that was written"))
            stage.add(*entry("big/d0", "instead of a folder"))
            with stage.open("big/f0001") as content:
                assert content.read() == b"again"
            stage.seal(layer)

    fill("kept")
    monkeypatch.setattr(overlay, "_FRESH_MAX", 100)
    monkeypatch.setattr(overlay, "_SPILL_AT", 50)
    spilled: list[int] = []
    really = Runs.add
    monkeypatch.setattr(
        Runs, "add", lambda runs, new: (spilled.append(len(new)), really(runs, new))
    )
    fill("spilled")
    assert len(spilled) > 20
    with driver.tree("kept") as one, driver.tree("spilled") as other:
        assert list(one.walk()) == list(other.walk())
        assert other.read_bytes("big/d250/late").startswith(b"into")
        assert other.stat("big/linked").links == 2
    with driver._store.index.read() as txn:  # pyright: ignore[reportPrivateUsage]
        found = [driver._store.index.find(txn, id) for id in ("kept", "spilled")]  # pyright: ignore[reportPrivateUsage]
    roots = {one[1].root for one in found if one is not None}
    assert len(roots) == 1, "equal trees have equal digests"
    assert not list(driver.verify("spilled", deep=True))


def upper(chance: random.Random) -> Iterator[tuple[Entry, io.BytesIO | None]]:
    """Yield what a layer may do to ``big``, ``far`` and ``other`` of the base below."""
    files = {f"big/f{number:04d}" for number in range(1500)}
    files |= {f"{place}/l{number:03d}" for place in ("far", "other") for number in range(300)}
    directories: set[str] = set()

    def lose(path: str) -> None:
        directories.discard(path)
        files.discard(path)
        files.difference_update([one for one in files if one.startswith(f"{path}/")])

    for step in range(900):
        path = chance.choice(sorted(files | directories))
        match chance.randrange(6):
            case 0 | 1:
                yield Entry(path=path, kind=Kind.WHITEOUT), None
                lose(path)
            case 2:
                yield entry(path, f"again {step}")
                lose(path)
                files.add(path)
            case 3:
                target = chance.choice(sorted(files))
                if not target.startswith(f"{path}/"):
                    yield Entry(path=path, kind=Kind.HARDLINK, target=target), None
                    lose(path)
                    files.add(path)
            case 4:
                new = f"big/d{step}"
                yield Entry(path=new, kind=Kind.DIRECTORY, mode=0o700), None
                yield Entry(path=f"{new}/f", kind=Kind.HARDLINK, target=min(files)), None
                directories.add(new)
                files.add(f"{new}/f")
            case _:
                new = f"big/new-{step}"
                yield entry(new, str(step))
                files.add(new)
        if step == 700:
            place = chance.choice(["far", "other", "big"])
            yield Entry(path=place, kind=Kind.OPAQUE), None
            lose(place)
            directories.difference_update([one for one in directories if one.startswith(place)])


@pytest.mark.parametrize("seed", range(6))
def test_a_layer_on_large_directories_is_the_same_tree_whatever_was_spilled(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With names removed, replaced and linked where most of a directory or table is on disk."""
    with driver.stage(None) as stage:
        for place in ("big", "far", "other"):
            stage.add(Entry(path=place, kind=Kind.DIRECTORY, mode=0o755))
        for number in range(1500):
            stage.add(*entry(f"big/f{number:04d}", str(number)))
        for number in range(600):
            path = f"{('far', 'other')[number % 2]}/l{number // 2:03d}"
            many = number % 3 == 0
            target = "big/f0003" if many else f"big/f{number:04d}"
            stage.add(Entry(path=path, kind=Kind.HARDLINK, target=target))
        stage.seal("base")
    for layer in ("kept", "spilled"):
        if layer == "spilled":
            monkeypatch.setattr(overlay, "_FRESH_MAX", 100)
            monkeypatch.setattr(overlay, "_SPILL_AT", 50)
            monkeypatch.setattr(nodes, "_MANY", 2)
            monkeypatch.setattr(links, "_NEAR", 40)
            monkeypatch.setattr(links, "_LOOKS", seed % 3)
        with driver.stage("base") as stage:
            for one, content in upper(random.Random(seed)):
                stage.add(one, content)
            stage.seal(layer)
        assert not list(driver.verify(layer, deep=True))
    with driver.tree("kept") as one, driver.tree("spilled") as other:
        expected = list(one.walk())
        assert list(other.walk()) == expected
    groups: dict[int, list[Entry]] = {}
    for found in expected:
        if found.inode:
            groups.setdefault(found.inode, []).append(found)
    assert groups
    for names in groups.values():
        assert {name.links for name in names} == {len(names)}
    with driver._store.index.read() as txn:  # pyright: ignore[reportPrivateUsage]
        found_roots = [driver._store.index.find(txn, id) for id in ("kept", "spilled")]  # pyright: ignore[reportPrivateUsage]
    assert len({one[1].root for one in found_roots if one is not None}) == 1
    assert driver.usage("kept").apparent == driver.usage("spilled").apparent


def test_names_that_are_never_a_cut_still_make_pages() -> None:
    names = [f"n{number:06d}" for number in range(12_000)]
    names = [name for name in names if crc32(name.encode()) & 0x7F][:9000]
    held: dict[bytes, bytes] = {}

    def put(data: bytes) -> bytes:
        digest = digest_of(data)
        held[digest] = data
        return digest

    entries = {name: make(0, mode=1) for name in names}
    whole = put_directory(entries, put)
    found = nodes.Nodes(held.__getitem__)
    pages = found.pages(whole)
    assert [len(found.page(page)) for page in pages] == [4096, 4096, 808]
    assert dict(found.directory(whole)) == entries
    with_more = {**entries, "z": make(0, mode=2)}
    assert found.pages(put_directory(with_more, put))[:2] == pages[:2]


def test_entries_with_long_tails_make_pages_sooner() -> None:
    held: dict[bytes, bytes] = {}

    def put(data: bytes) -> bytes:
        assert len(data) < 5 << 20
        digest = digest_of(data)
        held[digest] = data
        return digest

    entries = {f"{number:x}": make(0, mode=1, payload=bytes(1 << 20)) for number in range(10)}
    whole = put_directory(entries, put)
    found = nodes.Nodes(held.__getitem__)
    assert len(found.pages(whole)) == 3
    assert dict(found.directory(whole)) == entries
    assert found.by_pages(whole)["7"] == entries["7"]
    with pytest.raises(KeyError):
        found.by_pages(whole)["a"]


def test_two_directories_are_compared_as_two_dictionaries_would_be() -> None:
    held: dict[bytes, bytes] = {}

    def put(data: bytes) -> bytes:
        digest = digest_of(data)
        held[digest] = data
        return digest

    def root(entries: dict[str, Record]) -> bytes:
        top = make(1, mode=0o755, payload=put_directory(entries, put))
        return put(Root(top).encode())

    chance = random.Random(5)
    found = nodes.Nodes(held.__getitem__)
    names = [f"\udcff{n}" if n % 7 == 0 else f"{n}\u20ac" for n in range(2000)]
    for _ in range(60):
        sizes = chance.choice([(0, 300), (1, 2000), (1500, 1500), (10, 20), (900, 3)])
        before, after = (
            {name: make(0, mode=chance.randrange(2)) for name in chance.sample(names, size)}
            for size in sizes
        )
        for name in chance.sample(sorted(before), len(before) // 2):
            after[name] = before[name]
        compared = list(Comparison(found, root(before), root(after)))
        by_bytes = sorted({*before, *after}, key=lambda n: n.encode("utf-8", "surrogateescape"))
        assert compared == [
            (name, before.get(name), after.get(name))
            for name in by_bytes
            if before.get(name) != after.get(name)
        ]


def test_a_stored_directory_is_looked_at_page_by_page(
    driver: ChunkDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_MANY", 4)
    with driver.stage(None) as stage:
        stage.add(Entry(path="big", kind=Kind.DIRECTORY, mode=0o755))
        for number in range(3000):
            stage.add(*entry(f"big/f{number:04d}", str(number)))
        stage.seal("base")
    listings: list[Listing] = []
    really = nodes.Nodes.directory

    def directory(self: nodes.Nodes, digest: bytes) -> Listing:
        listings.append(really(self, digest))
        return listings[-1]

    monkeypatch.setattr(nodes.Nodes, "directory", directory)
    with driver.tree("base") as tree:
        assert [one.name for one in tree.scandir("big")] == [f"f{n:04d}" for n in range(3000)]
        for number in (0, 1, 1500, 2999):
            assert tree.read_bytes(f"big/f{number:04d}") == str(number).encode()
        for missing in ("", "a", "f0000x", "f3000", "z"):
            if missing:
                with pytest.raises(FileNotFoundError):
                    tree.stat(f"big/{missing}")
    [big] = [one for one in listings if len(one) == 3000][:1]
    assert isinstance(big, nodes.Pages)
    assert list(big) == [name for name, _ in big.items()]
    # A container changes it, a layer on top does.
    driver.prepare("c", "base")
    with driver.tree("c", writable=True) as tree:
        tree.write_bytes("big/f1500", b"changed")
        tree.unlink("big/f0007")
    kinds = [(change.kind, change.path) for change in driver.changes("c")]
    assert kinds == [
        (ChangeKind.MODIFIED, "big"),
        (ChangeKind.DELETED, "big/f0007"),
        (ChangeKind.MODIFIED, "big/f1500"),
    ]
    monkeypatch.setattr(overlay, "_FRESH_MAX", 100)
    with driver.stage("base") as stage:
        stage.add(*entry("big/f1500", "changed"))
        stage.add(*entry("big/new", "new"))
        stage.add(Entry(path="big/f0007", kind=Kind.WHITEOUT))
        stage.seal("top")
    with driver.tree("top") as tree:
        assert tree.read_bytes("big/f1500") == b"changed"
        assert sum(1 for _ in tree.scandir("big")) == 3000
    assert not list(driver.verify("top", deep=True))


def test_the_memory_that_a_large_directory_takes_doesnt_grow_with_it(driver: ChunkDedup) -> None:
    peaks: list[int] = []
    for count in (60_000, 120_000):
        tracemalloc.start()
        try:
            with driver.stage(None) as stage:
                stage.add(Entry(path="big", kind=Kind.DIRECTORY, mode=0o755))
                for number in range(count):
                    stage.add(*entry(f"big/f{number:07d}", f"{number} of {count}"))
                stage.seal(f"of {count}")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        driver.remove(f"of {count}")
    assert peaks[1] - peaks[0] < 60_000 * 20, "a byte of a filter, a page's digest; 490 if loaded"
