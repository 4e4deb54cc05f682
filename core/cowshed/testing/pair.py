"""Pair: a driver and the model side by side. What is done is done on both, and compared at once.

It remembers its steps, so that those that failed can be made fewer and shown as a script to paste
into a file and run: without hypothesis, without pytest, only this module and the driver.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import attrs
import pytest

from ..driver import Driver, apply_changes
from ..entry import parent_of
from ..errors import InUseError
from ..tree import OpenMode, Tree
from .files import pattern
from .kit import Kit, Store, key, kit_at
from .memory import MemoryDriver
from .oracle import (
    LONG_AGO,
    Picture,
    Thing,
    assert_same,
    differences,
    directory,
    file,
    hardlink,
    linked,
    opaque,
    symlink,
    whiteout,
)
from .steps import Call, Step, made

__all__ = [
    "Pair",
    "directory",
    "file",
    "hardlink",
    "opaque",
    "pattern",
    "symlink",
    "whiteout",
]

P = ParamSpec("P")


def _step(
    method: Callable[Concatenate[Pair, P], None],
) -> Callable[Concatenate[Pair, P], None]:
    """Remember the call; note on a failure that it was one of these."""

    @functools.wraps(method)
    def step(self: Pair, /, *arguments: P.args, **named: P.kwargs) -> None:
        __tracebackhide__ = True
        self.steps.append(Step(method.__name__, arguments, named))
        try:
            method(self, *arguments, **named)
        except (Exception, pytest.fail.Exception):
            self.failed = True
            raise

    return step


class Pair:
    """``kit`` is a test class's instance, or says where one is: ``"test_mine.py::TestMine"``, or
    the name of a registered driver. Layers and containers have names that read well."""

    def __init__(self, kit: Kit | str) -> None:
        self.kit = kit_at(kit) if isinstance(kit, str) else kit
        self.steps: list[Step] = []
        #: Whether a step has failed: whatever comes after it says nothing.
        self.failed = False
        self._folder = tempfile.TemporaryDirectory(prefix="cowshed-pair-")
        self.model = self._store("model", MemoryDriver)
        self.real = self._store("real", self.kit.open_driver)
        self._times = itertools.count(LONG_AGO)

    def _store(self, name: str, open_driver: Callable[[Path], Driver]) -> Store:
        root = Path(self._folder.name, name)
        root.mkdir(mode=0o700)
        return Store(root, open_driver)

    @property
    def both(self) -> tuple[Store, Store]:
        """The two that must agree."""
        return self.model, self.real

    def close(self) -> None:
        """Throw both away."""
        self.real.close()
        self._folder.cleanup()

    # -- the store ------------------------------------------------------------------------------

    @_step
    def seal(self, name: str, parent: str | None, *things: Thing | Call) -> None:
        """Seal a layer of these things."""
        for store in self.both:
            store.layer(name, *map(made, things), on=key(parent) if parent else None)

    @_step
    def prepare(self, name: str, parent: str | None) -> None:
        """Make a container."""
        for store in self.both:
            store.container(name, key(parent) if parent else None)
        # An empty root's mtime is nobody's business.
        self._on_both(name, [""], lambda tree: None)

    @_step
    def fork(self, container: str, name: str) -> None:
        """Fork a container."""
        for store in self.both:
            store.fork(key(container), name)
        self._check(name)

    @_step
    def commit(self, container: str, name: str) -> None:
        """Seal a layer of a container's changes."""
        shown = self.model.look(key(container))
        for store in self.both:
            store.layers[store.commit(key(container), name)] = shown
        assert_same(
            self.real.look(key(container)),
            self.real.look(key(name)),
            "a layer of a container's changes equals the container",
        )

    @_step
    def remove(self, name: str) -> None:
        """Remove a layer or container, or be refused."""
        refused: list[bool] = []
        for store in self.both:
            try:
                store.driver.remove(key(name))
            except InUseError:
                refused.append(True)
            else:
                refused.append(False)
                store.layers.pop(key(name), None)
        assert refused[0] == refused[1], "a layer can be removed if nothing stands on it"
        self._check_items("remove")

    def has(self, name: str) -> bool:
        """Say whether the model holds it."""
        return key(name) in self.model.held()

    @_step
    def reopen(self) -> None:
        """Close the driver and open it anew."""
        self.real.reopen()
        self._check_items("reopening")

    @_step
    def recover(self) -> None:
        """Sweep what crashes left."""
        self.real.driver.recover()
        self._check_items("recover")

    @_step
    def collect(self) -> None:
        """Give space back."""
        self.real.driver.collect()
        self._check_items("collect")

    # -- writing --------------------------------------------------------------------------------

    @_step
    def write(
        self, container: str, path: str, mode: OpenMode, offset: int, data: bytes | Call
    ) -> None:
        """Open a file and write in it."""
        self._on_both(container, [path], _writing(path, mode, offset, made(data)))

    @_step
    def do(self, container: str, method: str, *arguments: Any) -> None:
        """Call a method of the container's tree; ``apply`` takes a thing."""
        self._on_both(container, _touched(method, arguments), _calling(method, arguments))

    def _on_both(self, name: str, touched: list[str], act: Callable[[Tree], object]) -> None:
        """Let both succeed or fail, then set definite mtimes: no two clocks agree."""
        failures: list[OSError | None] = []
        for store in self.both:
            with store.write(key(name)) as tree:
                failures.append(_failure(act, tree))
        assert bool(failures[0]) == bool(failures[1]), f"model: {failures[0]}, here: {failures[1]}"
        self._settle(name, touched)

    def _settle(self, name: str, touched: list[str]) -> None:
        time = next(self._times)
        for store in self.both:
            with store.write(key(name)) as tree:
                for path in sorted({*touched, *map(parent_of, touched)}):
                    if tree.exists(path):
                        tree.utime(path, time)
        self._check(name)

    # -- sudden death ---------------------------------------------------------------------------

    @_step
    def crash_writing(
        self, container: str, method: str, *arguments: Any, synced: bool = True
    ) -> None:
        """Let another process call a method of the tree and be killed, before the tree is closed
        or after ``sync``. What was synced is there; else it is there whole, or not at all."""
        act, touched = _calling(method, arguments), _touched(method, arguments)

        def work(driver: Driver) -> None:
            tree = driver.tree(key(container), writable=True)
            _failure(act, tree)
            if synced:
                tree.sync()

        before = _timeless(self.model.look(key(container)), touched)
        self._kill(work)
        found = self.real.look(key(container))
        if not synced and not differences(before, found):
            self._settle(container, touched)
            return
        with self.model.write(key(container)) as tree:
            _failure(act, tree)
        after = _timeless(self.model.look(key(container)), touched)
        promise = "what was synced survives" if synced else "a killed write happened or didn't"
        assert_same(after, found, promise)
        self._settle(container, touched)

    @_step
    def crash_staging(self, parent: str | None, *things: Thing | Call) -> None:
        """Let another process stage these things and be killed before it seals them."""

        def work(driver: Driver) -> None:
            stage = driver.stage(key(parent) if parent else None)
            for thing in map(made, things):
                stage.add(thing.entry, thing.content())

        self._kill(work)
        self._check_items("a killed stage")

    def _kill(self, work: Callable[[Driver], None]) -> None:
        """Run ``work`` with a driver of its own in a process that dies the moment it is done."""
        with warnings.catch_warnings():
            # The child needs none of the threads that Python warns about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                work(self.kit.open_driver(self.real.root))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == -signal.SIGKILL, "the other process failed by itself"
        self.real.reopen()
        self.real.driver.recover()

    # -- what must hold -------------------------------------------------------------------------

    def _check_items(self, what: str) -> None:
        assert self.real.held() == self.model.held(), f"after {what}, items() is what was made"

    def _check(self, name: str) -> None:
        id = key(name)
        expected, found = self.model.look(id), self.real.look(id)
        assert_same(expected, found, "a container shows what the model shows")
        if not self._cut(id, expected):
            changes = [list(store.driver.changes(id)) for store in self.both]
            assert self.real.changes(id) == self.model.changes(id), "changes are exact"
            assert changes[0] == changes[1], "each change describes the object"

    def _cut(self, id: str, now: Picture) -> bool:
        """Say whether an equal name was cut from its file: which name changed isn't defined."""
        parent = self.model.held()[id][1]
        before = self.model.layers[parent] if parent else {}
        together = {path: group for group in linked(now) for path in group}
        for group in linked(before):
            equal = [path for path in group if now.get(path) == before[path]]
            if len({together.get(path, frozenset({path})) for path in equal}) > 1:
                return True
        return False

    @_step
    def finish(self, *containers: str) -> None:
        """Re-hash every layer; replay the changes of these containers."""
        for id, picture in self.model.layers.items():
            assert_same(picture, self.real.look(id), "a sealed layer never changes")
        for name in containers:
            self._check(name)
            id, new = key(name), key(f"replayed {name}")
            self.real.driver.prepare(new, self.model.held()[id][1])
            with self.real.driver.tree(id) as source, self.real.write(new) as target:
                apply_changes(self.real.driver.changes(id), source, target)
            assert_same(self.real.look(id), self.real.look(new), "changes replay to an equal tree")


