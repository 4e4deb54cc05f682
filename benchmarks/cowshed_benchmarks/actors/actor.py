"""Actor: one subject at work in one store, by the verbs that workloads are written in.

A verb that a subject doesn't have raises ``Unable`` with the reason that its table shows. Anything
else that goes wrong is a failure, and shown as one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from ..measuring import Ran, run
from ..space import Space, clear, space
from .files import Files
from .material import Material


class Unable(Exception):
    """A subject can't do this; the message says why in one sentence."""


class Actor:
    """One subject. An object lives as long as one process; its store may be there already."""

    name: ClassVar[str] = ""
    #: Whether ``files`` are opened for each use and on the disk once they are closed; else they are
    #: there, and whoever writes in them waits for the disk himself.
    opens: ClassVar[bool] = False
    #: Whether what its verbs returned from is on the disk.
    syncs: ClassVar[bool] = False
    #: Why it lacks verbs, by verb.
    cannot: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Path, material: Material) -> None:
        self.material = material
        #: What counts as its data: created by ``start`` if missing.
        self.store = place / "store"
        #: For files that are nobody's data: exports, mount points.
        self.scratch = place / "scratch"

    def start(self) -> None:
        """Get ready: make the store, start a daemon."""
        self.store.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(exist_ok=True)

    def stop(self) -> None:
        """Let go of everything; the store stays."""
        clear(self.scratch)

    def discard(self) -> None:
        """Remove what it keeps outside its place, once it is started no more."""

    @property
    def daemons(self) -> tuple[int, ...]:
        """Processes that work for it without being its children."""
        return ()

    def space(self) -> Space:
        """Return what its store takes on disk."""
        return space(self.store)

    def unable(self, verb: str) -> Unable:
        """Return why it lacks a verb."""
        return Unable(self.cannot.get(verb, f"it has nothing like {verb}"))

    # -- images -------------------------------------------------------------------------------

    def stock(self, tag: str) -> None:
        """Have the image ``tag``, for what will be measured later."""
        self.ready(tag)
        self.import_image(tag)

    def ready(self, tag: str) -> None:
        """Have the image in the form that ``import_image`` takes; nobody measures this."""

    def import_image(self, tag: str) -> None:
        """Take in the image ``tag`` of the layout, unpacked or as it keeps them, by its program."""
        raise self.unable("import")

    def remove_image(self, tag: str) -> None:
        """Remove an image and give the space of what only it used back."""
        raise self.unable("remove-image")

    # -- containers: a string names one, in whatever way the subject likes ---------------------

    def create(self, tag: str, count: int = 1) -> list[str]:
        """Make containers on an image, in one batch where there is such a thing."""
        raise self.unable("create")

    def create_from_shell(self, tag: str) -> str:
        """Make one by a command, as a person would."""
        return self.create(tag)[0]

    def remove(self, containers: Sequence[str]) -> None:
        """Remove containers, in one batch where there is such a thing."""
        raise self.unable("remove")

    def files(self, container: str, *, writable: bool = True) -> AbstractContextManager[Files]:
        """Give a container's files through the subject's own interface."""
        raise self.unable("files")

    def mounted(self, container: str) -> AbstractContextManager[Files]:
        """Give a container's files in a directory that any process can use."""
        raise self.unable("mount")

    def diff(self, container: str) -> int:
        """Find out what changed in a container; return how much, or 0 if it doesn't say."""
        raise self.unable("diff")

    def commit(self, container: str, tag: str) -> None:
        """Make an image ``tag`` of a container."""
        raise self.unable("commit")

    def fork(self, container: str) -> str:
        """Make another container that is as this one is now."""
        raise self.unable("fork")

    def something_to_export(self, tag: str) -> str:
        """Return what ``export`` takes: a container, or for those that have none the image."""
        return self.create(tag)[0]

    def export(self, container: str, out: Path) -> None:
        """Write a container's whole file system as a tar."""
        raise self.unable("export")


class Program(Actor):
    """A subject that is a program; every verb is a process, or several."""

    #: What must be installed, and the Debian package that brings each.
    programs: ClassVar[Mapping[str, str]] = {}
    #: How to ask for the version.
    version_command: ClassVar[Sequence[str]] = ()
    #: Durability in one sentence, as ``results.Subject`` has it.
    durable: ClassVar[str] = ""
    needs_root: ClassVar[str] = ""
    #: Whether a quick run leaves it out unless it is named: it is much like another.
    thorough: ClassVar[bool] = False

    @classmethod
    def missing(cls) -> str | None:
        """Say why it can't be measured on this machine; None if it can."""
        for program, package in cls.programs.items():
            if shutil.which(program) is None:
                return f"{program} is not installed (package {package})"
        if cls.needs_root and os.geteuid() != 0:
            return cls.needs_root
        return None

    @classmethod
    def version(cls) -> str:
        """Return what the program calls its version."""
        words = run(cls.version_command).output.decode(errors="replace").split()
        return next((word for word in words if any(map(str.isdigit, word))), "unknown")

    @property
    def environment(self) -> Mapping[str, str]:
        """The program's environment: a home of its own, so that nobody's settings play a part."""
        home = self.store.parent / "home"
        home.mkdir(exist_ok=True)
        kept = {"PATH", "TMPDIR", "LANG", "TERM"}
        own = {key: value for key, value in os.environ.items() if key in kept}
        return {**own, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}

    def call(self, *command: str | os.PathLike[str], out: Path | None = None) -> Ran:
        """Run a program; ProgramError: it failed."""
        return run(command, environment=self.environment, out=out)

    def said(self, *command: str | os.PathLike[str]) -> str:
        """Run a program and return what it said, without white space around it."""
        return self.call(*command).output.decode(errors="replace").strip()


class Archiver(Program):
    """A program that keeps archives, and has nothing to write in."""

    cannot: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "remove", "files", "mount", "diff", "commit", "fork"),
        "it keeps archives, which nobody can write in",
    )

    def something_to_export(self, tag: str) -> str:
        return tag
