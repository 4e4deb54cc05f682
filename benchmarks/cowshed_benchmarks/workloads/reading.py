"""Reading: every file, every name, from a warm and from a cold cache."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from ..actors.actor import Unable
from ..actors.files import Files
from ..measuring import sync_file_system
from ..results import Workload
from .work import Work

_TREE = "Container.tree(), walked and read by one thread"
_MOUNTED = "Container.mounted(), read by system calls"
_DROP = Path("/proc/sys/vm/drop_caches")


class _Reading(Work):
    """Reads a container of its own, all of it. What was read before warms the system's cache, but
    no cache of this process: the store is opened again."""

    tag = "v1"
    through = _TREE
    flush = "nobody"

    def prepare(self) -> None:
        (self.container,) = self.actor.create(self.tag)
        if self.facts.cache == "cold":
            drop_caches(self.actor.store)
        else:
            with self.open() as files:
                self.read(files)
            self.actor.stop()
            self.actor.start()
        self.held = self.hold(self.open())

    def open(self) -> AbstractContextManager[Files]:
        return self.actor.files(self.container, writable=False)

    def run(self) -> None:
        self.read(self.held)

    def read(self, files: Files) -> None:
        self.extra["bytes"] = files.read_all()

    def settle(self) -> None:
        self.actor.remove([self.container])


class Read(_Reading):
    facts = Workload(
        name="read",
        title="Read every file, warm",
        question="How fast does a container's content come?",
        group="reading",
        cache="warm",
    )
    verbs = ("create", "files")


class ReadCold(_Reading):
    facts = Workload(
        name="read-cold",
        title="Read every file, cold",
        question="How fast does it come when nothing of it is in memory?",
        group="reading",
        cache="cold",
    )
    verbs = ("create", "files")
    thorough = True


class ReadMounted(_Reading):
    facts = Workload(
        name="read-mounted",
        title="Read every file in a mount, warm",
        question="How fast do processes in a container read?",
        group="reading",
        cache="warm",
    )
    verbs = ("create", "mount")
    thorough = True
    through = _MOUNTED

    def open(self) -> AbstractContextManager[Files]:
        return self.actor.mounted(self.container)


class Stat(_Reading):
    facts = Workload(
        name="stat",
        title="Look at every name, warm",
        question="How fast can a container be walked?",
        group="reading",
        cache="warm",
    )
    verbs = ("create", "files")
    thorough = True

    def read(self, files: Files) -> None:
        self.operations = files.stat_all()


class StatMounted(ReadMounted):
    facts = Workload(
        name="stat-mounted",
        title="Look at every name in a mount, warm",
        question="How fast can processes in a container walk it?",
        group="reading",
        cache="warm",
    )
    verbs = ("create", "mount")
    thorough = True

    def read(self, files: Files) -> None:
        self.operations = files.stat_all()


class DeepRead(_Reading):
    facts = Workload(
        name="deep-read",
        title="Read every file of a deep chain",
        question="Does reading get slower with the number of layers?",
        group="reading",
        parameter="layers",
        cache="warm",
    )
    verbs = ("create", "files")
    thorough = True
    quick = (16,)
    full = (16, 64, 128)

    @classmethod
    def needs(cls, parameter: int | None) -> tuple[str, ...]:
        return (f"deep-{parameter}",)

    def prepare(self) -> None:
        self.tag = f"deep-{self.number}"
        super().prepare()


def drop_caches(place: Path) -> None:
    """Make the system forget what it has read (proc_sys_vm(5), drop_caches)."""
    sync_file_system(place)
    try:
        _DROP.write_text("3")
    except OSError as error:
        who = "only root may" if os.geteuid() != 0 else "this system won't"
        raise Unable(f"{who} drop the system's caches: {error.strerror}") from None
