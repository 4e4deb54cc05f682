"""Changes: finding them, making an image of them, writing everything out."""

from __future__ import annotations

from ..results import Workload
from .work import Work


class Diff(Work):
    facts = Workload(
        name="diff",
        title="Find 100 changes",
        question="Does finding out what changed cost what changed, or what there is?",
        group="changes",
        cache="warm",
    )
    verbs = ("create", "files", "diff")
    through = "Container.diff in an open process"
    flush = "nobody"

    def prepare(self) -> None:
        self.container = self.changed()

    def run(self) -> None:
        self.repeat(lambda: self.extra.update(changes=self.actor.diff(self.container)))

    def settle(self) -> None:
        self.actor.remove([self.container])


class Commit(Work):
    facts = Workload(
        name="commit",
        title="Commit 100 changes",
        question="How long does making an image of a container take?",
        group="changes",
        durable=True,
        cache="warm",
    )
    verbs = ("create", "files", "commit")
    through = "Container.commit in an open process"

    def prepare(self) -> None:
        self.container = self.changed()

    def run(self) -> None:
        self.actor.commit(self.container, "committed")

    def settle(self) -> None:
        self.actor.remove([self.container])
        self.actor.remove_image("committed")


class Export(Work):
    facts = Workload(
        name="export",
        title="Export a container as a tar",
        question="How long does it take to get everything out?",
        group="changes",
        cache="warm",
    )
    verbs = ("export",)
    thorough = True
    through = "Container.export in an open process"
    flush = "nobody"

    def prepare(self) -> None:
        self.container = self.actor.something_to_export("v1")

    def run(self) -> None:
        self.actor.export(self.container, self.actor.scratch / "export.tar")

    def settle(self) -> None:
        if self.container != "v1":
            self.actor.remove([self.container])