def _calling(method: str, arguments: tuple[Any, ...]) -> Callable[[Tree], object]:
    if method == "write":
        path, mode, offset, data = arguments
        return _writing(path, mode, offset, made(data))
    if method == "apply":
        thing: Thing = made(arguments[0])
        return lambda tree: tree.apply(thing.entry, thing.content())
    return lambda tree: getattr(tree, method)(*arguments)


def _writing(path: str, mode: OpenMode, offset: int, data: bytes) -> Callable[[Tree], object]:
    def act(tree: Tree) -> None:
        with tree.open(path, mode) as content:
            if mode != "ab":
                content.seek(offset)
            content.write(data)

    return act


def _touched(method: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the paths whose mtimes a call may change, besides their parents'."""
    if method == "apply":
        thing: Thing = made(arguments[0])
        return [thing.entry.path]
    if method in ("rename", "link"):
        return list(arguments)
    return [arguments[1] if method == "symlink" else arguments[0]]


def _failure(act: Callable[[Tree], object], tree: Tree) -> OSError | None:
    try:
        act(tree)
    except OSError as error:
        return error
    return None


def _timeless(picture: Picture, touched: list[str]) -> Picture:
    """Return the picture with any mtime for what was touched, under all its names."""
    free = {
        picture[path].identity for path in {*touched, *map(parent_of, touched)} if path in picture
    }
    return {
        path: attrs.evolve(seen, mtime_ns=None) if seen.identity in free else seen
        for path, seen in picture.items()
    }
