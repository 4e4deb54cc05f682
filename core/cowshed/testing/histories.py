"""Histories: random operations on a driver and on ``MemoryDriver`` side by side.

After every operation the objects it touched get a definite mtime on both sides, because no two
clocks agree; so trees and changes can be compared field for field.
"""

from __future__ import annotations

import itertools
import stat as stat_module
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - partly typed upstream
)

from ..driver import Driver, apply_changes
from ..entry import Kind, parent_of
from ..errors import InUseError
from ..tree import OpenMode, Tree
from .files import pattern
from .kit import Kit, Store, key
from .memory import MemoryDriver
from .oracle import (
    LONG_AGO,
    Picture,
    Thing,
    assert_same,
    directory,
    file,
    hardlink,
    linked,
    opaque,
    sketch,
    symlink,
    whiteout,
)

PATHS = ["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "a/a/a/a", "b/a/c", "\udcff"]

picks = st.integers(0, 11)
paths = st.sampled_from(PATHS)
sizes = st.sampled_from([0, 1, 100, 5000, 300_000])
Steps = list[tuple[str, str, str]]


class History(RuleBasedStateMachine):
    """One random history; ``real`` must do what ``model`` does."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="history")
        self.model = self._store("model", MemoryDriver)
        self.real = self._store("real", self.open_driver)
        self.containers: list[str] = []
        self.layers: list[str] = []
        self.numbers = itertools.count()

    def open_driver(self, root: Path) -> Driver:
        """Open the driver under test."""
        raise NotImplementedError

    def _store(self, name: str, open_driver: Callable[[Path], Driver]) -> Store:
        root = Path(self.folder.name, name)
        root.mkdir(mode=0o700)
        return Store(root, open_driver)

    @property
    def both(self) -> tuple[Store, Store]:
        """The two that must agree."""
        return self.model, self.real

    def pick(self, number: int) -> str:
        """Return one of the containers."""
        return self.containers[number % len(self.containers)]

    # -- the beginning --------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        things = [
            directory(""),
            directory("a"),
            file("a/b", pattern(5000), xattrs={"user.x": b"1"}),
            hardlink("c", "a/b"),
            directory("b"),
            file("b/a", pattern(300_000), uid=7),
            symlink("b/b", "a"),
        ]
        self._seal(None, things)
        self._prepare(self.layers[0])

    # -- the store ------------------------------------------------------------------------------

    def _seal(self, parent: str | None, things: list[Thing]) -> None:
        name = f"layer{next(self.numbers)}"
        for store in self.both:
            store.layer(name, *things, on=parent)
        self.layers.append(key(name))

    def _prepare(self, parent: str | None) -> None:
        name = f"container{next(self.numbers)}"
        for store in self.both:
            store.container(name, parent)
        self.containers.append(key(name))
        self._write(key(name), [""], lambda tree: None)

    @precondition(lambda self: len(self.layers) < 6)
    @rule(number=picks, steps=st.lists(st.tuples(st.sampled_from("fdslwo"), paths, paths)))
    def seal(self, number: int, steps: Steps) -> None:
        parent = self.layers[number % len(self.layers)] if number and self.layers else None
        base = self.model.layers[parent] if parent else None
        self._seal(parent, [directory("", mtime_ns=number), *_valid(steps, base)])

    @precondition(lambda self: len(self.containers) < 4)
    @rule(number=picks)
    def prepare(self, number: int) -> None:
        self._prepare(self.layers[number % len(self.layers)] if number and self.layers else None)

    @precondition(lambda self: 0 < len(self.containers) < 4)
    @rule(number=picks)
    def fork(self, number: int) -> None:
        name = f"fork{next(self.numbers)}"
        for store in self.both:
            store.fork(self.pick(number), name)
        self.containers.append(key(name))
        self._check(key(name))

    @precondition(lambda self: self.containers and len(self.layers) < 6)
    @rule(number=picks)
    def commit(self, number: int) -> None:
        name = f"commit{next(self.numbers)}"
        for store in self.both:
            store.layers[store.commit(self.pick(number), name)] = self.model.look(self.pick(number))
        self.layers.append(key(name))
        assert_same(
            self.real.look(self.pick(number)),
            self.real.look(key(name)),
            "a layer of a container's changes equals the container",
        )

    @precondition(lambda self: len(self.containers) + len(self.layers) > 1)
    @rule(number=picks)
    def remove(self, number: int) -> None:
        everything = [*self.containers, *self.layers]
        id = everything[number % len(everything)]
        refused: list[bool] = []
        for store in self.both:
            try:
                store.driver.remove(id)
            except InUseError:
                refused.append(True)
            else:
                refused.append(False)
                store.layers.pop(id, None)
        assert refused[0] == refused[1], "a layer can be removed if nothing stands on it"
        if not refused[0]:
            (self.containers if id in self.containers else self.layers).remove(id)
        assert self.real.held() == self.model.held(), "items() is exactly what was made"

    @rule(how=st.sampled_from(["reopen", "recover", "collect"]))
    def maintain(self, how: str) -> None:
        if how == "reopen":
            self.real.reopen()
        elif how == "recover":
            self.real.driver.recover()
        else:
            self.real.driver.collect()
        assert self.real.held() == self.model.held(), f"{how} leaves everything"

    # -- writing --------------------------------------------------------------------------------

    def _write(self, id: str, touched: list[str], act: Callable[[Tree], object]) -> None:
        """Do the same on both sides, let both succeed or fail, and set definite mtimes."""
        time = LONG_AGO + next(self.numbers)
        failures: list[OSError | None] = []
        for store in self.both:
            with store.write(id) as tree:
                try:
                    act(tree)
                except OSError as error:
                    failures.append(error)
                    continue
                failures.append(None)
                for path in sorted({*touched, *map(parent_of, touched)}):
                    if tree.exists(path):
                        tree.utime(path, time)
        assert bool(failures[0]) == bool(failures[1]), f"model: {failures[0]}, here: {failures[1]}"
        self._check(id)

    @precondition(lambda self: self.containers)
    @rule(
        number=picks,
        path=paths,
        mode=st.sampled_from(["wb", "xb", "ab", "r+b"]),
        offset=sizes,
        size=sizes,
    )
    def write(self, number: int, path: str, mode: OpenMode, offset: int, size: int) -> None:
        def act(tree: Tree) -> None:
            with tree.open(path, mode) as content:
                if mode != "ab":
                    content.seek(offset)
                content.write(pattern(size, seed=number))

        self._write(self.pick(number), [path], act)

    @precondition(lambda self: self.containers)
    @rule(number=picks, path=paths, kind=st.sampled_from(["mkdir", "symlink", "fifo", "apply"]))
    def make(self, number: int, path: str, kind: str) -> None:
        def act(tree: Tree) -> None:
            if kind == "mkdir":
                tree.mkdir(path, 0o700 + number)
            elif kind == "symlink":
                tree.symlink(f"to{number}", path)
            elif kind == "fifo":
                tree.mknod(path, stat_module.S_IFIFO | 0o600)
            else:
                made = file(path, pattern(number * 100), uid=number)
                tree.apply(made.entry, made.content())

        self._write(self.pick(number), [path], act)

    @precondition(lambda self: self.containers)
    @rule(number=picks, source=paths, to=paths, how=st.sampled_from(["rename", "link"]))
    def move(self, number: int, source: str, to: str, how: str) -> None:
        self._write(
            self.pick(number),
            [source, to],
            lambda tree: tree.rename(source, to) if how == "rename" else tree.link(source, to),
        )

    @precondition(lambda self: self.containers)
    @rule(number=picks, path=paths, how=st.sampled_from(["unlink", "rmdir", "remove_tree"]))
    def drop(self, number: int, path: str, how: str) -> None:
        self._write(self.pick(number), [path], lambda tree: getattr(tree, how)(path))

    @precondition(lambda self: self.containers)
    @rule(
        number=picks,
        path=st.sampled_from(["", *PATHS]),
        how=st.sampled_from(["chmod", "chown", "utime", "set", "remove", "truncate"]),
        value=st.integers(0, 3),
    )
    def describe(self, number: int, path: str, how: str, value: int) -> None:
        calls: dict[str, Callable[[Tree], None]] = {
            "chmod": lambda tree: tree.chmod(path, 0o4700 + value),
            "chown": lambda tree: tree.chown(path, value, 7 - value),
            "utime": lambda tree: None,
            "set": lambda tree: tree.setxattr(path, "user.x", bytes([value])),
            "remove": lambda tree: tree.removexattr(path, "user.x"),
            "truncate": lambda tree: tree.truncate(path, value * 3000),
        }
        self._write(self.pick(number), [path], calls[how])

    # -- what must hold -------------------------------------------------------------------------

    def _check(self, id: str) -> None:
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

    def teardown(self) -> None:
        try:
            for id, picture in self.model.layers.items():
                assert_same(picture, self.real.look(id), "a sealed layer never changes")
            for id in self.containers:
                self._check(id)
                new = key("replayed" + id)
                self.real.driver.prepare(new, self.model.held()[id][1])
                with self.real.driver.tree(id) as source, self.real.write(new) as target:
                    apply_changes(self.real.driver.changes(id), source, target)
                assert_same(
                    self.real.look(id), self.real.look(new), "changes replay to an equal tree"
                )
        finally:
            self.real.close()
            self.folder.cleanup()


def _valid(steps: Steps, base: Picture | None) -> list[Thing]:
    """Turn random steps into a stream with everything that core guarantees of one."""
    things: list[Thing] = []
    for number, (what, path, other) in enumerate(steps):
        now = sketch(things, base)
        above = now.get(parent_of(path))
        if above is None or above.kind is not Kind.DIRECTORY:
            continue
        here, target = now.get(path), now.get(other)
        if what == "f":
            things.append(file(path, pattern(number * 1000), uid=number))
        elif what == "d":
            things.append(directory(path, mode=0o700 + number % 8))
        elif what == "s":
            things.append(symlink(path, other))
        elif what == "w" and here is not None:
            things.append(whiteout(path))
        elif what == "o" and here is not None and here.kind is Kind.DIRECTORY:
            things.append(opaque(path))
        elif what == "l" and target is not None and target.kind is not Kind.DIRECTORY:
            things += [] if f"{other}/".startswith(f"{path}/") else [hardlink(path, other)]
    return things


class HistoryConformance(Kit):
    """Random histories; a failure prints the shortest one that shows it."""

    group = "histories"

    histories: ClassVar[int] = 25
    steps: ClassVar[int] = 30
    #: Whether a failing history is made shorter, which may take minutes.
    shrink: ClassVar[bool] = True

    def test_random_histories_agree_with_the_model(self) -> None:
        kit = self

        class ThisHistory(History):
            def open_driver(self, root: Path) -> Driver:
                return kit.open_driver(root)

        run_state_machine_as_test(
            ThisHistory,
            settings=settings(
                max_examples=self.histories,
                stateful_step_count=self.steps,
                deadline=None,
                database=None,
                phases=[Phase.generate, *([Phase.shrink] if self.shrink else [])],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
