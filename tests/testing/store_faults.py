"""Drivers with one fault each in what there is, and what becomes of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import ClassVar

from cowshed.driver import Held, Item, Problem
from cowshed.errors import NotFoundError
from cowshed.testing import MemoryDriver
from cowshed.testing.memory_tree import Volume


class SealsOnlyOnce(MemoryDriver):
    """A layer that another has just sealed is a conflict."""

    def publish(self, layer: str, parent: str | None, volume: Volume) -> None:
        self._free(layer)
        super().publish(layer, parent, volume)


class SealsOrphans(MemoryDriver):
    """Nobody looks whether the parent is still there."""

    def publish(self, layer: str, parent: str | None, volume: Volume) -> None:
        self._free(layer, allowed=Held.LAYER)
        self._hold(layer, Held.LAYER, parent, volume)


class FailsInItsOwnWay(MemoryDriver):
    """What isn't there is a KeyError."""

    def _item(self, id: str, held: Held | None = None) -> Item:
        try:
            return super()._item(id, held)
        except NotFoundError as error:
            raise KeyError(id) from error


class StartsEmpty(MemoryDriver):
    """A container has nothing of its parent's."""

    def prepare(self, container: str, parent: str | None) -> None:
        super().prepare(container, parent)
        self._store.volumes[container] = Volume()


class StartsWhatIsThrownAwayEmpty(MemoryDriver):
    """A container that is thrown away soon has nothing of its parent's."""

    def prepare_unsynced(self, container: str, parent: str | None) -> None:
        super().prepare_unsynced(container, parent)
        self._store.volumes[container] = Volume()


class PreparesOneForAll(MemoryDriver):
    """Containers that were prepared at once are one."""

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        many = list(containers)
        super().prepare_many(many, parent)
        for container in many:
            self._store.volumes[container] = self._store.volumes[many[0]]


class RemovesAllButTheLast(MemoryDriver):
    """Of many that are removed at once one stays."""

    def remove_many(self, ids: Iterable[str]) -> None:
        super().remove_many(list(ids)[:-1])


class MeasuresAll(MemoryDriver):
    """Preparing a container measures every other."""

    def prepare(self, container: str, parent: str | None) -> None:
        super().prepare(container, parent)
        for item in self.items():
            self.usage(item.id)

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        for container in containers:
            super().prepare(container, parent)


class HasRoomForAHundred(MemoryDriver):
    """There is a bound that nobody was told of."""

    def prepare(self, container: str, parent: str | None) -> None:
        if len(self._store.items) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), container)
        super().prepare(container, parent)


class ForkDiesWithItsOrigin(MemoryDriver):
    """What a fork has from its origin goes when that is removed."""

    _origins: ClassVar[dict[tuple[int, str], str]] = {}

    def fork(self, container: str, new: str) -> None:
        super().fork(container, new)
        self._origins[id(self._store), new] = container

    def remove(self, id_: str) -> None:
        super().remove(id_)
        for (store, fork), origin in self._origins.items():
            if (store, origin) == (id(self._store), id_) and fork in self._store.volumes:
                self._store.volumes[fork] = Volume()


class ForksTheBeginning(MemoryDriver):
    """A fork starts as its origin did."""

    def fork(self, container: str, new: str) -> None:
        super().fork(container, new)
        self._store.volumes[new] = self._store.bases[container].copy()


class EmptiesSiblings(MemoryDriver):
    """Removing a container takes what its siblings hold."""

    def remove(self, id: str) -> None:
        parent = self._item(id).parent
        super().remove(id)
        for item in self._store.items.values():
            if item.held is Held.CONTAINER and item.parent == parent:
                self._store.volumes[item.id] = Volume()


class CountsNoSiblings(MemoryDriver):
    """Once one of several that stand on a layer is gone, nobody knows of the others."""

    def remove(self, id: str) -> None:
        parent = self._item(id).parent
        super().remove(id)
        for item in list(self._store.items.values()):
            if item.parent == parent:
                self._store.items[item.id] = item._replace(parent=None)


class TakesContainersForGarbage(MemoryDriver):
    """recover empties what nobody has open."""

    def recover(self) -> None:
        for item in self._store.items.values():
            if item.held is Held.CONTAINER:
                self._store.volumes[item.id] = Volume()


class CriesWolf(MemoryDriver):
    """verify finds something to complain about."""

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        yield Problem(id=id, path="", what="might be better")
