"""Kept: layers that stay mounted for the next container of the same image.

A program that runs one container after the other would have the same layer mounted and unmounted
for each of them, and the FUSE server asked for the same files, as the kernel forgets what it has of
a file system that is unmounted. So what a ``Shed`` used last stays until it is closed, or its
process ends; if several keep it, until the last of them does. Nobody waits for it: whoever sweeps,
or removes the layer, takes it away.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from ..locking import Lock, LockFile
from . import kernel
from .lowers import release
from .registry import Registry

#: Places of this many stay mounted. A layer has one or two.
_MOST = 8


class Kept:
    """What one ``Shed`` keeps. It knows no ``Shed``, as it must be able to outlive it."""

    def __init__(self, root: Path, locks: LockFile) -> None:
        self._root = root
        self._locks = locks
        self._process = os.getpid()
        self._places: OrderedDict[str, Lock] = OrderedDict()

    def keep(self, place: str) -> None:
        """Keep what is mounted at ``place``, not what wasn't used for longest. A layer of the
        bounded cache has to give way to others, and one of a namespace that is gone is no use."""
        at = Path(place)
        if at.suffix == ".cached" or at.parent.name != str(kernel.namespace()):
            self._take_away(place)
            return
        if self._process != os.getpid():  # what was kept before the fork is its parent's
            self._process = os.getpid()
            self._places = OrderedDict()
        if place not in self._places:
            self._places[place] = self._locks.acquire(_key(place), shared=True)
        self._places.move_to_end(place)
        while len(self._places) > _MOST:
            self._release(*self._places.popitem(last=False))

    def close(self) -> None:
        """Take away what nobody uses now. A child that was forked leaves it to its parent."""
        while self._places and self._process == os.getpid():
            self._release(*self._places.popitem())

    def _release(self, place: str, held: Lock) -> None:
        held.release()
        alone = self._locks.attempt(_key(place))
        if alone is not None:
            with alone:
                self._take_away(place)

    def _take_away(self, place: str) -> None:
        registry = Registry(self._root / "mounts", durable=False)
        release(self._root / "lowers", self._locks, place, registry.lowers)


def _key(place: str) -> str:
    return f"kept:{place}"
