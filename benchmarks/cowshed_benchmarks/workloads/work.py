"""Work: one workload as one subject does it once, in three steps of which only one is measured."""

from __future__ import annotations

import abc
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import ClassVar, Literal

from ..actors.actor import Actor
from ..actors.files import WRITTEN, Files
from ..results import Workload

#: A quick operation is done again and again for so many seconds, so many times at most, so that a
#: timer's grain and a single hiccup don't decide.
REPEATED_SECONDS = 0.3
REPEATED_TIMES = 20


class Work(abc.ABC):
    """``prepare``, then ``run`` in the measured window, then ``settle``, which leaves the store as
    it was found."""

    facts: ClassVar[Workload]
    #: What is asked of a subject, as verbs of ``actors.actor``: one that lacks any can't do it.
    verbs: ClassVar[tuple[str, ...]]
    #: What is asked of Cowshed in it: shown by ``--list``.
    through: ClassVar[str]
    #: Values of the workload's parameter, for a quick run and for a whole one.
    quick: ClassVar[tuple[int | None, ...]] = (None,)
    full: ClassVar[tuple[int | None, ...]] = (None,)
    #: Whether it begins with an empty store rather than with the subject's stock of images.
    fresh: ClassVar[bool] = False
    #: Whose data the window waits for at its end: everybody's, of those who don't see to it
    #: themselves, or nobody's.
    flush: ClassVar[Literal["all", "others", "nobody"]] = "others"
    #: Whether work grows with the parameter, so that fewer tell what more would take.
    scales: ClassVar[bool] = False
    #: Whether a quick run leaves it out unless it is named.
    thorough: ClassVar[bool] = False
    #: More rounds than these tell nothing new.
    most_rounds: ClassVar[int] = 100

    def __init__(self, actor: Actor, parameter: int | None) -> None:
        self.actor = actor
        self.parameter = parameter
        self.operations = 1
        self.extra: dict[str, float] = {}
        self._open = ExitStack()

    @classmethod
    def needs(cls, parameter: int | None) -> tuple[str, ...]:
        """Return the images that must be in stock."""
        return () if cls.fresh else ("v1",)

    @property
    def number(self) -> int:
        """The parameter of a workload that has one."""
        assert self.parameter is not None
        return self.parameter

    def prepare(self) -> None:  # noqa: B027 - not everybody has something to prepare
        """Make everything ready."""

    @abc.abstractmethod
    def run(self) -> None:
        """Do what is measured."""

    def settle(self) -> None:  # noqa: B027 - nor to undo
        """Undo what was done, after everything has been measured."""

    def leave(self) -> None:
        """Let go of what ``hold`` keeps open."""
        self._open.close()

    # -- for subclasses -----------------------------------------------------------------------

    def repeat(self, operation: Callable[[], object]) -> None:
        """Do a quick operation a number of times, a slow one once."""
        self.operations = 0
        end = time.perf_counter() + REPEATED_SECONDS
        while self.operations < REPEATED_TIMES:
            operation()
            self.operations += 1
            if time.perf_counter() > end:
                break

    def hold(self, files: AbstractContextManager[Files]) -> Files:
        """Keep files open until ``leave``."""
        return self._open.enter_context(files)

    def changed(self, tag: str = "v1", count: int = 100) -> str:
        """Return a container with so many new files in it."""
        (container,) = self.actor.create(tag)
        with self.actor.files(container) as files:
            files.unpack(WRITTEN, small_files(count))
        return container


def small_files(count: int, seed: int = 1) -> list[tuple[str, bytes]]:
    """Draw files as a package holds them: half of them below 2 KB, few directories, text mostly."""
    draw = random.Random(seed)
    files: list[tuple[str, bytes]] = []
    for number in range(count):
        size = min(int(draw.lognormvariate(7.6, 1.3)), 60_000)
        words = [draw.randbytes(6).hex() for _ in range(40)]
        text = " ".join(draw.choices(words, k=size // 13 + 1)).encode()[:size]
        files.append((f"lib/part{number // 25:03}/file{number:05}", text))
    return files
