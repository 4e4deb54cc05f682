"""Round trips: through core's tars and back, judged by ``tarfile`` and by every byte.

What a container changed goes out as a layer's tar, as ``commit`` writes it, and comes in again on
the same parent. The tar itself is read by Python's own ``tarfile``, not by what wrote it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import attrs
import pytest

from ..archive import apply_layer, replay, write_layer, write_tree
from ..driver import change_entries
from ..entry import Kind
from ..tree import Tree
from .files import pattern
from .kit import Kit, Store, key
from .oracle import LONG_AGO, Thing, assert_same, digest, directory, file, hardlink, symlink

BASE: list[Thing] = [
    directory("", mtime_ns=LONG_AGO),
    directory("d", mode=0o750, uid=4),
    directory("d/e", mode=0o711),
    file("d/e/f", pattern(3000), mode=0o640, uid=7, xattrs={"user.x": b"1"}),
    file("d/g", "unchanged"),
    file("m", "linked later"),
    file("n1", "linked"),
    hardlink("n2", "n1"),
    symlink("s", "d/g"),
]


@attrs.frozen
class Trip:
    """What is done in a container, and the names that its layer's tar must hold then."""

    name: str
    act: Callable[[Tree], object]
    names: list[str]


def _update(tree: Tree) -> None:
    with tree.open("d/e/f", "r+b") as content:
        content.seek(1000)
        content.write(b"new")


def _link_before_modified(tree: Tree) -> None:
    tree.link("m", "a")
    with tree.open("m", "ab") as content:
        content.write(b", and changed")


def _replace_directory(tree: Tree) -> None:
    tree.remove_tree("d")
    tree.mkdir("d", 0o700)
    tree.write_bytes("d/new", b"only this")


TRIPS = [
    Trip("a deletion", lambda t: t.unlink("d/e/f"), ["d/", "d/e/", "d/e/.wh.f"]),
    Trip("an update", _update, ["d/", "d/e/", "d/e/f"]),
    Trip("a directory's permission", lambda t: t.chmod("d/e", 0o700), ["d/", "d/e/"]),
    Trip("a parent directory's permission", lambda t: t.chmod("d", 0o701), ["d/"]),
    Trip("the root's owner", lambda t: t.chown("", 3, 3), ["./"]),
    Trip("a hard link left alone", lambda t: t.write_bytes("new", b"1"), ["./", "new"]),
    Trip("a hard link before an unmodified file", lambda t: t.link("m", "a"), ["./", "a", "m"]),
    Trip("a hard link before a modified file", _link_before_modified, ["./", "a", "m"]),
    Trip("a write to a file of two names", lambda t: t.truncate("n2", 3), ["n1", "n2"]),
    Trip("one name of two removed", lambda t: t.unlink("n1"), ["./", ".wh.n1"]),
    Trip(
        "a directory made again",
        _replace_directory,
        ["./", "d/", "d/.wh.e", "d/.wh.g", "d/new"],
    ),
    Trip("a rename", lambda t: t.rename("d/g", "d/h"), ["d/", "d/.wh.g", "d/h"]),
]


def bring(store: Store, name: str, tar: bytes, on: str | None) -> tuple[str, bytes]:
    """Seal a layer of a tar as core imports one; return its ID and the recipe of the tar."""
    recipe = io.BytesIO()
    parent = None if on is None else store.driver.tree(on)
    try:
        with store.driver.stage(on) as stage:
            apply_layer(io.BytesIO(tar), stage, parent, recipe=recipe)
            stage.seal(key(name))
    finally:
        if parent is not None:
            parent.close()
    return key(name), recipe.getvalue()


def carried_out(store: Store, container: str) -> bytes:
    """Return the tar of a container's changes, as core commits it."""
    out = io.BytesIO()
    with store.driver.tree(container) as tree:
        write_layer(change_entries(store.driver.changes(container)), tree.open, out)
    return out.getvalue()


def members(tar: bytes) -> list[tarfile.TarInfo]:
    """Return what Python's own reader finds in a tar."""
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as opened:
        return opened.getmembers()


class RoundTripConformance(Kit):
    """What goes out as a tar comes in again, and a layer's tar comes back byte for byte."""

    group = "round trips"

    @pytest.mark.parametrize("trip", TRIPS, ids=lambda trip: trip.name)
    def test_changes_go_out_as_a_layer_and_come_in_again(self, store: Store, trip: Trip) -> None:
        base = store.layer("base", *BASE)
        child = store.container("child", base)
        with store.write(child) as tree:
            trip.act(tree)
        tar = carried_out(store, child)
        found = [info.name + ("/" if info.isdir() else "") for info in members(tar)]
        assert found == trip.names, f"the layer of {trip.name} holds what changed, and no more"
        id, _ = bring(store, "again", tar, base)
        assert_same(store.look(child), store.look(id), f"{trip.name} survives a round trip")
        store.assert_layers(f"{trip.name} leaves the base alone, there and back")

    def test_what_a_layer_brings_is_what_its_changes_said(self, store: Store) -> None:
        base = store.layer("base", *BASE)
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.write_bytes("new", pattern(12_345))
            tree.link("new", "new2")
            _update(tree)
            tree.unlink("m")
            tree.chmod("d/g", 0o600)
        files = {
            change.entry.inode or change.path: change.entry.size
            for change in store.driver.changes(child)
            if change.entry.kind is Kind.FILE
        }
        size = sum(files.values())
        layer = store.commit(child, "committed")
        assert store.driver.usage(child).apparent == size, "apparent is the size of the changes"
        assert store.driver.usage(layer).apparent == size, "a layer's size is its changes' size"
        store.assert_layers("committing leaves the base alone")

    @pytest.mark.parametrize(
        "format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
    )
    def test_a_layers_tar_comes_back_byte_for_byte(self, store: Store, format: int) -> None:
        tar = odd_tar(format)
        base = store.layer("base", directory("d"), file("d/old", "old"), file("gone", "gone"))
        id, recipe = bring(store, "odd", tar, base)
        store.reopen()
        out = io.BytesIO()
        with store.driver.tree(id) as tree:
            replay(io.BytesIO(recipe), tree, out)
        assert digest(out.getvalue()) == digest(tar), "a layer's tar comes back byte for byte"
        with store.driver.tree(id) as tree:
            assert tree.read_bytes("d/old") == b"replaced" and not tree.exists("gone")

    def test_a_whole_tree_goes_out_and_comes_in_as_a_base(self, store: Store) -> None:
        base = store.layer("base", *BASE)
        out = io.BytesIO()
        with store.driver.tree(base) as tree:
            write_tree(tree, out)
        assert {info.name for info in members(out.getvalue())} >= {"d", "d/e/f", "n2", "s"}
        id, _ = bring(store, "flat", out.getvalue(), None)
        found = store.look(id)
        found[""] = store.layers[base][""]  # a tar of a tree doesn't speak of its root
        assert_same(store.layers[base], found, "a tree survives being exported")


def odd_tar(format: int) -> bytes:
    """Return a tar with what no tree remembers: order, duplicates, padding, trailing zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:

        def add(
            name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, **more: object
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = type, len(data), 1_600_000_000
            for field, value in more.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))

        add("./d/old", b"first")
        add("d/new", pattern(200_000))
        add("d/old", b"replaced")
        add("d", type=tarfile.DIRTYPE, mode=0o700)
        add(".wh.gone")
        add("z", b"last by name, not by place", uname="somebody", gname="some")
        add("a", type=tarfile.LNKTYPE, linkname="z")
        add("e" * 90 + "/" + "f" * 60, b"long name")
    out.write(bytes(20 * 512))
    return out.getvalue()
