"""Drivers with one fault each in how layers are staged."""

from __future__ import annotations

import errno
import os
import unicodedata
from io import BytesIO
from typing import BinaryIO

import attrs

from cowshed.driver import Stage
from cowshed.entry import Entry, Kind
from cowshed.testing import MemoryDriver
from cowshed.testing.memory import MemoryStage
from cowshed.testing.memory_tree import Node, Volume

from .faults import FaultyStage, StagesFaultily


class _Publishing(FaultyStage):
    def discard(self) -> None:
        if self._tree is not None:
            self._driver.publish("f" * 64, self._parent, self._tree.volume)
        super().discard()


class SealsWhatIsLeft(StagesFaultily):
    """A stage that nobody sealed is a layer all the same."""

    kind = _Publishing


class _Undoing(FaultyStage):
    _sealed = ""

    def seal(self, layer: str) -> None:
        super().seal(layer)
        self._sealed = layer

    def discard(self) -> None:
        super().discard()
        if self._sealed:
            self._driver.remove(self._sealed)


class DiscardsWhatIsSealed(StagesFaultily):
    """Discarding a stage takes its layer back."""

    kind = _Undoing


class _ReadingFirst(FaultyStage):
    def __init__(self, driver: MemoryDriver, parent: str | None, base: Volume) -> None:
        super().__init__(driver, parent, base)
        self._first: dict[str, bytes] = {}

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        if content is not None:
            data = content.read()
            self._first.setdefault(entry.path, data)
            content = BytesIO(data)
        super().add(entry, content)

    def open(self, path: str) -> BinaryIO:
        return BytesIO(self._first[path]) if path in self._first else super().open(path)


class ReadsBackWhatWasReplaced(StagesFaultily):
    """A stage reads back the first content that a path was given."""

    kind = _ReadingFirst


class _KeepingFirst(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        node = self._live().volume.nodes.get(entry.path)
        given = node is not None and node.number in self._given
        return None if given and entry.kind is Kind.FILE else entry


class KeepsTheFirst(StagesFaultily):
    """A file that comes twice in one layer is the first."""

    kind = _KeepingFirst


class _Clinging(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        node = self._live().volume.nodes.get(entry.path)
        covered = node is not None and node.kind is Kind.DIRECTORY
        return None if covered and entry.kind in (Kind.FILE, Kind.SYMLINK) else entry


class KeepsDirectories(StagesFaultily):
    """What a layer puts in a directory's place isn't there."""

    kind = _Clinging


class _InPlace(FaultyStage):
    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        node = self._live().volume.nodes.get(entry.path)
        if content is not None and node is not None and node.kind is Kind.FILE:
            node.data = bytearray(content.read())
        else:
            super().add(entry, content)


class StagesThroughLinks(StagesFaultily):
    """A file that a layer replaces is overwritten, under all its names."""

    kind = _InPlace


class _Composed(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return attrs.evolve(entry, path=unicodedata.normalize("NFC", entry.path))


class ComposesNames(StagesFaultily):
    """Names that look alike are one."""

    kind = _Composed


class _Tidy(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        link = entry.kind is Kind.SYMLINK
        return attrs.evolve(entry, target=os.path.normpath(entry.target)) if link else entry


class TidiesTargets(StagesFaultily):
    """A link says where it leads, in other words."""

    kind = _Tidy


class _FewNames(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        if entry.kind is Kind.HARDLINK:
            volume = self._live().volume
            if len(volume.names(volume.nodes[entry.target])) >= 100:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), entry.path)
        return entry


class HasFewLinks(StagesFaultily):
    """A file has a hundred names at most."""

    kind = _FewNames


class _Joining(FaultyStage):
    def seal(self, layer: str) -> None:
        nodes = self._live().volume.nodes
        known: dict[bytes, Node] = {}
        for path, node in nodes.items():
            if node.kind is Kind.FILE:
                nodes[path] = known.setdefault(bytes(node.data), node)
        super().seal(layer)


class TakesEqualFilesForOne(StagesFaultily):
    """Files of equal content in a layer are names of one."""

    kind = _Joining


class _Cutting(FaultyStage):
    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        if content is not None and entry.size > 4096:
            content = BytesIO(content.read()[:-1])
            entry = attrs.evolve(entry, size=entry.size - 1)
        super().add(entry, content)


class LosesTheLastByte(StagesFaultily):
    """A file of more than a page ends too soon."""

    kind = _Cutting


class StagesOnNothing(MemoryDriver):
    """A layer shows what it brought, and nothing of what is below."""

    def stage(self, parent: str | None) -> Stage:
        return MemoryStage(self, parent, Volume())


class ResetsTheRoot(MemoryDriver):
    """The root's attributes are those of the layer that said something of it, or none."""

    def stage(self, parent: str | None) -> Stage:
        stage = MemoryStage(self, parent, self._base(parent))
        stage._live().volume.nodes[""] = Node(kind=Kind.DIRECTORY, mode=0o755)
        return stage


class HasAPrivateRoot(MemoryDriver):
    """What starts with nothing is its maker's own."""

    def _base(self, parent: str | None) -> Volume:
        base = super()._base(parent)
        if parent is None:
            base.nodes[""].mode = 0o700
        return base
