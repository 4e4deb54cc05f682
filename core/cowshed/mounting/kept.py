"""Kept: layers that stay mounted for the next container of the same image.

A program that runs one container after the other would have the same layer mounted and unmounted
for each of them, and the FUSE server asked for the same files, as the kernel forgets what it has of
a file system that is unmounted. So what a ``Shed`` used last stays until it is closed, or its
process ends; if several keep it, until the last of them does. Nobody waits for it: whoever sweeps,
or removes the layer, takes it away.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
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
        self._guard = threading.Lock()
        self._places: OrderedDict[str, Lock] = OrderedDict()
        known = weakref.ref(self)

        def leave_to_parent() -> None:
            kept = known()
            if kept is not None:
                kept._leave_to_parent()

        os.register_at_fork(after_in_child=leave_to_parent)

    def _leave_to_parent(self) -> None:
        """Keep nothing, in a child that was forked, of what its parent keeps."""
        self._guard = threading.Lock()
        places, self._places = self._places, OrderedDict()
        for held in places.values():
            held.release()

    def keep(self, place: str) -> None:
        """Keep what is mounted at ``place``, not what wasn't used for longest. A layer of the
        bounded cache has to give way to others, and one of a namespace that is gone is no use."""
        at = Path(place)
        if at.suffix == ".cached" or at.parent.name != str(kernel.namespace()):
            self._take_away(place)
            return
        with self._guard:
            if place not in self._places:
                self._places[place] = self._locks.acquire(_key(place), shared=True)
            self._places.move_to_end(place)
            while len(self._places) > _MOST:
                self._release(*self._places.popitem(last=False))

    def close(self) -> None:
        """Take away what nobody uses now. What can't be, whoever sweeps does."""
        with self._guard:
            while self._places:
                with suppress(OSError):
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
