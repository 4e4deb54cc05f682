"""Histories: random operations on a driver and on ``MemoryDriver`` side by side.

A failing history is made as short as possible, and shown as a script (see ``pair``).
"""

from __future__ import annotations

import itertools
import stat as stat_module
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - partly typed upstream
)

from ..entry import Kind, parent_of
from ..tree import OpenMode
from .files import pattern
from .kit import Kit, key
from .oracle import (
    Picture,
    Thing,
    directory,
    file,
    hardlink,
    opaque,
    sketch,
    symlink,
    whiteout,
)
from .pair import Pair
from .shortening import script, shorten
from .steps import Call, Step, made

PATHS = ["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "a/a/a/a", "b/a/c", "\udcff"]

picks = st.integers(0, 11)
paths = st.sampled_from(PATHS)
sizes = st.sampled_from([0, 1, 100, 5000, 300_000])
steps = st.lists(st.tuples(st.sampled_from("fdslwo"), paths, paths))
Steps = list[tuple[str, str, str]]


def _apply(path: str, size: int, uid: int) -> tuple[str, Call]:
    return "apply", Call(file, path, Call(pattern, size), uid=uid)


#: Methods of a tree with their arguments, as ``Pair.do`` takes them.
calls = st.one_of(
    st.tuples(st.just("mkdir"), paths, st.sampled_from([0o700, 0o1777])),
    st.tuples(st.just("symlink"), st.sampled_from(["a", "../to"]), paths),
    st.tuples(st.just("mknod"), paths, st.just(stat_module.S_IFIFO | 0o600)),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.sampled_from(["unlink", "rmdir", "remove_tree"]), paths),
    st.tuples(st.just("truncate"), paths, st.sampled_from([0, 3000, 9000])),
    st.tuples(st.just("chmod"), st.sampled_from(["", *PATHS]), st.sampled_from([0o700, 0o4711])),
    st.tuples(st.just("chown"), st.sampled_from(["", *PATHS]), st.integers(0, 3), st.just(7)),
    st.tuples(st.just("setxattr"), paths, st.just("user.x"), st.binary(max_size=2)),
    st.tuples(st.just("removexattr"), paths, st.just("user.x")),
    st.builds(_apply, paths, st.sampled_from([0, 700, 5000]), st.integers(0, 3)),
)


