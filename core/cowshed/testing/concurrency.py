"""Concurrency: several driver objects and threads on one store."""

from __future__ import annotations

import threading

import pytest

from ..driver import Driver, Held
from ..errors import InUseError, NotFoundError
from .files import pattern
from .kit import Kit, Store, key
from .oracle import (
    Thing,
    assert_same,
    directory,
    file,
    hardlink,
    look_at,
    sketch,
    whiteout,
)

#: Patience with another process; generous, because a busy machine isn't a broken promise.
PATIENCE = 60.0


def sample(number: int) -> list[Thing]:
    """Return the things of one layer; every number's differ."""
    return [
        directory(""),
        directory("d", mode=0o700 + number % 8),
        *(file(f"d/f{n}", pattern(2000 + n, number * 10 + n), uid=number) for n in range(5)),
        file("big", pattern(400_000, number)),
        hardlink("again", "d/f0"),
        file("d/f1", b"replaced"),
        whiteout("d/f2"),
    ]


def seal(driver: Driver, id: str, parent: str | None, things: list[Thing]) -> None:
    """Seal one layer."""
    with driver.stage(parent) as stage:
        for thing in things:
            stage.add(thing.entry, thing.content())
        stage.seal(id)


class ConcurrencyConformance(Kit):
    """Several may use one store at once, each through a ``Driver`` of its own."""

    group = "concurrency"

    # -- several driver objects -----------------------------------------------------------------

    def test_another_driver_object_sees_everything(self, store: Store) -> None:
        other = store.another()
        base = store.layer("base", *sample(1))
        child = store.container("child", base)
        assert {item.id for item in other.items()} == {base, child}
        assert_same(store.layers[base], look_at(other, base), "another driver sees layers")
        with store.driver.tree(child) as tree:  # seen once, it must be looked at again
            assert not tree.exists("d/new")
        with other.tree(child, writable=True) as tree:
            tree.write_bytes("d/new", b"by the other")
        with store.driver.tree(child) as tree:
            assert tree.read_bytes("d/new") == b"by the other", "another driver's writes are seen"
        other.remove(child)
        with pytest.raises(NotFoundError):
            store.driver.tree(child)
        other.close()
        store.assert_layers("closing one driver leaves the others alone")

    def test_two_may_stage_the_same_layer(self, store: Store) -> None:
        other = store.another()
        stages = [store.driver.stage(None), other.stage(None)]
        for one, two in zip(sample(1), sample(1), strict=True):
            stages[0].add(one.entry, one.content())
            stages[1].add(two.entry, two.content())
        for stage in stages:
            stage.seal(key("layer"))
            stage.discard()
        assert store.held() == {key("layer"): (Held.LAYER, None)}
        assert_same(sketch(sample(1)), store.look(key("layer")), "two importers may race")

    def test_recover_leaves_live_stages_and_trees_alone(self, store: Store) -> None:
        base = store.layer("base", *sample(1))
        child = store.container("child", base)
        with store.driver.stage(base) as stage, store.write(child) as tree:
            for thing in sample(2)[:4]:
                stage.add(thing.entry, thing.content())
            tree.write_bytes("before", b"1")
            other = store.another()
            other.recover()
            store.driver.recover()
            other.recover()
            for thing in sample(2)[4:]:
                stage.add(thing.entry, thing.content())
            tree.write_bytes("after", b"2")
            stage.seal(key("sealed"))
        expected = sketch(sample(2), store.layers[base])
        assert_same(expected, store.look(key("sealed")), "recover leaves live stages alone")
        with store.driver.tree(child) as tree:
            assert tree.read_bytes("before") + tree.read_bytes("after") == b"12"
        store.assert_layers("recover leaves layers alone")

    def test_recover_is_idempotent(self, store: Store) -> None:
        base = store.layer("base", *sample(1))
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.unlink("big")
        before, held = store.look(child), store.held()
        for _ in range(2):
            store.driver.recover()
            assert store.held() == held, "recover leaves what is published"
            assert_same(before, store.look(child), "recover leaves containers alone")
            store.assert_layers("recover leaves layers alone")
        store.reopen()
        store.driver.recover()
        assert_same(before, store.look(child), "recover leaves containers alone")

    def test_a_parent_that_goes_away_under_a_stage_leaves_no_orphan(self, store: Store) -> None:
        base = store.layer("base", *sample(1))
        with store.driver.stage(base) as stage:
            stage.add(directory("new").entry)
            refused = False
            try:
                store.another().remove(base)
            except InUseError:
                refused = True
            try:
                stage.seal(key("child"))
            except NotFoundError:
                assert not refused, "either the removal is refused or the seal"
        held = store.held()
        assert all(parent is None or parent in held for _, parent in held.values()), held
        store.driver.recover()
        for id in held:
            store.look(id)

    def test_threads_with_a_driver_each_dont_disturb_each_other(self, store: Store) -> None:
        base = store.layer("base", *sample(1))
        problems: list[BaseException] = []

        def work(number: int, driver: Driver) -> None:
            try:
                for turn in range(5):
                    seal(driver, key(f"common{turn}"), base, sample(turn))
                    seal(driver, key(f"own{number}-{turn}"), base, sample(number))
                    container = key(f"c{number}-{turn}")
                    driver.prepare(container, key(f"common{turn}"))
                    with driver.tree(container, writable=True) as tree:
                        tree.write_bytes("d/f3", b"mine")
                    if turn % 2:
                        driver.remove(container)
                        driver.remove(key(f"own{number}-{turn}"))
            except BaseException as error:
                problems.append(error)

        threads = [
            threading.Thread(target=work, args=(number, store.another())) for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not problems, problems
        expected = {base, *(key(f"common{turn}") for turn in range(5))}
        expected |= {key(f"{n}{k}-{t}") for n in ("own", "c") for k in range(3) for t in (0, 2, 4)}
        assert set(store.held()) == expected
        for turn in range(5):
            picture = sketch(sample(turn), store.layers[base])
            assert_same(picture, store.look(key(f"common{turn}")), "threads don't disturb others")
        store.assert_layers()
