"""Writing: in containers, through Cowshed's ``Tree`` or in a mounted directory."""

from __future__ import annotations

import random

from ..actors.files import WRITTEN, Files
from ..results import Workload
from .work import Work, small_files

_TREE = "Container.tree(writable=True), opened, written and closed, which makes it durable"
_MOUNTED = "Container.mounted(), written by system calls"
BIG = "big"
MEGA = 1000 * 1000


class _InContainer(Work):
    """Writes in a container of its own."""

    tag = "v1"
    through = _TREE

    def prepare(self) -> None:
        (self.container,) = self.actor.create(self.tag)
        #: A mount is there before somebody writes in it; a tree is opened for the writing.
        self.held = None if self.actor.opens else self.hold(self.actor.files(self.container))

    def run(self) -> None:
        if self.held is not None:
            self.write(self.held)
        else:
            with self.actor.files(self.container) as files:
                self.write(files)

    def write(self, files: Files) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        self.actor.remove([self.container])


class FirstWrite(_InContainer):
    facts = Workload(
        name="first-write",
        title="First byte into a big file",
        question="How much waiting and disk does a small change in a big file cost?",
        group="writing",
        parameter="megabytes",
        durable=True,
        cache="warm",
    )
    verbs = ("create", "files")
    quick = (16,)
    full = (1, 64, 500)

    @classmethod
    def needs(cls, parameter: int | None) -> tuple[str, ...]:
        return (f"big-{parameter}",)

    def prepare(self) -> None:
        self.tag = f"big-{self.number}"
        super().prepare()

    def write(self, files: Files) -> None:
        files.overwrite(BIG, [(self.number * MEGA * 7 // 10 + 7, b"!")])


class Overwrite(_InContainer):
    facts = Workload(
        name="overwrite",
        title="Overwrite a big file at random",
        question="What does a database in a container pay for each page of 4 KiB?",
        group="writing",
        durable=True,
        cache="warm",
    )
    verbs = ("create", "files")
    thorough = True
    tag = "big-64"

    @classmethod
    def needs(cls, parameter: int | None) -> tuple[str, ...]:
        return (cls.tag,)

    def prepare(self) -> None:
        draw = random.Random(7)
        pages = 64 * MEGA // 4096
        self.pieces = [(draw.randrange(pages) * 4096, draw.randbytes(4096)) for _ in range(500)]
        self.operations = len(self.pieces)
        super().prepare()

    def write(self, files: Files) -> None:
        files.overwrite(BIG, self.pieces)


class Burst(_InContainer):
    facts = Workload(
        name="burst",
        title="Unpack a package of 1,000 small files",
        question="How long does a package manager take?",
        group="writing",
        durable=True,
        cache="warm",
    )
    verbs = ("create", "files")

    def prepare(self) -> None:
        self.files = small_files(1000)
        self.operations = len(self.files)
        super().prepare()

    def write(self, files: Files) -> None:
        files.unpack(WRITTEN, self.files)


class BurstMounted(Burst):
    facts = Workload(
        name="burst-mounted",
        title="The same in a mounted container",
        question="How long does a package manager take that runs in the container?",
        group="writing",
        durable=True,
        cache="warm",
    )
    verbs = ("create", "mount")
    thorough = True
    through = _MOUNTED
    flush = "all"

    def prepare(self) -> None:
        self.files = small_files(1000)
        self.operations = len(self.files)
        (self.container,) = self.actor.create(self.tag)
        self.held = self.hold(self.actor.mounted(self.container))
