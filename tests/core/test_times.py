"""Times against a dictionary, small enough to spill all the time."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.native import times as times_module
from cowshed.native.times import Times


@pytest.fixture
def times(tmp_path: Path) -> Iterator[Times]:
    times = Times(str(tmp_path))
    yield times
    times.close()
    assert not list(tmp_path.iterdir()), "its file has no name"


def test_it_is_what_a_dictionary_would_be(times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times_module, "_RECENT", 5)
    chance = random.Random(7)
    model: dict[str, int] = {}
    for _ in range(3000):
        path = f"d\udcff/{chance.randrange(40)}"
        if chance.randrange(3):
            model[path] = chance.randrange(-(1 << 62), 1 << 62)
            times.put(path, model[path])
        else:
            times.drop(path)
            model.pop(path, None)
        probe = f"d\udcff/{chance.randrange(40)}"
        assert (probe in times) == (probe in model)
    found = list(times.items())
    assert len(found) == len(model)
    assert dict(found) == model


def test_memory_is_bounded(times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times_module, "_RECENT", 1000)
    taken: list[int] = []
    tracemalloc.start()
    try:
        for number in range(20_001):
            times.put(f"some/directory-{number:06d}", number)
            if number and number % 10_000 == 0:
                taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert taken[1] - taken[0] < 10_000 * 20
