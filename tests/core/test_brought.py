"""Brought against dictionaries, small enough to spill all the time."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.native import brought
from cowshed.native.brought import Brought


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Brought]:
    files = Brought(str(tmp_path))
    yield files
    files.close()


def key(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def test_it_is_what_dictionaries_would_be(
    files: Brought, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brought, "_RECENT", 7)
    sizes: dict[str, int] = {}
    keys: dict[str, str] = {}
    paths: dict[str, str] = {}
    chance = random.Random(5)
    for _ in range(5000):
        path = f"d\udcff/{chance.randrange(60)}"
        match chance.randrange(5):
            case 0:
                files.drop(path)
                sizes.pop(path, None)
            case 1:
                files.unkey(path)
            case _ if path not in sizes:
                sizes[path] = chance.randrange(1 << 40)
                known = key(chance.randrange(20)) if chance.randrange(3) else ""
                files.add(path, sizes[path], known)
                if known:
                    paths[keys.setdefault(path, known)] = path
                continue
            case _:
                continue
        gone = keys.pop(path, "")
        if paths.get(gone) == path:
            del paths[gone]
        probe = f"d\udcff/{chance.randrange(60)}"
        assert (probe in files) == (probe in sizes)
        assert dict(files.keyed()) == keys
        for number in range(20):
            # Who had it before may have it again when the last one is gone.
            found = files.path_of(key(number))
            assert found == paths.get(key(number)) or keys.get(found or "") == key(number)
    assert files.bytes == sum(sizes.values())
    assert not list(tmp_path.iterdir()), "it has no name that a kill could leave"


def test_a_hundred_thousand_files_take_no_more_memory_than_the_last_ones(files: Brought) -> None:
    for number in range(33_000):
        files.add(f"usr/share/directory/file-{number}", 10, key(number))
    tracemalloc.start()
    try:
        for number in range(33_000, 100_000):
            files.add(f"usr/share/directory/file-{number}", 10, key(number))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 33_000 * 600, "of 67,000 it keeps 32,768"
    assert files.bytes == 1_000_000
    assert files.path_of(key(5)) == "usr/share/directory/file-5"
    assert sum(1 for _ in files.keyed()) == 100_000
