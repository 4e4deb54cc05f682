"""Containers: making them, one and many, and several processes at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..actors.files import WRITTEN
from ..results import Workload
from .work import Work, small_files

_API = "Shed.create_many in an open process, all in one durable batch"
PROCESSES = 8


class Create(Work):
    facts = Workload(
        name="create",
        title="Create containers",
        question="How do time and disk grow with the number of containers?",
        group="containers",
        parameter="containers",
        cache="warm",
    )
    verbs = ("create",)
    through = _API
    quick = (1, 100, 1000)
    full = (1, 100, 1000, 10_000)
    scales = True

    def prepare(self) -> None:
        self.made: list[str] = []

    def run(self) -> None:
        if self.number == 1:
            self.repeat(lambda: self.made.extend(self.actor.create("v1")))
        else:
            self.operations = self.number
            self.made = self.actor.create("v1", self.number)

    def settle(self) -> None:
        self.actor.remove(self.made)


class CreateFromShell(Work):
    facts = Workload(
        name="create-shell",
        title="Create a container from the shell",
        question="How long does somebody wait who types the command?",
        group="containers",
        cache="warm",
    )
    verbs = ("create",)
    through = "the command 'cowshed create', a whole process"

    def prepare(self) -> None:
        self.made: list[str] = []

    def run(self) -> None:
        self.repeat(lambda: self.made.append(self.actor.create_from_shell("v1")))

    def settle(self) -> None:
        self.actor.remove(self.made)


class EightAtOnce(Work):
    facts = Workload(
        name="eight-at-once",
        title="Eight processes create at once",
        question="Do processes that make containers at once stand in each other's way?",
        group="parallel",
        cache="warm",
    )
    verbs = ("create",)
    thorough = True
    through = "eight of the command 'cowshed create' at a time, twice over"

    def prepare(self) -> None:
        self.made: list[str] = []

    def run(self) -> None:
        self.operations = 2 * PROCESSES
        with ThreadPoolExecutor(PROCESSES) as pool:
            tags = ["v1"] * self.operations
            self.made.extend(pool.map(self.actor.create_from_shell, tags))

    def settle(self) -> None:
        self.actor.remove(self.made)


class Fork(Work):
    facts = Workload(
        name="fork",
        title="Fork a container",
        question="What does a checkpoint of a container with a hundred new files cost?",
        group="containers",
        cache="warm",
    )
    verbs = ("create", "files", "fork")
    through = "Container.fork in an open process"

    def prepare(self) -> None:
        self.container = self.changed()
        self.made: list[str] = []

    def run(self) -> None:
        self.repeat(lambda: self.made.append(self.actor.fork(self.container)))

    def settle(self) -> None:
        self.actor.remove([self.container, *self.made])


class RollBack(Work):
    facts = Workload(
        name="rollback",
        title="Roll back to a checkpoint",
        question="How long until a container is as it was a hundred files ago?",
        group="containers",
        cache="warm",
    )
    verbs = ("create", "files", "fork")
    thorough = True
    through = "remove the container and Container.fork the checkpoint again"

    def prepare(self) -> None:
        (self.checkpoint,) = self.actor.create("v1")
        self.container = self.actor.fork(self.checkpoint)
        with self.actor.files(self.container) as files:
            files.unpack(WRITTEN, small_files(100))

    def run(self) -> None:
        self.actor.remove([self.container])
        self.container = self.actor.fork(self.checkpoint)

    def settle(self) -> None:
        self.actor.remove([self.container, self.checkpoint])
