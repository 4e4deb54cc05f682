"""Layers: staging, sealing, chains, whiteouts, opaque directories, hard links."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from ..driver import Held
from ..entry import Entry, Kind
from ..errors import ConflictError, InUseError, NotFoundError
from ..tree import Tree
from .kit import Kit, Store, key
from .oracle import (
    LONG_AGO,
    assert_same,
    directory,
    empty,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)


def assert_refuses_writes(tree: Tree) -> None:
    """Fail unless every mutating call on ``tree`` (with file f and directory d) is EROFS."""
    assert not tree.writable, "a view says that it isn't writable"
    calls: dict[str, Callable[[], object]] = {
        "open wb": lambda: tree.open("f", "wb"),
        "open r+b": lambda: tree.open("f", "r+b"),
        "open ab": lambda: tree.open("f", "ab"),
        "open xb": lambda: tree.open("new", "xb"),
        "mkdir": lambda: tree.mkdir("new"),
        "symlink": lambda: tree.symlink("f", "new"),
        "link": lambda: tree.link("f", "new"),
        "mknod": lambda: tree.mknod("new", 0o010600),
        "rename": lambda: tree.rename("f", "new"),
        "unlink": lambda: tree.unlink("f"),
        "rmdir": lambda: tree.rmdir("d"),
        "chmod": lambda: tree.chmod("f", 0o600),
        "chown": lambda: tree.chown("f", 1, 1),
        "utime": lambda: tree.utime("f", 1),
        "setxattr": lambda: tree.setxattr("f", "user.a", b"b"),
        "removexattr": lambda: tree.removexattr("f", "user.a"),
        "truncate": lambda: tree.truncate("f", 0),
        "apply": lambda: tree.apply(Entry(path="f", kind=Kind.WHITEOUT)),
    }
    for name, call in calls.items():
        try:
            call()
        except OSError as error:
            assert error.errno == errno.EROFS, f"{name} on a view is EROFS, not {error!r}"
        else:
            pytest.fail(f"broken promise: {name} on a view is refused with EROFS")


class LayerConformance(Kit):
    """A layer shows its parent with its entries applied, and never anything else."""

    group = "layers"

    #: Layers in the deep-chain test; ``spec.max_depth`` bounds it.
    depth = 128

    def test_an_empty_layer_exists_and_is_empty(self, store: Store) -> None:
        layer = store.layer("empty")
        assert_same(empty(), store.look(layer), "an empty layer is a root of 0755 and 0:0")

    def test_a_layer_without_entries_equals_its_parent(self, store: Store) -> None:
        base = store.layer(
            "base", directory("etc"), file("etc/name", "a"), hardlink("n", "etc/name")
        )
        child = store.layer("child", on=base)
        assert_same(store.layers[base], store.look(child), "a child equals its parent")

    def test_a_chmod_of_the_root_is_inherited_by_the_grandchild(self, store: Store) -> None:
        base = store.layer("base", directory("", mode=0o711, uid=5, gid=6))
        child = store.layer("child", file("f", "x"), on=base)
        grandchild = store.layer("grandchild", file("g", "y"), on=child)
        seen = store.look(grandchild)[""]
        assert (seen.mode, seen.uid, seen.gid, seen.mtime_ns) == (0o711, 5, 6, LONG_AGO)

    def test_entries_of_every_shape_are_kept(self, store: Store) -> None:
        store.layer(
            "base",
            directory("", mode=0o1777),
            directory("bin"),
            file("bin/su", b"\x7fELF", mode=0o4755, gid=7),
            file("bin/wall", b"#!", mode=0o2755, gid=5),
            directory("tmp", mode=0o1777),
            directory("home/".rstrip("/"), mode=0o2750, uid=1000, gid=1000),
            symlink("sbin", "bin", uid=3),
            file("none", b"", mode=0),
        )
        store.assert_layers("mode, setuid, setgid, sticky, owner, group and mtime survive")

    def test_a_child_replaces_adds_and_removes(self, store: Store) -> None:
        base = store.layer(
            "base", directory("d"), file("d/keep", "1"), file("d/change", "2"), file("d/go", "3")
        )
        store.layer("child", file("d/change", "22"), whiteout("d/go"), file("d/new", "4"), on=base)
        store.assert_layers("deletions are honoured, and the base is untouched")

    def test_a_whiteout_of_a_directory_takes_what_is_below(self, store: Store) -> None:
        base = store.layer("base", directory("a"), directory("a/b"), file("a/b/c", "1"), file("ab"))
        child = store.layer("child", whiteout("a"), on=base)
        store.layer("grandchild", directory("a"), file("a/new"), on=child)
        store.assert_layers("a directory removed and made again hides its old children")

    def test_deleted_files_stay_deleted_through_an_empty_child(self, store: Store) -> None:
        base = store.layer("base", file("a", "1"), file("b", "2"))
        child = store.layer("child", whiteout("a"), on=base)
        store.layer("nothing", on=child)
        store.layer("grandchild", file("c", "3"), on=key("nothing"))
        store.assert_layers("deleted files stay deleted through an empty child")

    def test_opaque_empties_a_directory_and_keeps_its_attributes(self, store: Store) -> None:
        base = store.layer(
            "base",
            directory("d", mode=0o700, uid=9, mtime_ns=5),
            directory("d/sub"),
            file("d/sub/f", "1"),
            file("d/g", "2"),
        )
        store.layer("child", opaque("d"), file("d/new", "3"), on=base)
        store.layer("again", opaque("d"), directory("d", mode=0o755), on=base)
        store.layer("all", opaque(""), file("only", "4"), on=base)
        store.assert_layers("opaque empties a directory; the directory itself stays")

    def test_opaque_acts_at_its_moment(self, store: Store) -> None:
        base = store.layer("base", directory("d"), file("d/old", "1"))
        store.layer("child", file("d/early", "2"), opaque("d"), file("d/late", "3"), on=base)
        store.assert_layers("opaque removes what the directory holds at that moment")

    @pytest.mark.parametrize("new", ["file", "directory", "symlink"])
    @pytest.mark.parametrize("old", ["file", "directory", "symlink"])
    def test_any_kind_replaces_any_other(self, store: Store, old: str, new: str) -> None:
        made = {
            "file": [file("x", "content", mode=0o600, uid=1)],
            "directory": [directory("x", mode=0o700, uid=2), file("x/child", "inside")],
            "symlink": [symlink("x", "elsewhere", uid=3)],
        }
        base = store.layer("base", directory("elsewhere"), *made[old])
        store.layer("child", *made[new], on=base)
        store.assert_layers(f"a {new} replaces a {old} whole; directories merge")

    def test_deleting_and_making_again_works_at_each_depth(self, store: Store) -> None:
        path = ""
        things = [file("top", "0")]
        for level in range(10):
            path = f"{path}/d{level}".strip("/")
            things += [directory(path), file(f"{path}/f", str(level))]
        below = store.layer("base", *things)
        parts = path.split("/")
        for level in range(10, 0, -1):
            victim = "/".join(parts[:level])
            gone = store.layer(f"gone{level}", whiteout(victim), on=below)
            below = store.layer(
                f"back{level}", directory(victim, mode=0o750), file(f"{victim}/n", "n"), on=gone
            )
        store.assert_layers("delete and re-create at each of ten depths is exact")

    def test_a_deep_chain_equals_a_flat_reference_at_every_step(self, store: Store) -> None:
        bound = self.spec.max_depth if self.spec else None
        depth = min(self.depth, bound) if bound else self.depth
        below: str | None = None
        for level in range(depth):
            things = [file(f"own{level % 8}", str(level), mtime_ns=level)]
            if level == 0:
                things += [file("bottom", "first"), directory("d")]
            if level % 5 == 4:
                things += [whiteout(f"own{(level - 1) % 8}"), file(f"d/{level}", "x")]
            below = store.layer(f"level{level}", *things, on=below)
        assert below is not None
        with store.driver.tree(below) as tree:
            assert tree.read_bytes("bottom") == b"first", "a bottom file reads through the chain"
        store.assert_layers("every step of a deep chain equals a flat reference")

    def test_a_bottom_file_reads_through_five_hundred_layers(self, store: Store) -> None:
        bound = self.spec.max_depth if self.spec else None
        depth = min(500, bound or 500)
        below = store.layer("bottom", file("bottom", "first", uid=7), file("covered", "0"))
        store.layers.clear()  # re-hashing five hundred trees would show nothing more
        for level in range(1, depth):
            id = key(f"level{level}")
            with store.driver.stage(below) as stage:
                covering = file("covered", str(level))
                stage.add(covering.entry, covering.content())
                stage.seal(id)
            below = id
        container = store.container("container", below)
        for id in (below, container):
            with store.driver.tree(id) as tree:
                assert tree.read_bytes("bottom") == b"first", "a bottom file reads through"
                assert tree.stat("bottom").uid == 7
                assert tree.read_bytes("covered") == str(depth - 1).encode(), "the top one wins"
        with store.write(container) as tree:
            tree.unlink("bottom")
        assert store.changes(container) == ["C ", "D bottom"]
        assert len(store.held()) == depth + 1

    # -- hard links -----------------------------------------------------------------------------

    def test_hard_links_in_a_layer_are_one_file(self, store: Store) -> None:
        store.layer(
            "base",
            directory("d"),
            file("d/a", "content", xattrs={"user.x": b"1"}),
            hardlink("d/b", "d/a"),
            hardlink("c", "d/b"),
            file("same", "content", xattrs={"user.x": b"1"}),
        )
        store.assert_layers("names of one file show one inode; equal files are not linked")

    def test_a_hard_link_may_reach_into_the_parent(self, store: Store) -> None:
        base = store.layer("base", directory("d"), file("d/a", "content", uid=4))
        child = store.layer("child", hardlink("b", "d/a"), on=base)
        store.layer("grandchild", whiteout("d/a"), on=child)
        store.layer("symlinks", symlink("s", "d/a"), hardlink("s2", "s"), on=base)
        store.assert_layers("a hard link to a parent's file joins both names")

    def test_replacing_one_name_leaves_the_other(self, store: Store) -> None:
        base = store.layer("base", file("a", "old"), hardlink("b", "a"))
        store.layer("child", file("a", "new"), on=base)
        store.layer("both", file("a", "new"), hardlink("b", "a"), on=base)
        store.layer("removed", whiteout("a"), on=base)
        store.assert_layers("a replaced name leaves the file's other names alone")

    # -- errors ---------------------------------------------------------------------------------

    def test_staging_on_an_unknown_parent_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            store.driver.stage(key("unknown"))
        assert store.held() == {}

    def test_a_container_is_no_parent(self, store: Store) -> None:
        container = store.container("container")
        with pytest.raises(NotFoundError):
            store.driver.stage(container)
        with pytest.raises(NotFoundError):
            store.driver.prepare(key("other"), container)

    def test_a_containers_id_is_taken_for_layers(self, store: Store) -> None:
        container = store.container("container")
        with pytest.raises(ConflictError), store.driver.stage(None) as stage:
            stage.seal(container)
        assert store.held() == {container: (Held.CONTAINER, None)}

    def test_removing_a_layer_with_dependants_is_refused(self, store: Store) -> None:
        base = store.layer("base", file("f", "1"))
        middle = store.layer("middle", file("g", "2"), on=base)
        top = store.layer("top", file("h", "3"), on=middle)
        container = store.container("container", top)
        for needed in (base, middle, top):
            with pytest.raises(InUseError):
                store.driver.remove(needed)
        store.assert_layers("a refused removal leaves everything")
        for id in (container, top, middle, base):
            store.driver.remove(id)
            assert id not in store.held(), "what is removed is invisible at once"

    def test_layers_go_as_soon_as_nothing_stands_on_them_and_no_sooner(self, store: Store) -> None:
        """As when one of two images is removed: what only it needed goes, its other ancestors
        stay."""
        base = store.layer("base", file("f", "1"))
        middle = store.layer("middle", file("g", "2"), on=base)
        shared = store.layer("shared", file("h", "3"), on=middle)
        goes = [
            store.layer("above", file("i", "4"), on=shared),
            store.layer("top", file("j", "5"), on=key("above")),
        ]
        stays = store.layer("stays", file("k", "6"), on=shared)
        first, second = (store.container(name, stays) for name in ("first", "second"))
        picture = store.look(first)
        for layer in reversed(goes):
            store.driver.remove(layer)
            del store.layers[layer]
        store.driver.remove(second)
        store.reopen()
        for needed in (shared, middle, base, stays):
            with pytest.raises(InUseError):
                store.driver.remove(needed)
        assert set(store.held()) == {base, middle, shared, stays, first}
        assert_same(picture, store.look(first), "what a container stands on stays")
        store.assert_layers("what another image needs stays")
        for id in (first, stays, shared, middle, base):
            store.driver.remove(id)
        assert not store.held(), "what nothing stands on can be removed"

    def test_a_layer_refuses_writes(self, store: Store) -> None:
        layer = store.layer("layer", file("f", "x"), directory("d"))
        with pytest.raises(OSError) as caught:
            store.driver.tree(layer, writable=True)
        assert caught.value.errno == errno.EROFS, "a layer is never writable"
        with store.driver.tree(layer) as tree:
            assert_refuses_writes(tree)
        store.assert_layers()

    def test_a_removed_id_can_be_used_again_for_another_kind(self, store: Store) -> None:
        store.layer("id", file("f", "layer"))
        store.driver.remove(key("id"))
        store.layers.clear()
        container = store.container("id")
        assert_same(empty(), store.look(container), "a removed ID leaves nothing behind")
        store.driver.remove(container)
        store.layer("id", file("g", "again"))
        store.assert_layers("a removed ID is free again")
