"""Running: from what the user asked for to a ``Run``: who takes part, where, and on what."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from .engine import Block, Engine, Entrant, Limits, Listener
from .inputs import Wish, facts, make_material
from .machine import machine
from .places import PlaceError, loop_mounted
from .results import Run
from .space import clear
from .subjects import SHARING, Candidate, drivers, floor, peers
from .workloads import WORKLOADS

if TYPE_CHECKING:
    from cowshed.config import Config


@attrs.frozen(kw_only=True)
class Asked:
    """What the user asked for."""

    quick: bool = False
    drivers: tuple[str, ...] = ()
    #: None: those that are installed.
    peers: tuple[str, ...] | None = None
    workloads: tuple[str, ...] = ()
    rounds: int | None = None
    #: How long it may take; None: 2 if quick, 30 if not.
    minutes: float | None = None
    wish: Wish = attrs.field(factory=Wish)
    #: Where everything is made; None: in a temporary directory.
    directory: Path | None = None
    #: A kind of file system for everybody's data, made for the run; None: where ``directory`` is.
    file_system: str | None = None
    command: tuple[str, ...] = ()
    config_file: str | None = None
    overrides: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def limits(self, spent: float = 0.0) -> Limits:
        """Return what the run may take, of whose time so many seconds are spent.

        What is kept back is for clearing up and for the report.
        """
        rounds = self.rounds or (3 if self.quick else 7)
        if self.quick:
            return Limits(
                rounds=rounds,
                peer_rounds=self.rounds or 1,
                total=(self.minutes or 2) * 60 - 25 - spent,
                cell=30,
                predicted=2.5,
                disk=500_000_000,
                syncs="late",
            )
        return Limits(
            rounds=rounds,
            peer_rounds=self.rounds or 3,
            total=(self.minutes or 30) * 60 - 60 - spent,
            cell=120,
            predicted=10,
            disk=6_000_000_000,
        )

    def blocks(self) -> list[Block]:
        """Return what is to be done."""
        return [
            (name, parameter)
            for name, work in WORKLOADS.items()
            if name in self.workloads or not (self.workloads or (self.quick and work.thorough))
            for parameter in (work.quick if self.quick else work.full)
        ]

    def tags(self) -> set[str]:
        """Return the images that are needed."""
        tags = {"v1", "v2"}
        for name, parameter in self.blocks():
            tags |= set(WORKLOADS[name].needs(parameter))
            if name == "versions":
                tags |= {f"v{number}" for number in range(1, (parameter or 0) + 1)}
            elif name == "deep-import":
                tags.add(f"deep-{parameter}")
        return tags


def candidates(asked: Asked, config: Config, place: Path) -> list[Candidate]:
    """Return everybody who might take part with data at ``place``.

    Raises:
        NotFoundError: there is no driver or peer of a name that was given.
    """
    return [*drivers(config, place, asked.drivers), *peers(asked.peers, quick=asked.quick), floor()]


def run(asked: Asked, config: Config, listener: Listener) -> tuple[Run, bool]:
    """Do all of it; return what was found, and whether it went through to its end.

    Raises:
        CowshedError: what was asked for can't be had.
    """
    started, began = _now(), time.monotonic()
    with _directory(asked.directory) as directory:
        asked_for = attrs.evolve(asked.wish, limit=asked.wish.limit // (16 if asked.quick else 1))
        material = make_material(
            asked_for,
            directory / f"images-{asked_for.key}",
            asked.tags(),
            asked.config_file,
            asked.overrides,
        )
        with ExitStack() as mounts:
            entrants, found_on = _entrants(asked, config, directory, mounts)
            before = machine(found_on)
            engine = Engine(
                entrants=entrants,
                blocks=asked.blocks(),
                material=material.root,
                limits=asked.limits(time.monotonic() - began),
                listener=listener,
                config=asked.config_file,
                overrides=asked.overrides,
            )
            whole = True
            try:
                engine.run()
            except KeyboardInterrupt:
                whole = False
            finally:
                engine.discard_all()
            subjects = tuple(entrant.subject for entrant in entrants)
        finished = Run(
            started=started,
            finished=_now(),
            command=asked.command,
            machine=before,
            versions=_versions(),
            input=facts(asked_for, material),
            options={
                "quick": asked.quick,
                "rounds": asked.limits().rounds,
                "file_system": asked.file_system,
                "complete": whole,
            },
            subjects=subjects,
            workloads=tuple(WORKLOADS[name].facts for name in dict(asked.blocks())),
            samples=tuple(engine.samples),
        )
    return finished, whole


@contextmanager
def _directory(asked: Path | None) -> Generator[Path]:
    """Give a directory to work in; one that was asked for stays, with the images in it."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="cowshed-bench-"))
    try:
        yield made
    finally:
        clear(made)


def _entrants(
    asked: Asked, config: Config, directory: Path, mounts: ExitStack
) -> tuple[list[Entrant], Path]:
    """Find out who takes part and where; return the place of most, too.

    A driver that can't run in the directory gets a file system of its own that it can run on,
    where that can be made.
    """
    from cowshed.errors import UsageError

    subjects = directory / f"subjects-{os.getpid()}"
    subjects.mkdir()
    mounts.callback(clear, subjects)
    place = subjects
    where = ""
    if asked.file_system is not None:
        try:
            place = mounts.enter_context(loop_mounted(asked.file_system, subjects))
        except PlaceError as error:
            raise UsageError(str(error)) from None
        where = f"{asked.file_system} on a loop device"
    entrants: list[Entrant] = []
    other: Path | None = None
    for number, candidate in enumerate(candidates(asked, config, place)):
        subject, unable, home = candidate.subject, candidate.unable, place
        if unable and subject.kind == "driver":
            try:
                other = other or mounts.enter_context(loop_mounted(SHARING, subjects / "other"))
            except PlaceError as error:
                unable = f"{unable}; {error}"
            else:
                (again,) = drivers(config, other, [subject.name])
                if not again.unable:
                    home, unable = other, ""
        said = f"{SHARING} on a loop device" if home != place else where
        entrants.append(
            Entrant(
                subject=attrs.evolve(subject, place=said),
                place=home / f"s{number}",
                unable=unable,
                cannot=candidate.cannot,
            )
        )
    return entrants, place


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for name in ("cowshed", "lmdb", "zstandard", "pyfastcdc", "isal"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
