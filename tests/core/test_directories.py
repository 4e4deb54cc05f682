"""The model of the merged tree: bounded in memory, and the same when it is on disk."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.archive import directories
from cowshed.archive.directories import Directory
from cowshed.archive.limits import Limits
from cowshed.archive.resolve import View
from cowshed.entry import Kind

ODD = "nicht-utf8-\udcff"


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    view = View(None, Limits(), lambda path: None, str(tmp_path))
    yield view
    view.close()
    assert not list(tmp_path.iterdir()), "its file has no name"


def at(view: View, path: str) -> Directory:
    view.settle()
    found = view.directory(path, make=True)
    assert found is not None
    return found


def put(view: View, above: str, name: str, node: str | int) -> None:
    found = at(view, above)
    view.put(found, name, view.path(found, name), node)


@pytest.mark.parametrize("per_directory", [400, 1_000_000], ids=["many", "one"])
@pytest.mark.parametrize("node", [7, "some/target", None], ids=["files", "links", "directories"])
def test_memory_is_bounded(
    view: View, node: str | int | None, per_directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_NEAR", 4096)
    taken: list[int] = []
    tracemalloc.start()
    try:
        for number in range(60_001):
            above, name = f"directory-{number // per_directory:04d}", f"name-{number:07d}"
            if node is None:
                at(view, f"{above}/{name}")
            else:
                put(view, above, name, node)
            if number and number % 20_000 == 0:
                taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert taken[2] - taken[1] < 20_000 * 8, "190 bytes a name if nothing goes to disk"


def test_long_names_and_targets_count_for_more(view: View) -> None:
    for number in range(2000):
        put(view, "links", f"link-{number}", "x" * 4000)
    assert view.scratch.weight > 2000 * 10


def test_what_was_written_down_is_known_as_before(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(view, "old", ODD, 1)
    put(view, "old", "link", "target/\udcfe")
    put(view, "old", "object", 0)
    put(view, "old/below", "file", 5)
    view.put_directory(at(view, "old"), "own", "old/own")
    monkeypatch.setattr(directories, "_NEAR", 1)
    old = at(view, "old")
    assert old is not None and not old.near
    assert view.look(old, ODD) == 1
    assert view.look(old, "link") == "target/\udcfe"
    assert view.look(old, "object") == 0
    assert view.look(old, "nothing") is None
    own = view.look(old, "own")
    assert isinstance(own, Directory)
    assert own.own
    assert own.path == "old/own"
    assert own is view.look(old, "own"), "one directory is one object"
    view.put(old, "object", "old/object", 9)
    own.own = False
    old = at(view, "old")
    assert not old.near
    assert view.look(old, "object") == 9
    own = view.look(old, "own")
    assert isinstance(own, Directory)
    assert not own.own
    assert sorted(view.replaced(view.root, "old", "old", Kind.FILE)) == [
        ("old/below/file", 5),
        (f"old/{ODD}", 1),
        ("old/object", 9),
    ]
    view.put(view.root, "old", "old", 3)
    again = at(view, "older")
    assert view.look(view.root, "old") == 3
    assert view.look(again, "object") is None


def test_more_names_than_are_read_at_a_time(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_ROWS", 7)
    names = [f"{number}-{ODD}" for number in range(50)]
    for number, name in enumerate(names, 1):
        put(view, "d", name, number)
    monkeypatch.setattr(directories, "_NEAR", 1)
    found = at(view, "d")
    view.put(found, names[3], f"d/{names[3]}", 1000)
    expected = {name: number for number, name in enumerate(names, 1)} | {names[3]: 1000}
    assert dict(found.items()) == expected
    found.clear()
    assert not dict(found.items())


def test_the_runs_of_sparse_files_go_along(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    view.scratch.put_runs(1, [(0, 4096), (1 << 40, 512)])
    view.scratch.put_runs(2, [(0, 1)] * 100_000)
    assert view.scratch.is_due is False
    assert view.scratch.weight > 5000
    monkeypatch.setattr(directories, "_NEAR", 1)
    at(view, "d")
    assert view.scratch.weight <= 1
    assert view.scratch.runs(1) == [(0, 4096), (1 << 40, 512)]
    assert view.scratch.runs(2) == [(0, 1)] * 100_000
    assert view.scratch.runs(3) is None
