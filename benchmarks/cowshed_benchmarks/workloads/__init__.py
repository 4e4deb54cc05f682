"""Workloads: what is asked of every subject."""

from __future__ import annotations

from .changes import Commit, Diff, Export
from .containers import Create, CreateFromShell, EightAtOnce, Fork, RollBack
from .importing import DeepImport, ImportFirst, ImportSecond, Versions
from .reading import DeepRead, Read, ReadCold, ReadMounted, Stat, StatMounted
from .removal import RemoveContainers, RemoveImage
from .work import Work
from .writing import Burst, BurstMounted, FirstWrite, Overwrite

#: By name, in the order in which they are done: what is cheap and telling first, so that a run
#: that ends early has said the most.
WORKLOADS: dict[str, type[Work]] = {
    work.facts.name: work
    for work in (
        *(ImportFirst, Create, CreateFromShell, Read, Stat, ImportSecond, FirstWrite, Burst),
        *(Fork, RollBack, Diff, Commit, Export, RemoveImage, Overwrite, EightAtOnce),
        *(BurstMounted, ReadMounted, StatMounted, ReadCold, RemoveContainers, Versions),
        *(DeepImport, DeepRead),
    )
}

__all__ = ["WORKLOADS", "Work"]
