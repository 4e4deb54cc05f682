"""Keys: what an ID stands for, and that one ID stands for one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from ..driver import Held
from ..errors import ConflictError
from .kit import Kit, Store, key
from .oracle import assert_same, file


def _layer(store: Store, id: str) -> None:
    with store.driver.stage(None) as stage:
        thing = file("f", "layer")
        stage.add(thing.entry, thing.content())
        stage.seal(id)


def _container(store: Store, id: str) -> None:
    store.driver.prepare(id, None)


def _container_on_a_layer(store: Store, id: str) -> None:
    store.driver.prepare(id, key("base"))


def _one_of_many(store: Store, id: str) -> None:
    store.driver.prepare_many([key("first"), id], key("base"))
    store.driver.remove(key("first"))


def _fork(store: Store, id: str) -> None:
    store.driver.fork(key("origin"), id)


MAKERS: dict[str, Callable[[Store, str], None]] = {
    "a layer": _layer,
    "a container": _container,
    "a container on a layer": _container_on_a_layer,
    "one of many": _one_of_many,
    "a fork": _fork,
}

every_pair = [pytest.param(old, new, id=f"{new} after {old}") for old in MAKERS for new in MAKERS]


class KeyConformance(Kit):
    """An ID that is taken is refused for every kind of thing, and free again once removed."""

    group = "layers"

    def _ground(self, store: Store) -> dict[str, tuple[Held, str | None]]:
        base = store.layer("base", file("f", "base"))
        origin = store.container("origin", base)
        with store.write(origin) as tree:
            tree.write_bytes("own", b"origin")
        return store.held()

    @pytest.mark.parametrize(("old", "new"), every_pair)
    def test_a_taken_id_is_refused_for_another_thing(
        self, store: Store, old: str, new: str
    ) -> None:
        self._ground(store)
        MAKERS[old](store, key("id"))
        held, before = store.held(), store.look(key("id"))
        resealing = old == new == "a layer"
        expected: AbstractContextManager[object] = (
            nullcontext() if resealing else pytest.raises(ConflictError)
        )
        with expected:
            MAKERS[new](store, key("id"))
        assert store.held() == held, f"{new} with the ID of {old} changes nothing"
        assert_same(before, store.look(key("id")), f"{new} with the ID of {old} changes nothing")
        store.assert_layers()

    @pytest.mark.parametrize(("old", "new"), every_pair)
    def test_a_removed_id_is_free_for_any_thing(self, store: Store, old: str, new: str) -> None:
        ground = self._ground(store)
        MAKERS[new](store, key("fresh"))
        fresh = store.look(key("fresh"))
        store.driver.remove(key("fresh"))
        MAKERS[old](store, key("id"))
        if old != "a layer":
            with store.write(key("id")) as tree:
                tree.write_bytes("left over?", b"no")
        store.driver.remove(key("id"))
        assert store.held() == ground, "what is removed is gone"
        MAKERS[new](store, key("id"))
        found = store.look(key("id"))
        assert set(found) == set(fresh), f"{old} leaves nothing for {new} of the same ID"
        assert found.get("f") == fresh.get("f"), f"{old} leaves nothing for {new} of the same ID"
        if new != "a layer":
            assert store.changes(key("id")) == (["C ", "A own"] if new == "a fork" else []), (
                f"{old} leaves nothing for {new} of the same ID"
            )
        store.assert_layers()
