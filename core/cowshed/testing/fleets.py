"""Fleets: thousands of containers, and more of a file than a file can have links."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ..driver import Capability, Held
from .declared import FACTOR, calls_of
from .kit import Kit, Store, key
from .oracle import assert_same, directory, file


class FleetConformance(Kit):
    """What is cheap once is cheap ten thousand times, and gone when it is removed."""

    group = "limits"

    #: Whether the driver keeps its data below its root, so that space can be measured there.
    on_disk: ClassVar[bool] = True
    #: A file on ext4 has 65,000 links at most. A driver may have a bound of its own.
    more_than_links: ClassVar[int] = 65_100

    #: Containers in a thorough run. A standard run has a fourth of them, or a hundred of a driver
    #: that doesn't declare INSTANT_PREPARE.
    fleet: ClassVar[int] = 10_000

    def test_thousands_of_containers_cost_what_one_costs(self, store: Store) -> None:
        instant = self.can(Capability.INSTANT_PREPARE)
        count = self.fleet if self.thorough else self.fleet // 4 if instant else 100
        base = store.layer("base", *(file(f"f{number}", str(number)) for number in range(20)))
        store.driver.prepare_many([key("warm")], base)
        before = store.driver.disk_usage()
        store.driver.prepare_many([key("first")], base)
        one = store.driver.disk_usage() - before
        alone = self._calls(store, base)
        many = [key(f"many{number}") for number in range(count)]
        store.driver.prepare_many(many, base)
        each = (store.driver.disk_usage() - before) / (count + 1)
        if instant and self.on_disk:
            assert each <= max(one, 4096) * 1.5, "thousands of containers cost what one costs"
        if instant:
            among = self._calls(store, base)
            assert among <= FACTOR * alone, "one more or less costs the same among thousands"
        made = [key("warm"), key("first"), *many]
        expected = {base: (Held.LAYER, None), **dict.fromkeys(made, (Held.CONTAINER, base))}
        assert store.held() == expected, "items() is exactly what was made"
        assert_same(store.layers[base], store.look(many[-1]), "the last is as good as the first")
        with store.write(many[count // 2]) as tree:
            tree.write_bytes("f7", b"mine")
        store.driver.remove_many(many[1:])
        assert set(store.held()) == {base, key("warm"), key("first"), many[0]}
        # An index may grow until it has room for as many again, but not whenever they come.
        left = [self._left_by(store, base, 0, count // 10)]
        while (self.on_disk and len(set(left[-3:])) > 1) or len(left) < 3:
            assert len(left) < 30, "a fleet leaves nothing behind that adds up"
            left.append(self._left_by(store, base, len(left), count // 10))
        store.assert_layers("no number of containers reaches a layer")

    def _calls(self, store: Store, base: str) -> int:
        """Return how many functions it takes to prepare one container and remove it."""

        def come_and_go() -> None:
            store.driver.prepare(key("another"), base)
            store.driver.remove(key("another"))

        return calls_of(come_and_go)

    def _left_by(self, store: Store, base: str, turn: int, count: int) -> int:
        """Create and remove a fleet; return the bytes on disk."""
        many = [key(f"turn{turn} {number}") for number in range(count)]
        store.driver.prepare_many(many, base)
        store.driver.remove_many(many)
        store.driver.collect()
        return store.driver.disk_usage()

    def test_more_equal_files_than_a_file_can_have_links(self, store: Store) -> None:
        if not self.can(Capability.SHARES_INODES):
            pytest.skip("the driver doesn't declare SHARES_INODES")
        count = self.more_than_links
        with store.driver.stage(None) as stage:
            stage.add(directory("d").entry)
            for number in range(count):
                same = file(f"d/{number:05}", "the same")
                stage.add(same.entry, same.content())
            stage.seal(key("layer"))
        with store.driver.tree(key("layer")) as tree:
            found = list(tree.scandir("d"))
            assert len(found) == count, "equal files are stored, however many there are"
            assert {entry.links for entry in found} == {1}, "sharing doesn't show"
            assert tree.read_bytes("d/00000") == tree.read_bytes(f"d/{count - 1:05}")
        if self.thorough or count < 1000:
            child = store.container("child", key("layer"))
            with store.write(child) as tree:
                tree.write_bytes(found[-1].path, b"mine")
                assert tree.read_bytes(found[-2].path) == b"the same", "a write reaches one file"
            assert store.changes(child) == ["C d", f"C {found[-1].path}"]
            assert list(store.driver.verify(key("layer"), deep=True)) == []

    def test_more_containers_than_a_file_can_have_links(self, store: Store) -> None:
        if not self.can(Capability.SHARES_INODES):
            pytest.skip("the driver doesn't declare SHARES_INODES")
        if not self.thorough and self.more_than_links > 1000:
            pytest.skip("takes minutes: --thorough")
        base = store.layer("base", file("f", "x"))
        many = [key(f"many{number}") for number in range(self.more_than_links)]
        for start in range(0, len(many), 5000):
            store.driver.prepare_many(many[start : start + 5000], base)
        for id in many:  # some make a container's tree when somebody writes in it
            with store.write(id) as tree:
                tree.mkdir("own")
        with store.write(many[-1]) as tree:
            tree.write_bytes("f", b"mine")
        for id in (many[0], many[-2]):
            with store.driver.tree(id) as tree:
                assert tree.read_bytes("f") == b"x", "a file is there in every container"
        store.assert_layers()
