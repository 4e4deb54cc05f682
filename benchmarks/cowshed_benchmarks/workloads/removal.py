"""Removal: how long it takes, and how much of the disk comes back."""

from __future__ import annotations

from ..results import Workload
from .work import Work


class RemoveContainers(Work):
    facts = Workload(
        name="remove-containers",
        title="Remove containers",
        question="How long does a fleet take to go, and is its space back at once?",
        group="removal",
        parameter="containers",
        cache="warm",
    )
    verbs = ("create", "remove")
    thorough = True
    through = "Shed.remove_containers in an open process, all at once"
    quick = (100,)
    full = (100, 1000, 10_000)
    scales = True

    def prepare(self) -> None:
        before = self.actor.space().bytes
        self.made = self.actor.create("v1", self.number)
        self.extra["brought"] = self.actor.space().bytes - before
        self.operations = self.number

    def run(self) -> None:
        self.actor.remove(self.made)


class RemoveImage(Work):
    facts = Workload(
        name="remove-image",
        title="Remove a version and give its space back",
        question="Does the disk get back what an image brought?",
        group="removal",
        durable=True,
        cache="warm",
    )
    verbs = ("import", "remove-image")
    through = "Shed.remove_image and Shed.gc in an open process"
    flush = "all"

    def prepare(self) -> None:
        self.actor.ready("v2")
        before = self.actor.space().bytes
        self.actor.import_image("v2")
        self.extra["brought"] = self.actor.space().bytes - before

    def run(self) -> None:
        self.actor.remove_image("v2")
