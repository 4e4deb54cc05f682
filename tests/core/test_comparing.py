"""Comparing any two trees gives what the model says that changes are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.comparing import compare_trees
from cowshed.driver import Change, Driver, Held
from cowshed.testing import MemoryDriver
from cowshed.testing.changes import ChangeConformance
from cowshed.testing.histories import HistoryConformance
from cowshed.testing.memory_tree import MemoryTree
from cowshed.testing.round_trips import RoundTripConformance


class Comparing(MemoryDriver):
    """The model, with its changes found by walking its trees."""

    def changes(self, container: str) -> Iterator[Change]:
        self._item(container, Held.CONTAINER)
        old = MemoryTree(self._store.bases[container], writable=False)
        return compare_trees(old, self.tree(container))


class TestComparing(ChangeConformance, RoundTripConformance, HistoryConformance):
    processes = False

    def open_driver(self, root: Path) -> Driver:
        return Comparing(root)


def test_a_driver_that_knows_which_contents_are_equal_is_asked_instead_of_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = MemoryDriver(tmp_path)
    driver.prepare("old", None)
    with driver.tree("old", writable=True) as tree:
        for name in ("a", "b"):
            tree.write_bytes(name, b"12")
            tree.utime(name, 1)
    driver.fork("old", "new")
    with driver.tree("new", writable=True) as tree:
        tree.write_bytes("a", b"xx")
        tree.utime("a", 1)
    old, new = driver.tree("old"), driver.tree("new")
    assert [change.path for change in compare_trees(old, new)] == ["a"]
    monkeypatch.setattr(MemoryTree, "open", None)
    asked: list[str] = []

    def same(path: str) -> bool:
        asked.append(path)
        return path == "a"

    assert [change.path for change in compare_trees(old, new, same)] == ["b"]
    assert asked == ["a", "b"]