class History(RuleBasedStateMachine):
    """One random history; the driver must do what the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = self.open_pair()
        self.containers: list[str] = []
        self.layers: list[str] = []
        self.numbers = itertools.count()

    def open_pair(self) -> Pair:
        """Open the driver under test and the model."""
        raise NotImplementedError

    def container(self, number: int) -> str:
        """Return one of the containers."""
        return self.containers[number % len(self.containers)]

    def parent(self, number: int) -> str | None:
        """Return one of the layers, or none."""
        return self.layers[number % len(self.layers)] if number and self.layers else None

    def new(self, kind: str) -> str:
        """Return a name that reads well."""
        return f"{kind}{next(self.numbers)}"

    # -- the store ------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.layers.append(self.new("layer"))
        self.pair.seal(
            self.layers[0],
            None,
            Call(directory, ""),
            Call(directory, "a"),
            Call(file, "a/b", Call(pattern, 5000), xattrs={"user.x": b"1"}),
            Call(hardlink, "c", "a/b"),
            Call(directory, "b"),
            Call(file, "b/a", Call(pattern, 300_000), uid=7),
            Call(symlink, "b/b", "a"),
        )
        self.containers.append(self.new("container"))
        self.pair.prepare(self.containers[0], self.layers[0])

    @precondition(lambda self: len(self.layers) < 6)
    @rule(number=picks, steps=steps)
    def seal(self, number: int, steps: Steps) -> None:
        parent, name = self.parent(number), self.new("layer")
        self.pair.seal(name, parent, *self.things(number, parent, steps))
        self.layers.append(name)

    def things(self, number: int, parent: str | None, steps: Steps) -> list[Call]:
        """Turn random steps into a stream with everything that core guarantees of one."""
        base = self.pair.model.layers[key(parent)] if parent else None
        return [Call(directory, "", mtime_ns=number), *_valid(steps, base)]

    @precondition(lambda self: len(self.containers) < 4)
    @rule(number=picks)
    def prepare(self, number: int) -> None:
        name = self.new("container")
        self.pair.prepare(name, self.parent(number))
        self.containers.append(name)

    @precondition(lambda self: 0 < len(self.containers) < 4)
    @rule(number=picks)
    def fork(self, number: int) -> None:
        name = self.new("fork")
        self.pair.fork(self.container(number), name)
        self.containers.append(name)

    @precondition(lambda self: self.containers and len(self.layers) < 6)
    @rule(number=picks)
    def commit(self, number: int) -> None:
        name = self.new("commit")
        self.pair.commit(self.container(number), name)
        self.layers.append(name)

    @precondition(lambda self: len(self.containers) + len(self.layers) > 1)
    @rule(number=picks)
    def remove(self, number: int) -> None:
        everything = [*self.containers, *self.layers]
        name = everything[number % len(everything)]
        self.pair.remove(name)
        if not self.pair.has(name):
            (self.containers if name in self.containers else self.layers).remove(name)

    @rule(how=st.sampled_from([Pair.reopen, Pair.recover, Pair.collect]))
    def maintain(self, how: Callable[[Pair], None]) -> None:
        how(self.pair)

    # -- writing --------------------------------------------------------------------------------

    @precondition(lambda self: self.containers)
    @rule(
        number=picks,
        path=paths,
        mode=st.sampled_from(["wb", "xb", "ab", "r+b"]),
        offset=sizes,
        size=sizes,
    )
    def write(self, number: int, path: str, mode: OpenMode, offset: int, size: int) -> None:
        data = Call(pattern, size, seed=number)
        self.pair.write(self.container(number), path, mode, offset, data)

    @precondition(lambda self: self.containers)
    @rule(number=picks, call=calls)
    def do(self, number: int, call: tuple[Any, ...]) -> None:
        self.pair.do(self.container(number), *call)

    @precondition(lambda self: self.containers)
    @rule(number=picks, call=calls)
    def do_another(self, number: int, call: tuple[Any, ...]) -> None:
        """As often again: most rules are about the store."""
        self.pair.do(self.container(number), *call)

    # -- sudden death ---------------------------------------------------------------------------

    @precondition(lambda self: self.containers and self.pair.kit.processes)
    @rule(number=picks, call=calls, synced=st.booleans())
    def crash_writing(self, number: int, call: tuple[Any, ...], synced: bool) -> None:
        self.pair.crash_writing(self.container(number), *call, synced=synced)

    @precondition(lambda self: self.pair.kit.processes)
    @rule(number=picks, steps=steps)
    def crash_staging(self, number: int, steps: Steps) -> None:
        parent = self.parent(number)
        self.pair.crash_staging(parent, *self.things(number, parent, steps))

    def teardown(self) -> None:
        try:
            if not self.pair.failed:
                self.pair.finish(*self.containers)
        finally:
            self.pair.close()


def _valid(steps: Steps, base: Picture | None) -> list[Call]:
    found: list[Call] = []
    for number, (what, path, other) in enumerate(steps):
        things: list[Thing] = list(map(made, found))
        now = sketch(things, base)
        above = now.get(parent_of(path))
        if above is None or above.kind is not Kind.DIRECTORY:
            continue
        here, target = now.get(path), now.get(other)
        if what == "f":
            found.append(Call(file, path, Call(pattern, number * 1000), uid=number))
        elif what == "d":
            found.append(Call(directory, path, mode=0o700 + number % 8))
        elif what == "s":
            found.append(Call(symlink, path, other))
        elif what == "w" and here is not None:
            found.append(Call(whiteout, path))
        elif what == "o" and here is not None and here.kind is Kind.DIRECTORY:
            found.append(Call(opaque, path))
        elif what == "l" and target is not None and target.kind is not Kind.DIRECTORY:
            found += [] if f"{other}/".startswith(f"{path}/") else [Call(hardlink, path, other)]
    return found


class HistoryConformance(Kit):
    """Random histories; a failure prints the shortest one that shows it, as a script."""

    group = "histories"

    histories: ClassVar[int] = 25
    steps: ClassVar[int] = 30

    def test_random_histories_agree_with_the_model(self) -> None:
        kit = self
        failed: list[Pair] = []

        class ThisHistory(History):
            def open_pair(self) -> Pair:
                return Pair(kit)

            def teardown(self) -> None:
                try:
                    super().teardown()
                finally:
                    if self.pair.failed:
                        failed.append(self.pair)

        try:
            run_state_machine_as_test(
                ThisHistory,
                settings=settings(
                    max_examples=self.histories * (20 if self.thorough else 1),
                    stateful_step_count=self.steps * (2 if self.thorough else 1),
                    deadline=None,
                    database=None,
                    # What fails in the standard run fails again; a thorough one explores.
                    derandomize=not self.thorough,
                    # Steps by name are easier to leave out than the draws that led to them.
                    phases=[Phase.generate],
                    verbosity=Verbosity.quiet,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        except (Exception, pytest.fail.Exception) as error:
            if failed:
                self._show(error, failed[0].steps)
            raise

    def _show(self, error: BaseException, steps: list[Step]) -> None:
        shortest = shorten(self, steps, error)
        lines = script(self, shortest).splitlines()
        error.add_note("\n    ".join(["To see it again:", "", *lines]))
