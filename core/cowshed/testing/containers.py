"""Containers: prepare, fork, remove, reopen, list, and what each refuses."""

from __future__ import annotations

import pytest

from ..driver import Held
from ..errors import ConflictError, InUseError, NotFoundError
from .kit import Kit, Store, assert_changes, key
from .layers import assert_refuses_writes
from .oracle import assert_same, directory, empty, file, hardlink, whiteout


class ContainerConformance(Kit):
    """A container starts as its parent, and what is written in it stays in it."""

    group = "containers"

    def test_a_container_without_parent_is_an_empty_root(self, store: Store) -> None:
        container = store.container("c")
        assert_same(empty(), store.look(container), "an empty root is 0755 and 0:0")
        assert_changes(store.driver.changes(container), [], "a fresh container shows no changes")

    def test_a_container_equals_its_parent(self, store: Store) -> None:
        base = store.layer("base", directory("d", uid=3), file("d/a", "1"), hardlink("b", "d/a"))
        container = store.container("c", store.layer("top", file("new", "2"), on=base))
        assert_same(
            store.layers[key("top")], store.look(container), "a container starts as its parent"
        )
        assert_changes(store.driver.changes(container), [], "a fresh container shows no changes")

    def test_items_is_exactly_what_was_made(self, store: Store) -> None:
        base = store.layer("base", file("f", "1"))
        top = store.layer("top", file("g", "2"), on=base)
        one, two = store.container("one", top), store.container("two")
        fork = store.fork(one, "fork")
        expected = {
            base: (Held.LAYER, None),
            top: (Held.LAYER, base),
            one: (Held.CONTAINER, top),
            two: (Held.CONTAINER, None),
            fork: (Held.CONTAINER, top),
        }
        assert store.held() == expected, "items() is exactly what was made"
        store.reopen()
        assert store.held() == expected, "items() is the same after reopening"

    def test_everything_survives_reopening(self, store: Store) -> None:
        store.driver.durable = True
        base = store.layer("base", directory("d"), file("d/f", "1", xattrs={"user.a": b"b"}))
        store.layer("top", whiteout("d/f"), file("g", "2"), hardlink("h", "g"), on=base)
        container = store.container("c", key("top"))
        with store.write(container) as tree:
            tree.write_bytes("new", b"3")
            tree.chown("g", 7, 8)
        before, changes = store.look(container), store.changes(container)
        store.reopen()
        store.assert_layers("layers survive reopening")
        assert_same(before, store.look(container), "containers survive reopening")
        assert store.changes(container) == changes, "changes survive reopening"
        with store.write(container) as tree:
            tree.write_bytes("new", b"4")
        store.assert_layers("layers survive writes after reopening")

    def test_siblings_do_not_see_each_other(self, store: Store) -> None:
        base = store.layer("base", file("f", "base"), directory("d"))
        one, two = store.container("one", base), store.container("two", base)
        with store.write(one) as first, store.write(two) as second:
            first.write_bytes("f", b"one")
            second.write_bytes("d/f", b"two")
            first.unlink("f")
        with store.driver.tree(two) as tree:
            assert tree.read_bytes("f") == b"base", "a write in a container reaches it only"
        assert store.changes(one) == ["C ", "D f"]
        store.assert_layers()

    def test_a_view_of_a_container_refuses_writes(self, store: Store) -> None:
        base = store.layer("base", file("f", "x"), directory("d"))
        container = store.container("c", base)
        with store.driver.tree(container) as tree:
            assert_refuses_writes(tree)
        assert_same(store.layers[base], store.look(container), "a view refuses writes")

    def test_written_things_show_after_sync(self, store: Store) -> None:
        container = store.container("c", store.layer("base", file("f", "old")))
        with store.write(container) as tree:
            tree.write_bytes("f", b"new")
            tree.mkdir("d")
            tree.sync()
            with store.driver.tree(container) as other:
                assert other.read_bytes("f") == b"new", "writes are visible once sync returns"
                assert other.exists("d"), "writes are visible once sync returns"
            tree.write_bytes("d/g", b"more")
        with store.driver.tree(container) as other:
            assert other.read_bytes("d/g") == b"more", "writes are visible once close returns"

    def test_closing_twice_is_fine(self, store: Store) -> None:
        container = store.container("c")
        tree = store.write(container)
        tree.write_bytes("f", b"x")
        tree.close()
        tree.close()
        view = store.driver.tree(container)
        view.close()
        view.close()
        store.driver.close()
        store.driver.close()

    # -- fork -----------------------------------------------------------------------------------

    def test_a_fork_is_equal_in_content_and_changes(self, store: Store) -> None:
        base = store.layer("base", directory("d"), file("d/a", "1"), file("b", "2"), file("c", "3"))
        origin = store.container("origin", base)
        with store.write(origin) as tree:
            tree.write_bytes("d/a", b"changed")
            tree.unlink("b")
            tree.link("d/a", "linked")
            tree.setxattr("c", "user.k", b"v")
            tree.chown("d", 5, 6)
            tree.utime("", 77)
        fork = store.fork(origin, "fork")
        assert_same(store.look(origin), store.look(fork), "a fork equals its origin")
        assert store.changes(fork) == store.changes(origin), "a fork shows its origin's changes"

    def test_a_fork_and_its_origin_are_independent(self, store: Store) -> None:
        base = store.layer("base", file("f", "base"), file("g", "base"))
        origin = store.container("origin", base)
        with store.write(origin) as tree:
            tree.write_bytes("own", b"before")
        fork = store.fork(origin, "fork")
        origin_then, fork_then = store.look(origin), store.look(fork)
        with store.write(fork) as tree:
            tree.write_bytes("f", b"fork")
            tree.write_bytes("own", b"after")
            tree.chmod("g", 0o600)
        assert_same(origin_then, store.look(origin), "a write in a fork doesn't reach its origin")
        fork_then = store.look(fork)
        with store.write(origin) as tree:
            tree.write_bytes("f", b"origin")
            with tree.open("own", "r+b") as content:
                content.write(b"B")
            tree.unlink("g")
        assert_same(fork_then, store.look(fork), "a write in an origin doesn't reach its fork")
        store.assert_layers()

    def test_a_fork_outlives_its_origin(self, store: Store) -> None:
        base = store.layer("base", file("f", "base"))
        origin = store.container("origin", base)
        with store.write(origin) as tree:
            tree.write_bytes("own", b"mine")
        before = store.look(origin)
        fork = store.fork(origin, "fork")
        again = store.fork(fork, "again")
        store.driver.remove(origin)
        store.driver.collect()
        assert_same(before, store.look(fork), "a fork outlives its origin")
        store.driver.remove(fork)
        store.driver.collect()
        store.reopen()
        assert_same(before, store.look(again), "a fork of a fork outlives both")
        assert store.changes(again)[-1] == "A own"
        with pytest.raises(InUseError):
            store.driver.remove(base)

    def test_forking_refuses_unknown_taken_and_layers(self, store: Store) -> None:
        layer = store.layer("layer", file("f", "x"))
        one, two = store.container("one", layer), store.container("two", layer)
        with pytest.raises(NotFoundError):
            store.fork(key("unknown"), "new")
        with pytest.raises(NotFoundError):
            store.fork(layer, "new")
        for taken in (layer, one, two):
            with pytest.raises(ConflictError):
                store.driver.fork(one, taken)
        assert set(store.held()) == {layer, one, two}, "a refused fork leaves the store as it was"

    # -- many -----------------------------------------------------------------------------------

    def test_many_are_prepared_and_removed_at_once(self, store: Store) -> None:
        base = store.layer("base", file("f", "x"))
        many = [key(f"many{number}") for number in range(20)]
        store.driver.prepare_many(many, base)
        assert set(store.held()) == {base, *many}
        for id in many[::7]:
            assert_same(store.layers[base], store.look(id), "each of many equals the parent")
        with store.write(many[0]) as tree:
            tree.write_bytes("f", b"changed")
        assert_same(store.layers[base], store.look(many[1]), "each of many is its own")
        store.driver.remove_many([*many, base])
        assert store.held() == {}, "remove_many removes all, in the order given"

    def test_preparing_many_is_all_or_none(self, store: Store) -> None:
        taken = store.container("taken")
        with pytest.raises(ConflictError):
            store.driver.prepare_many([key("new1"), key("new2"), taken], None)
        assert set(store.held()) == {taken}, "prepare_many makes all or none"
        with pytest.raises(NotFoundError):
            store.driver.prepare_many([key("new1")], key("unknown"))
        assert set(store.held()) == {taken}

    # -- unsynced -------------------------------------------------------------------------------

    def test_a_container_that_isnt_synced_is_as_others_are(self, store: Store) -> None:
        base = store.layer("base", file("f", "x"))
        driver, container = store.driver, key("unsynced")
        driver.prepare_unsynced(container, base)
        assert store.held()[container] == (Held.CONTAINER, base)
        assert_same(store.layers[base], store.look(container), "it equals the parent")
        with store.write(container) as tree:
            tree.write_bytes("f", b"changed")
        store.fork(container, "fork")
        assert store.changes(container) == store.changes(key("fork")) == ["C f"]
        driver.remove(container)
        for taken in (base, key("fork")):
            with pytest.raises(ConflictError):
                driver.prepare_unsynced(taken, base)
        with pytest.raises(NotFoundError):
            driver.prepare_unsynced(container, key("unknown"))
        driver.prepare_unsynced(container, None)
        assert set(store.held()) == {base, container, key("fork")}
        store.assert_layers()

    # -- errors ---------------------------------------------------------------------------------

    def test_unknown_ids_are_not_found(self, store: Store) -> None:
        unknown = key("unknown")
        layer = store.layer("layer", file("f", "x"))
        driver = store.driver
        for call in (
            lambda: driver.prepare(key("c"), unknown),
            lambda: driver.tree(unknown),
            lambda: driver.tree(unknown, writable=True),
            lambda: list(driver.changes(unknown)),
            lambda: list(driver.changes(layer)),
            lambda: driver.remove(unknown),
            lambda: driver.usage(unknown),
            lambda: list(driver.verify(unknown)),
        ):
            with pytest.raises(NotFoundError):
                call()
        assert set(store.held()) == {layer}

    def test_taken_ids_conflict(self, store: Store) -> None:
        layer = store.layer("layer", file("f", "x"))
        container = store.container("c", layer)
        with store.write(container) as tree:
            tree.write_bytes("mine", b"1")
        before = store.look(container)
        for taken in (layer, container):
            for parent in (None, layer):
                with pytest.raises(ConflictError):
                    store.driver.prepare(taken, parent)
        assert_same(before, store.look(container), "a refused prepare leaves the store as it was")
        store.assert_layers()

    def test_a_removed_container_leaves_nothing_for_its_successor(self, store: Store) -> None:
        base = store.layer("base", file("f", "base"))
        container = store.container("c", base)
        with store.write(container) as tree:
            tree.write_bytes("f", b"first life")
            tree.write_bytes("own", b"first life")
        store.driver.remove(container)
        with pytest.raises(NotFoundError):
            store.driver.tree(container)
        with pytest.raises(NotFoundError):
            store.driver.remove(container)
        store.container("c", base)
        assert_same(store.layers[base], store.look(container), "a removed ID leaves nothing behind")
        assert store.changes(container) == []
        store.reopen()
        assert_same(store.layers[base], store.look(container), "a removed ID leaves nothing behind")

    def test_removing_a_container_leaves_its_parent_and_siblings(self, store: Store) -> None:
        base = store.layer("base", file("f", "base"))
        one, two = store.container("one", base), store.container("two", base)
        with store.write(two) as tree:
            tree.write_bytes("own", b"two")
        before = store.look(two)
        store.driver.remove(one)
        store.driver.collect()
        assert_same(before, store.look(two), "removing a container leaves its siblings")
        store.assert_layers("removing a container leaves its parent")
