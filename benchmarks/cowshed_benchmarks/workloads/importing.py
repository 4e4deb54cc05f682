"""Importing: from a layout of compressed layers to an image that containers can be made on."""

from __future__ import annotations

from ..results import Workload
from .work import Work

_COMMAND = "the command 'cowshed import', a whole process"


class ImportFirst(Work):
    facts = Workload(
        name="import-first",
        title="Import a first image",
        question="How long until an image that is new to the store can be used?",
        group="import",
        durable=True,
        cache="warm",
    )
    verbs = ("import",)
    through = _COMMAND
    fresh = True
    flush = "all"

    def prepare(self) -> None:
        self.actor.ready("v1")

    def run(self) -> None:
        self.actor.import_image("v1")


class ImportSecond(Work):
    facts = Workload(
        name="import-second",
        title="Import a second version",
        question="What does an update cost whose lower layers are there already?",
        group="import",
        durable=True,
        cache="warm",
    )
    verbs = ("import", "remove-image")
    through = _COMMAND
    flush = "all"

    def prepare(self) -> None:
        self.actor.ready("v2")

    def run(self) -> None:
        self.actor.import_image("v2")

    def settle(self) -> None:
        self.actor.remove_image("v2")


class Versions(Work):
    facts = Workload(
        name="versions",
        title="Keep versions of an image",
        question="How does the disk fill as versions gather that differ in one file of twenty?",
        group="import",
        metric="disk",
        parameter="versions",
        durable=True,
        cache="warm",
    )
    verbs = ("import",)
    thorough = True
    through = _COMMAND
    quick = (3,)
    full = (1, 2, 4, 8)
    scales = True
    fresh = True
    flush = "all"
    most_rounds = 1

    def prepare(self) -> None:
        self.tags = [f"v{version}" for version in range(1, self.number + 1)]
        for tag in self.tags:
            self.actor.ready(tag)

    def run(self) -> None:
        self.operations = self.number
        for tag in self.tags:
            self.actor.import_image(tag)


class DeepImport(Work):
    facts = Workload(
        name="deep-import",
        title="Import a deep chain",
        question="What does each of many thin layers cost?",
        group="import",
        parameter="layers",
        durable=True,
        cache="warm",
    )
    verbs = ("import",)
    thorough = True
    through = _COMMAND
    quick = (16,)
    full = (16, 64, 128)
    scales = True
    fresh = True
    flush = "all"

    def prepare(self) -> None:
        self.actor.ready(f"deep-{self.number}")

    def run(self) -> None:
        self.operations = self.number
        self.actor.import_image(f"deep-{self.number}")
