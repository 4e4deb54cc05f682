"""Subjects: who takes part: every registered driver, the floor, the peers that are installed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from .actors.actor import Actor
from .actors.driver import DriverActor
from .actors.floor import Floor
from .actors.material import Material
from .actors.peers import PEERS
from .job import Job
from .measuring import ProgramError
from .results import Subject

if TYPE_CHECKING:
    from cowshed.config import Config

#: What the place of a subject is called that needs files which share extents.
SHARING = "xfs"


@attrs.frozen(kw_only=True)
class Candidate:
    """Who might take part."""

    subject: Subject
    #: Why it can't take part in the directory that was asked for; empty if it can.
    unable: str = ""
    #: Why it lacks verbs (``actors.actor``), by verb.
    cannot: Mapping[str, str] = attrs.field(factory=dict[str, str])


def drivers(config: Config, place: Path, only: Sequence[str] = ()) -> list[Candidate]:
    """Return every registered driver, or those named.

    Raises:
        NotFoundError: no plugin brings one that was named.
    """
    from cowshed.plugin_manager import Plugins

    plugins = Plugins()
    plugins.load(config)
    known = plugins.drivers
    versions = _versions()
    found: list[Candidate] = []
    for name in only or known.every_name():
        if name not in known.clashes:
            known.find(name)
        verdict = plugins.judge(name, place)
        plugin = "" if name in known.clashes else known.plugin_of(name)
        found.append(
            Candidate(
                subject=Subject(
                    name=name,
                    kind="driver",
                    version=versions.get(plugin, ""),
                    durable="yes",
                    plugin=plugin,
                ),
                unable=verdict.refused or verdict.unable,
            )
        )
    return found


@functools.cache
def _versions() -> Mapping[str, str]:
    """Return the version of the distribution behind each plugin that is installed."""
    from importlib.metadata import entry_points

    return {
        point.name: point.dist.version
        for point in entry_points(group="cowshed")
        if point.dist is not None
    }


def peers(
    only: Sequence[str] | None, *, quick: bool = False, every: bool = False
) -> list[Candidate]:
    """Return peers: None: those that are installed (``quick``: and much like no other), or
    ``every`` one; otherwise those named.

    Raises:
        NotFoundError: there is no peer of that name.
    """
    from cowshed.errors import NotFoundError

    for name in only or ():
        if name not in PEERS:
            raise NotFoundError("peer", name, PEERS)
    found: list[Candidate] = []
    for name, peer in PEERS.items():
        if only is not None and name not in only:
            continue
        if only is None and quick and peer.thorough:
            continue
        missing = peer.missing() or ""
        if missing and only is None and not every:
            continue
        version = ""
        if not missing:
            try:
                version = peer.version()
            except ProgramError as error:
                missing = str(error)
        subject = Subject(name=name, kind="peer", version=version, durable=peer.durable)
        found.append(Candidate(subject=subject, unable=missing, cannot=peer.cannot))
    return found


def floor() -> Candidate:
    """Return the floor."""
    import os

    subject = Subject(
        name=Floor.name,
        kind="floor",
        version=os.uname().release,
        durable="where the workload says so",
    )
    return Candidate(subject=subject, cannot=Floor.cannot)


def actor_for(job: Job, place: Path, material: Material) -> Actor:
    """Return the actor that a job is for."""
    if job.kind == "driver":
        overrides: dict[str, Any] = dict(job.overrides)
        return DriverActor(place, material, job.subject, config=job.config, overrides=overrides)
    if job.kind == "floor":
        return Floor(place, material)
    return PEERS[job.subject](place, material)
