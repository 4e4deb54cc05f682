"""Processes: several on one store, and sudden death.

Processes are spawned and load the test's file by its path, so the test class must be defined at
the top of its module.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from ..driver import Held
from ..errors import InUseError, NotFoundError
from .concurrency import PATIENCE, sample, seal
from .files import pattern
from .kit import Kit, Store, key, kit_at, where
from .oracle import (
    Picture,
    assert_same,
    file,
    look_at,
    sketch,
)

# -- what other processes do: at the top of the module, so that they can import it ---------------


Work = Callable[[Kit, Path, Connection, int], None]


def _run(work: Work, place: str, root: Path, start: Connection, number: int) -> None:
    work(kit_at(place), root, start, number)


def _seal_and_prepare(kit: Kit, root: Path, start: Connection, number: int) -> None:
    with kit.open_driver(root) as driver:
        start.send("ready")
        start.recv()
        for turn in range(4):
            seal(driver, key(f"common{turn}"), key("base"), sample(turn))
            seal(driver, key(f"own{number}-{turn}"), key("base"), sample(turn + 50))
            driver.prepare(key(f"c{number}-{turn}"), key(f"common{turn}"))
            with driver.tree(key(f"c{number}-{turn}"), writable=True) as tree:
                tree.write_bytes("d/f3", f"{number}".encode())
        driver.remove(key(f"own{number}-0"))
        driver.remove(key(f"c{number}-0"))


def _stage_and_wait(kit: Kit, root: Path, start: Connection, number: int) -> None:
    driver = kit.open_driver(root)
    stage = driver.stage(None)
    made = file("half", pattern(4 << 20))
    stage.add(made.entry, made.content())
    tree = driver.tree(key("container"), writable=True)
    tree.write_bytes("half", pattern(100_000))
    start.send("ready")
    time.sleep(PATIENCE)


def _work_until_killed(kit: Kit, root: Path, start: Connection, number: int) -> None:
    driver = kit.open_driver(root)
    start.send("ready")
    for turn in range(10_000):
        name = f"kill{number}-{turn}"
        seal(driver, key(name), key("base"), sample(number))
        driver.prepare(key(f"{name}c"), key(name))
        with driver.tree(key(f"{name}c"), writable=True) as tree:
            tree.write_bytes("d/f3", b"written")
            tree.unlink("big")
        if turn % 2:
            driver.remove(key(f"{name}c"))
            driver.remove(key(name))


def _read_and_report(kit: Kit, root: Path, start: Connection, number: int) -> None:
    with kit.open_driver(root) as driver:
        start.send("ready")
        seen = 0
        while not start.poll():
            assert_same(sketch(sample(number)), look_at(driver, key("base")), "readers see all")
            seen += 1
        start.send(seen)


def _build_on_what_goes_away(kit: Kit, root: Path, start: Connection, number: int) -> None:
    with kit.open_driver(root) as driver:
        start.send("ready")
        built = 0
        while not start.poll():
            id = key(f"built{built}")
            try:
                seal(driver, id, key("base"), sample(number)[:3])
                driver.prepare(key(f"on{built}"), id)
            except (NotFoundError, InUseError):
                continue  # it was gone, or is being removed
            built += 1
            driver.remove(key(f"on{built - 1}"))
            driver.remove(id)
        start.send(built)


class ProcessConformance(Kit):
    """Several processes may use one store at once, and any may die at any moment."""

    group = "concurrency"

    @contextmanager
    def process(
        self,
        root: Path,
        work: Work,
        number: int = 0,
    ) -> Generator[tuple[BaseProcess, Connection]]:
        """Run ``work`` in a process of its own, which has sent "ready"."""
        if not self.processes:
            pytest.skip("the store lives in one process")
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (work, where(self), root, there, number)
        process = context.Process(target=_run, args=arguments)
        process.start()
        there.close()
        try:
            assert here.poll(PATIENCE), "the other process doesn't start"
            assert here.recv() == "ready"
            yield process, here
        finally:
            process.kill()
            process.join()
            here.close()

    def test_two_processes_seal_the_same_layers_at_once(self, store: Store) -> None:
        base = store.layer("base", *sample(9))
        with (
            self.process(store.root, _seal_and_prepare, 1) as (one, first),
            self.process(store.root, _seal_and_prepare, 2) as (two, second),
        ):
            first.send("go")
            second.send("go")
            for process in (one, two):
                process.join(PATIENCE)
                assert process.exitcode == 0, "two processes may seal the same layers at once"
        expected = {base, *(key(f"common{turn}") for turn in range(4))}
        expected |= {key(f"{n}{k}-{t}") for n in ("own", "c") for k in (1, 2) for t in (1, 2, 3)}
        assert set(store.held()) == expected
        for turn in range(4):
            picture = sketch(sample(turn), store.layers[base])
            assert_same(picture, store.look(key(f"common{turn}")), "a race leaves whole layers")
        with store.driver.tree(key("c2-3")) as tree:
            assert tree.read_bytes("d/f3") == b"2", "containers of two processes are apart"
        store.assert_layers()

    def test_a_reader_isnt_disturbed_by_a_writer(self, store: Store) -> None:
        base = store.layer("base", *sample(7))
        with self.process(store.root, _read_and_report, 7) as (process, reader):
            for turn in range(6):
                id = store.layer(f"turn{turn}", *sample(turn), on=base)
                child = store.container(f"child{turn}", id)
                with store.write(child) as tree:
                    tree.remove_tree("d")
                store.driver.remove(child)
                store.driver.remove(id)
                del store.layers[id]
                store.driver.collect()
            reader.send("stop")
            assert reader.poll(PATIENCE), "readers don't wait for writers"
            assert reader.recv() > 0
            process.join(PATIENCE)
            assert process.exitcode == 0
        store.assert_layers()

    def test_building_on_a_layer_that_another_removes_leaves_no_orphan(self, store: Store) -> None:
        things = sample(5)[:3]
        store.layer("base", *things)
        with self.process(store.root, _build_on_what_goes_away, 6) as (process, builder):
            removed = 0
            for _ in range(300 if self.thorough else 40):
                try:
                    store.driver.remove(key("base"))
                except InUseError:
                    time.sleep(0.001)
                    continue
                removed += 1
                held = store.held()
                orphans = [id for id, (_, parent) in held.items() if parent not in (None, *held)]
                assert not orphans, "a layer goes away only if nothing stands on it"
                store.layer("base", *things)
            builder.send("stop")
            assert builder.poll(PATIENCE), "the other process hangs"
            built = builder.recv()
            process.join(PATIENCE)
            assert process.exitcode == 0, "the other process failed by itself"
        assert removed or built, "one of the two gets on"
        store.driver.recover()
        for id, (_, parent) in store.held().items():
            assert parent is None or parent in store.held(), "a race leaves no orphan"
            store.look(id)

    def test_what_a_killed_process_staged_is_swept(self, store: Store) -> None:
        store.container("container")
        store.driver.recover()
        before = store.driver.disk_usage()
        with self.process(store.root, _stage_and_wait) as (process, _):
            store.driver.recover()
            process.kill()
            process.join()
        store.driver.recover()
        store.driver.recover()
        store.driver.collect()
        assert set(store.held()) == {key("container")}, "a killed stage stays invisible"
        assert store.driver.disk_usage() - before < 1 << 20, "recover sweeps a killed stage"
        store.look(key("container"))
        with store.write(key("container")) as tree:
            tree.write_bytes("alive", b"yes")
        store.layer("layer", *sample(3))
        store.assert_layers("the store works after a kill")

    def test_a_kill_at_any_moment_leaves_whole_things(self, store: Store) -> None:
        base = store.layer("base", *sample(9))
        for number in range(4):
            with self.process(store.root, _work_until_killed, number) as (process, _):
                time.sleep(0.05 + 0.07 * number)
                assert process.pid is not None
                process.kill()
                process.join()
                assert process.exitcode == -signal.SIGKILL, "the other process failed by itself"
            if number % 2:
                store.reopen()
            store.driver.recover()
            whole = sketch(sample(number), store.layers[base])
            self._assert_whole(store, f"kill{number}-", whole)
        store.assert_layers()

    def _assert_whole(self, store: Store, prefix: str, whole: Picture) -> None:
        names = {key(f"{prefix}{turn}{c}"): c for turn in range(10_000) for c in ("", "c")}
        held = store.held()
        for id, (kind, parent) in held.items():
            assert parent is None or parent in held, "no kill leaves an orphan"
            if names.get(id) == "":
                assert_same(whole, store.look(id), "a kill leaves whole layers or none")
            elif kind is Held.CONTAINER:
                store.look(id)
                list(store.driver.changes(id))
            assert list(store.driver.verify(id, deep=True)) == [], "a kill leaves a sound store"
        for id in [id for id in held if names.get(id) == "c"]:
            store.driver.remove(id)
        for id in [id for id in held if names.get(id) == ""]:
            store.driver.remove(id)
