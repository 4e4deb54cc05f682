"""MemoryDriver: what every call of a ``Driver`` means, in plain dictionaries.

The conformance kit runs random histories on a driver and on this one side by side. It keeps
nothing on disk, so it isn't registered for users; a store lives as long as the process, by root.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar

from ..driver import Driver, Held, Item, Problem, Stage, Usage
from ..entry import Change, ChangeKind, Entry, Kind, parent_of
from ..errors import ConflictError, InUseError, NotFoundError
from ..tree import Tree
from .memory_tree import MemoryTree, Node, Volume, order


class _Store:
    """What a root holds, whichever driver object looks at it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.items: dict[str, Item] = {}
        self.volumes: dict[str, Volume] = {}
        #: What a container without a parent is compared with.
        self.bases: dict[str, Volume] = {}


_stores: dict[str, _Store] = {}


class MemoryDriver(Driver):
    """Every layer and every container is a full copy in memory."""

    name: ClassVar[str] = "memory"

    def __init__(self, root: Path) -> None:
        self._store = _stores.setdefault(str(root), _Store())

    def stage(self, parent: str | None) -> Stage:
        with self._store.lock:
            return MemoryStage(self, parent, self._base(parent))

    def prepare(self, container: str, parent: str | None) -> None:
        with self._store.lock:
            self._free(container)
            base = self._base(parent)
            self._store.bases[container] = base
            self._hold(container, Held.CONTAINER, parent, base.copy())

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        item = self._item(id)
        volume = self._store.volumes[id]
        if writable and item.held is Held.LAYER:
            MemoryTree(volume, writable=False).unlink("")  # raises EROFS
        return MemoryTree(volume, writable=writable)

    def changes(self, container: str) -> Iterator[Change]:
        self._item(container, Held.CONTAINER)
        return compare(self._store.bases[container], self._store.volumes[container])

    def fork(self, container: str, new: str) -> None:
        with self._store.lock:
            item = self._item(container, Held.CONTAINER)
            self._free(new)
            self._store.bases[new] = self._store.bases[container]
            self._hold(new, Held.CONTAINER, item.parent, self._store.volumes[container].copy())

    def remove(self, id: str) -> None:
        with self._store.lock:
            self._item(id)
            dependants = [item.id for item in self._store.items.values() if item.parent == id]
            if dependants:
                raise InUseError(f"layer {id} is needed by {', '.join(dependants)}")
            del self._store.items[id], self._store.volumes[id]
            self._store.bases.pop(id, None)

    def usage(self, id: str) -> Usage:
        item = self._item(id)
        volume = self._store.volumes[id]
        base = self._base(item.parent) if item.held is Held.LAYER else self._store.bases[id]
        brought: dict[int, Node] = {}
        for change in compare(base, volume):
            if change.kind is not ChangeKind.DELETED and change.entry.kind is Kind.FILE:
                brought[change.entry.inode] = volume.nodes[change.path]
        nodes = {node.number: node for node in volume.nodes.values()}.values()
        return Usage(
            exclusive=sum(len(node.data) for node in nodes),
            apparent=sum(len(node.data) for node in brought.values()),
            inodes=len(nodes),
        )

    def items(self) -> Iterator[Item]:
        with self._store.lock:
            return iter(list(self._store.items.values()))

    def recover(self) -> None:
        pass

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        self._item(id)
        return iter(())

    def disk_usage(self) -> int:
        with self._store.lock:
            return sum(self.usage(id).exclusive for id in self._store.items)

    def close(self) -> None:
        pass

    # -- how ----------------------------------------------------------------------------------

    def _item(self, id: str, held: Held | None = None) -> Item:
        item = self._store.items.get(id)
        if item is None or held not in (None, item.held):
            raise NotFoundError(held.value if held else "layer or container", id)
        return item

    def _free(self, id: str, *, allowed: Held | None = None) -> None:
        item = self._store.items.get(id)
        if item is not None and item.held is not allowed:
            raise ConflictError(f"{item.held.value} {id} exists already")

    def _base(self, parent: str | None) -> Volume:
        if parent is None:
            return Volume()
        self._item(parent, Held.LAYER)
        return self._store.volumes[parent]

    def _hold(self, id: str, held: Held, parent: str | None, volume: Volume) -> None:
        self._store.items[id] = Item(id=id, held=held, parent=parent)
        self._store.volumes[id] = volume

    def publish(self, layer: str, parent: str | None, volume: Volume) -> None:
        """Publish what a stage holds, unless it exists."""
        with self._store.lock:
            self._free(layer, allowed=Held.LAYER)
            self._base(parent)
            if layer not in self._store.items:
                self._hold(layer, Held.LAYER, parent, volume)


class MemoryStage(Stage):
    """A private copy of the parent that entries are applied to."""

    def __init__(self, driver: MemoryDriver, parent: str | None, base: Volume) -> None:
        self._driver = driver
        self._parent = parent
        self._tree: MemoryTree | None = MemoryTree(base.copy(), writable=True)
        self._given: set[int] = set()

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        tree = self._live()
        tree.apply(entry, content)
        if entry.kind is Kind.FILE:
            self._given.add(tree.volume.nodes[entry.path].number)

    def open(self, path: str) -> BinaryIO:
        tree = self._live()
        if tree.stat(path).inode not in self._given:
            raise FileNotFoundError(f"{path!r} isn't a file of this stage")
        return tree.open(path)

    def seal(self, layer: str) -> None:
        self._driver.publish(layer, self._parent, self._live().volume)
        self._tree = None

    def discard(self) -> None:
        self._tree = None

    def _live(self) -> MemoryTree:
        if self._tree is None:
            raise ValueError("the stage is sealed or discarded")
        return self._tree


def compare(old: Volume, new: Volume) -> Iterator[Change]:
    """Yield the exact differences, in path order: the definition of ``Driver.changes``."""
    kinds: dict[str, ChangeKind] = {}
    for path, node in new.nodes.items():
        if path not in old.nodes:
            kinds[path] = ChangeKind.ADDED
        elif old.entry(path) != new.entry(path) or old.nodes[path].data != node.data:
            kinds[path] = ChangeKind.MODIFIED
    for path in old.nodes:
        above = new.nodes.get(parent_of(path))
        if path not in new.nodes and above is not None and above.kind is Kind.DIRECTORY:
            kinds[path] = ChangeKind.DELETED
    # A file whose names aren't those that it had, as far as they are still equal, was linked anew.
    equal = {path for path in new.nodes if path not in kinds}
    for path in equal:
        had = {name for name in old.names(old.nodes[path]) if name in equal}
        if set(new.names(new.nodes[path])) != had:
            kinds[path] = ChangeKind.MODIFIED
    for path in list(kinds):
        above_path = parent_of(path)
        while above_path:
            kinds.setdefault(above_path, ChangeKind.MODIFIED)
            above_path = parent_of(above_path)
    for path in sorted(kinds, key=order):
        if kinds[path] is ChangeKind.DELETED:
            yield Change(kinds[path], Entry(path=path, kind=Kind.WHITEOUT))
        else:
            yield Change(kinds[path], new.entry(path))
