"""Declared: what a driver says it can do, it does, counted in calls and bytes, never in seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ..driver import Capability
from ..errors import CorruptError
from .files import pattern
from .kit import Kit, Store, key
from .oracle import Thing, directory, file

#: Directories of files in an image: the large one has forty times as many as the small one.
SMALL, LARGE = 3, 120
#: What something that doesn't depend on the size may cost more for the large one.
FACTOR = 3


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions ``work`` calls: the same on every machine, however busy."""
    count = 0

    def tick(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def image(directories: int) -> list[Thing]:
    """Return so many directories of ten small files each."""
    return [
        thing
        for number in range(directories)
        for thing in (
            directory(f"d{number:03}"),
            *(file(f"d{number:03}/f{n}", f"{number} {n}") for n in range(10)),
        )
    ]


class DeclaredConformance(Kit):
    """Capabilities are promises too."""

    group = "capabilities"

    def needs(self, *capabilities: Capability) -> None:
        """Skip the test for drivers that declare none of these."""
        if not any(map(self.can, capabilities)):
            names = " or ".join(one.name for one in capabilities)
            pytest.skip(f"the driver doesn't declare {names}")

    def costs(self, store: Store, work: Callable[[Store, str], Callable[[], object]]) -> list[int]:
        """Return the calls of what ``work`` returns, for containers on a small and a large image.

        It is done once before, so that nothing is counted that is done only once.
        """
        found: list[int] = []
        for size in (SMALL, LARGE):
            base = store.layer(f"base{size}", *image(size))
            for turn in ("warm", "counted"):
                child = store.container(f"{turn}{size}", base)
                with store.write(child) as tree:
                    tree.write_bytes("d001/f1", b"changed")
                    tree.write_bytes("d002/new", b"new")
                count = calls_of(work(store, child))
            found.append(count)
        return found

    def test_a_native_path_is_there_if_declared(self, store: Store) -> None:
        container = store.container("c", store.layer("base", file("f", "x")))
        with store.write(container) as tree:
            if self.can(Capability.NATIVE_PATH):
                assert tree.path is not None and Path(tree.path, "f").read_bytes() == b"x"
        with store.driver.tree(container) as tree:
            assert (tree.path is not None) == self.can(Capability.NATIVE_PATH), (
                "trees have a native path if NATIVE_PATH is declared, and only then"
            )

    def test_creating_a_container_doesnt_depend_on_the_image(self, store: Store) -> None:
        self.needs(Capability.INSTANT_PREPARE)

        def prepare(store: Store, child: str) -> Callable[[], object]:
            parent = store.held()[child][1]
            return lambda: store.driver.prepare(key(f"one more {child}"), parent)

        small, large = self.costs(store, prepare)
        assert large <= FACTOR * small, "INSTANT_PREPARE costs the same for a larger image"

    def test_forking_doesnt_depend_on_the_image(self, store: Store) -> None:
        self.needs(Capability.INSTANT_FORK)
        small, large = self.costs(
            store, lambda store, child: lambda: store.driver.fork(child, key(f"fork {child}"))
        )
        assert large <= FACTOR * small, "INSTANT_FORK costs the same for a larger image"

    def test_forking_doesnt_depend_on_what_the_container_holds(self, store: Store) -> None:
        self.needs(Capability.INSTANT_FORK)
        found: list[int] = []
        for size in (SMALL, LARGE):
            for turn in ("warm", "counted"):
                child = store.container(f"{turn}{size}")
                with store.write(child) as tree:
                    for thing in image(size):
                        tree.apply(thing.entry, thing.content())
                count = calls_of(
                    lambda: store.driver.fork(child, key(f"fork {child}"))  # noqa: B023
                )
            found.append(count)
        assert found[1] <= FACTOR * found[0], "INSTANT_FORK costs the same for a fuller container"

    def test_finding_changes_doesnt_depend_on_the_image(self, store: Store) -> None:
        self.needs(Capability.NATIVE_CHANGES)
        small, large = self.costs(
            store, lambda store, child: lambda: list(store.driver.changes(child))
        )
        assert large <= FACTOR * small, "NATIVE_CHANGES costs what was changed"

    # -- space ----------------------------------------------------------------------------------

    def grown(self, store: Store, name: str, *things: Thing) -> int:
        """Return by how many bytes on disk a layer of its own makes the store larger."""
        before = store.driver.disk_usage()
        store.layer(name, *things)
        return store.driver.disk_usage() - before

    def test_equal_files_are_stored_once(self, store: Store) -> None:
        self.needs(Capability.SHARES_INODES, Capability.SHARES_CHUNKS)
        data = pattern(4 << 20)
        assert self.grown(store, "one", file("f", data)) >= 4 << 20
        again = self.grown(store, "two", file("other/name".replace("/", "-"), data))
        assert again < 1 << 20, "equal files of unrelated layers are stored once"
        store.assert_layers()

    def test_equal_parts_of_files_are_stored_once(self, store: Store) -> None:
        self.needs(Capability.SHARES_CHUNKS)
        data = pattern(4 << 20)
        store.layer("one", file("f", data))
        shifted = b"a few bytes more" + data[:1_000_000] + data[1_100_000:]
        again = self.grown(store, "two", file("g", shifted))
        assert again < 2 << 20, "equal parts are stored once, wherever they stand"
        store.assert_layers()

    def test_what_nobody_wrote_is_on_disk_once(self, store: Store) -> None:
        self.needs(Capability.SHARES_EXTENTS)
        base = store.layer("base", file("f", pattern(8 << 20)))
        before = store.driver.disk_usage()
        child = store.container("child", base)
        store.layer("next", file("own", "x"), on=base)
        with store.write(child) as tree, tree.open("f", "r+b") as content:
            content.seek(4 << 20)
            content.write(pattern(64 << 10, 1))
        fork = store.fork(child, "fork")
        assert store.driver.disk_usage() - before < 2 << 20, "what nobody wrote is shared"
        for id in (base, child, fork):
            assert store.driver.usage(id).exclusive < 2 << 20, "what is shared is nobody's own"
        store.assert_layers()

    def test_what_can_be_compressed_is(self, store: Store) -> None:
        self.needs(Capability.COMPRESSES)
        lines = b"".join(b"%d bottles of milk on the wall\n" % n for n in range(150_000))
        assert self.grown(store, "text", file("f", lines)) < len(lines) // 2, "text is compressed"
        store.assert_layers()

    def test_damage_is_never_read_as_if_it_were_content(self, store: Store) -> None:
        self.needs(Capability.VERIFIES_READS)
        data = {f"f{number}": pattern(1 << 20, number) for number in range(4)}
        layer = store.layer("layer", *(file(name, content) for name, content in data.items()))
        store.close()
        damage(store.root)
        store.reopen()
        wrong: list[str] = []
        for name, content in data.items():
            try:
                with store.driver.tree(layer) as tree:
                    assert tree.read_bytes(name) == content, "damage is never read as content"
            except (CorruptError, OSError):
                wrong.append(name)
        assert wrong, "what was damaged can't be read"
        assert len(wrong) < len(data), "damage reaches what it hit, not the whole layer"
        problems = list(store.driver.verify(layer, deep=True))
        assert {problem.path for problem in problems} >= set(wrong), "verify names what is damaged"
        assert {problem.id for problem in problems} == {layer}


def damage(root: Path) -> None:
    """Overwrite some bytes in the middle of the file that takes the most space below ``root``."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    victim = max(files, key=lambda path: path.stat().st_blocks)
    os.chmod(victim, 0o600)
    with victim.open("r+b") as content:
        content.seek(victim.stat().st_size // 2)
        content.write(b"\0damaged\0" * 8)
