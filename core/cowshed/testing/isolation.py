"""Isolation: whatever kind of write happens in a child, every ancestor and sibling re-hashes equal.

Each kind is done on the driver and on ``MemoryDriver`` too, and both must show the same tree.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from pathlib import Path

import attrs
import pytest

from .kit import Kit, Store, key
from .memory import MemoryDriver
from .oracle import Picture, assert_same
from .writes import GROUND, WRITES, Write

every_write = pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)


def ground(store: Store) -> str:
    """Stack the layers of ``GROUND``; return the top one's ID."""
    below: str | None = None
    for level, things in enumerate(GROUND):
        below = store.layer(f"ground{level}", *things, on=below)
    assert below is not None
    return below


def fresh_marked(picture: Picture, since: int) -> Picture:
    """Return the picture with every mtime after ``since`` made the same: no two clocks agree."""
    return {
        path: attrs.evolve(seen, mtime_ns=since) if (seen.mtime_ns or 0) >= since else seen
        for path, seen in picture.items()
    }


class IsolationConformance(Kit):
    """Writes reach the container they are made in and nothing else."""

    group = "containers"

    @every_write
    def test_a_write_in_a_child_leaves_every_ancestor_alone(
        self, store: Store, write: Write
    ) -> None:
        top = ground(store)
        child, sibling = store.container("child", top), store.container("sibling", top)
        with store.write(child) as tree:
            write.act(tree)
            tree.sync()
            store.assert_layers(f"{write.name} in a child reaches no layer, open or closed")
        store.assert_layers(f"{write.name} in a child reaches no layer")
        assert_same(
            store.layers[top], store.look(sibling), f"{write.name} in a child reaches no sibling"
        )
        store.reopen()
        store.assert_layers(f"{write.name} in a child reaches no layer, after reopening")

    @every_write
    def test_a_write_does_what_the_model_does(
        self, store: Store, write: Write, tmp_path: Path
    ) -> None:
        since = time.time_ns() - 1_000_000_000
        pictures: list[Picture] = []
        model = Store(tmp_path / "model", MemoryDriver)
        for each in (model, store):
            child = each.container("child", ground(each))
            with each.write(child) as tree:
                write.act(tree)
            pictures.append(fresh_marked(each.look(child), since))
        assert_same(pictures[0], pictures[1], f"{write.name} does what the model does")
        store.reopen()
        again = fresh_marked(store.look(child), since)
        assert_same(pictures[0], again, f"what {write.name} did survives reopening")

    @every_write
    def test_a_write_in_a_fork_leaves_its_origin_alone(self, store: Store, write: Write) -> None:
        origin = store.container("origin", ground(store))
        with store.write(origin) as tree:
            tree.write_bytes("top", b"own")
            tree.chown("d/f", 5, 5)
        before = store.look(origin)
        fork = store.fork(origin, "fork")
        with store.write(fork) as tree:
            write.act(tree)
        assert_same(before, store.look(origin), f"{write.name} in a fork leaves its origin alone")
        in_fork = store.look(fork)
        with store.write(origin) as tree:
            write.act(tree)
            tree.write_bytes("more", b"more")
        assert_same(in_fork, store.look(fork), f"{write.name} in an origin leaves its fork alone")
        store.assert_layers()

    def test_all_writes_in_a_row_leave_every_ancestor_alone(self, store: Store) -> None:
        top = ground(store)
        for write in WRITES:
            child = store.container(write.name, top)
            with store.write(child) as tree:
                write.act(tree)
        store.assert_layers("no write in a child reaches a layer")
        for write in WRITES[::2]:
            store.driver.remove(key(write.name))
        store.driver.collect()
        store.assert_layers("removing containers reaches no layer")
        for write in WRITES[1::2]:
            assert store.changes(key(write.name)) == write.changes, write.name

    def test_what_a_process_maps_and_writes_reaches_no_ancestor(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            if tree.path is None:
                pytest.skip("the driver has no native path")
            with (
                Path(tree.path, "d/f").open("r+b") as content,
                mmap.mmap(content.fileno(), 0) as mapped,
            ):
                mapped[100:108] = b"by mmap!"
                mapped.flush()
                store.assert_layers("what a process writes to mapped memory reaches no layer")
        with store.driver.tree(child) as tree:
            assert tree.read_bytes("d/f")[100:108] == b"by mmap!", "mapped writes are in the tree"
        assert "C d/f" in store.changes(child), "mapped writes are seen"
        store.assert_layers("what a process writes to mapped memory reaches no layer")

    def test_sockets_that_a_process_leaves_are_in_no_tree(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            if tree.path is None:
                pytest.skip("the driver has no native path")
            with socket.socket(socket.AF_UNIX) as listener:
                here = os.open(tree.path, os.O_RDONLY | os.O_DIRECTORY)
                try:  # by a short name: the length of a socket's is limited
                    listener.bind(f"/proc/self/fd/{here}/d/socket")
                finally:
                    os.close(here)
        assert "d/socket" not in store.look(child), "sockets are skipped"
        assert store.changes(child) == ["C d"], "a socket is no change, its directory's mtime is"
        with store.driver.tree(store.fork(child, "fork")) as tree:
            assert not tree.exists("d/socket"), "sockets are skipped"
        assert "d/socket" not in store.look(store.commit(child, "committed"))

    def test_a_native_path_shows_the_tree_and_reaches_no_ancestor(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            if tree.path is None:
                pytest.skip("the driver has no native path")
            base = Path(tree.path)
            assert (base / "d/sub/deep").read_bytes() == b"deep", "a native path shows the tree"
            with (base / "d/other").open("r+b") as content:
                content.write(b"OTHER")
            (base / "top").chmod(0o600)
            (base / "native").write_bytes(b"made by a process")
            os.utime(base / "d/h1", ns=(1, 1))
        store.assert_layers("what a process writes through a native path reaches no layer")
        with store.driver.tree(child) as tree:
            assert tree.read_bytes("d/other") == b"OTHER"
            assert tree.read_bytes("native") == b"made by a process"
