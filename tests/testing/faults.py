"""Drivers with one fault each, all derived from the model: what the kit is there to catch."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar

import attrs

from cowshed.driver import Held, Item, Stage, Usage
from cowshed.entry import Change, ChangeKind, Entry, Kind
from cowshed.errors import NotFoundError
from cowshed.testing import MemoryDriver
from cowshed.testing.memory import MemoryStage
from cowshed.testing.memory_tree import MemoryTree, Volume, order
from cowshed.tree import OpenMode, Tree


class SharingVolume(Volume):
    """Its copies share their files' content, as a hardlink farm that breaks no link would."""

    def copy(self) -> Volume:
        new = SharingVolume()
        copies = {
            node.number: attrs.evolve(node, xattrs=dict(node.xattrs))
            for node in self.nodes.values()
        }
        new.nodes = {path: copies[node.number] for path, node in self.nodes.items()}
        return new


def _share(volume: Volume) -> Volume:
    shared = SharingVolume()
    shared.nodes = volume.nodes
    return shared


class WritesThrough(MemoryDriver):
    """Content written in a container reaches its parent."""

    def prepare(self, container: str, parent: str | None) -> None:
        super().prepare(container, parent)
        if parent is not None:
            self._store.volumes[container] = _share(self._store.volumes[parent]).copy()


class ForkShares(MemoryDriver):
    """A fork and its origin are one."""

    def fork(self, container: str, new: str) -> None:
        super().fork(container, new)
        self._store.volumes[new] = self._store.volumes[container]


class AttributesWriteThrough(MemoryDriver):
    """Contents are copied, but a chmod in a container reaches its parent's inode."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        parent = self._store.items[id].parent
        return ChmodBoth(tree, self._store.volumes[parent]) if writable and parent else tree


class ChmodBoth(MemoryTree):
    def __init__(self, tree: Tree, below: Volume) -> None:
        assert isinstance(tree, MemoryTree)
        super().__init__(tree.volume, writable=True)
        self._below = below

    def chmod(self, path: str, mode: int) -> None:
        super().chmod(path, mode)
        if path in self._below.nodes:
            self._below.nodes[path].mode = mode


class FaultyStage(MemoryStage):
    """A stage that drops or alters some entries."""

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        altered = self.alter(entry)
        if altered is not None:
            super().add(altered, content)
        elif content is not None:
            content.read()

    def alter(self, entry: Entry) -> Entry | None:
        return entry


class StagesFaultily(MemoryDriver):
    kind: type[FaultyStage] = FaultyStage

    def stage(self, parent: str | None) -> Stage:
        return self.kind(self, parent, self._base(parent))


class _NoWhiteouts(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return None if entry.kind is Kind.WHITEOUT else entry


class ForgetsWhiteouts(StagesFaultily):
    """What a layer deletes comes back."""

    kind = _NoWhiteouts


class _NoOpaque(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return None if entry.kind is Kind.OPAQUE else entry


class IgnoresOpaque(StagesFaultily):
    """An emptied directory still shows its parent's children."""

    kind = _NoOpaque


class _NoTrusted(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        kept = {name: value for name, value in entry.xattrs.items() if name[:8] != "trusted."}
        return attrs.evolve(entry, xattrs=kept)


class LosesTrustedXattrs(StagesFaultily):
    """xattrs that need privilege are dropped."""

    kind = _NoTrusted


class _NoOwner(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return attrs.evolve(entry, uid=0, gid=0) if entry.kind is Kind.DIRECTORY else entry


class ForgetsDirectoryOwners(StagesFaultily):
    """Directories belong to whoever made them."""

    kind = _NoOwner


class _WholeSeconds(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return attrs.evolve(entry, mtime_ns=entry.mtime_ns // 10**9 * 10**9)


class RoundsTimes(StagesFaultily):
    """mtimes lose their nanoseconds."""

    kind = _WholeSeconds


class _Severed(FaultyStage):
    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        super().add(entry, content)
        if entry.kind is Kind.HARDLINK:
            nodes = self._live().volume.nodes
            node = nodes[entry.path]
            nodes[entry.path] = attrs.evolve(node, data=bytearray(node.data), number=10**9)


class CopiesHardLinks(StagesFaultily):
    """A hard link becomes a second file."""

    kind = _Severed


class ComparesByMtime(MemoryDriver):
    """A file counts as changed only if its mtime or size did."""

    def changes(self, container: str) -> Iterator[Change]:
        old = self._store.bases[container]
        for change in super().changes(container):
            before = old.entry(change.path) if change.path in old.nodes else None
            now = change.entry
            if before is None or (before.mtime_ns, before.size) != (now.mtime_ns, now.size):
                yield change


class OmitsTouchedDirectories(MemoryDriver):
    """Directories above a change are left out."""

    def changes(self, container: str) -> Iterator[Change]:
        for change in super().changes(container):
            same_kind = change.kind is ChangeKind.MODIFIED
            if not (same_kind and change.path and change.entry.kind is Kind.DIRECTORY):
                yield change


class ListsDeletedChildren(MemoryDriver):
    """A deleted directory is listed with everything below it."""

    def changes(self, container: str) -> Iterator[Change]:
        old = self._store.bases[container]
        for change in super().changes(container):
            yield change
            if change.kind is ChangeKind.DELETED:
                for path in sorted(old.below(change.path)):
                    yield Change(ChangeKind.DELETED, Entry(path=path, kind=Kind.WHITEOUT))


class LeaksOnRemove(MemoryDriver):
    """What a removed container held is there again for the next of that ID."""

    _attic: ClassVar[dict[str, Volume]] = {}

    def remove(self, id: str) -> None:
        if id in self._store.volumes:
            self._attic[id] = self._store.volumes[id]
        super().remove(id)

    def prepare(self, container: str, parent: str | None) -> None:
        super().prepare(container, parent)
        self._store.volumes[container] = self._attic.pop(container, self._store.volumes[container])


class RemovesParents(MemoryDriver):
    """A layer with dependants can be removed."""

    def remove(self, id: str) -> None:
        if id not in self._store.items:
            raise NotFoundError("layer or container", id)
        del self._store.items[id], self._store.volumes[id]


class StandsOnContainers(MemoryDriver):
    """A container passes for a layer to stand on."""

    def _base(self, parent: str | None) -> Volume:
        return (
            self._store.volumes[parent] if parent in self._store.volumes else super()._base(parent)
        )


class PublishesEarly(MemoryDriver):
    """A layer is listed while it is being staged."""

    def stage(self, parent: str | None) -> Stage:
        stage = super().stage(parent)
        self._store.items["early"] = Item(id="early", held=Held.LAYER, parent=parent)
        return stage


class WritableLayers(MemoryDriver):
    """A view of a layer takes writes."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        return MemoryTree(self._store.volumes[self._item(id).id], writable=True)


class FollowsLinks(MemoryDriver):
    """Opening a symbolic link opens what it points at."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return FollowingTree(tree.volume, writable=writable)


class FollowingTree(MemoryTree):
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        node = self.volume.nodes.get(path)
        return super().open(node.target if node and node.kind is Kind.SYMLINK else path, mode)


class DropsSetuidOnChown(MemoryDriver):
    """chown clears setuid, as chown(2) does."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return ClearingTree(tree.volume, writable=writable)


class ClearingTree(MemoryTree):
    def chown(self, path: str, uid: int, gid: int) -> None:
        super().chown(path, uid, gid)
        node = self.volume.nodes[path]
        if node.kind is Kind.FILE:
            node.mode &= 0o1777


class LeavesStaleTail(MemoryDriver):
    """Extending a file shows bytes that a truncation had cut off."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return StaleTree(tree.volume, writable=writable)


class StaleTree(MemoryTree):
    def truncate(self, path: str, size: int) -> None:
        if not self.writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        self.kept = getattr(self, "kept", b"") or bytes(self.volume.nodes[path].data)
        super().truncate(path, size)
        self.volume.nodes[path].data[:] = self.kept[:size].ljust(size, b"\0")


class SortsByText(MemoryDriver):
    """Names are sorted as text, not as bytes."""

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return TextTree(tree.volume, writable=writable)


class TextTree(MemoryTree):
    def scandir(self, path: str) -> Iterator[Entry]:
        return iter(sorted(super().scandir(path), key=lambda entry: entry.name.lower()))


class CountsTwice(MemoryDriver):
    """usage counts a file once for each of its names."""

    def usage(self, id: str) -> Usage:
        volume = self._store.volumes[id]
        total = sum(len(node.data) for node in volume.nodes.values())
        return attrs.evolve(super().usage(id), apparent=total)


class ForgetsOnClose(MemoryDriver):
    """Nothing survives reopening."""

    def close(self) -> None:
        self._store.items.clear()
        self._store.volumes.clear()


class ReplacesWhatIsThere(MemoryDriver):
    """An ID that is taken is given to the newcomer."""

    def _free(self, id: str, *, allowed: Held | None = None) -> None:
        pass


class ForgetsParents(MemoryDriver):
    """A fork doesn't say what it stands on."""

    def fork(self, container: str, new: str) -> None:
        super().fork(container, new)
        self._store.items[new] = attrs.evolve(self._store.items[new], parent=None)


class PreparesHalf(MemoryDriver):
    """Where one of many can't be made, the others stay."""

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        for container in containers:
            self.prepare(container, parent)


class RecoversTooMuch(MemoryDriver):
    """recover sweeps stages that are alive."""

    def stage(self, parent: str | None) -> Stage:
        stage = super().stage(parent)
        self._stages.setdefault(id(self._store), []).append(stage)
        return stage

    _stages: ClassVar[dict[int, list[Stage]]] = {}

    def recover(self) -> None:
        for stage in self._stages.pop(id(self._store), []):
            stage.discard()


class CachesTrees(MemoryDriver):
    """A driver object shows what it showed first."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._seen: dict[str, Volume] = {}

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        if writable:
            return super().tree(id, writable=True)
        volume = self._store.volumes[self._item(id).id]
        return MemoryTree(self._seen.setdefault(id, volume.copy()), writable=False)


class LosesDeepLayers(MemoryDriver):
    """What lies more than a hundred layers down is gone."""

    def publish(self, layer: str, parent: str | None, volume: Volume) -> None:
        depth, below = 0, parent
        while below is not None:
            depth, below = depth + 1, self._store.items[below].parent
        if depth > 100:
            volume.nodes.pop("bottom", None)
        super().publish(layer, parent, volume)


class HidesLinksInChanges(MemoryDriver):
    """Changes don't say which names belong to one file."""

    def changes(self, container: str) -> Iterator[Change]:
        for change in super().changes(container):
            yield Change(change.kind, attrs.evolve(change.entry, inode=0, links=1))


class ListsOnlyNewNames(MemoryDriver):
    """Where a file gained a name, the names it had aren't changes."""

    def changes(self, container: str) -> Iterator[Change]:
        old = self._store.bases[container]
        for change in super().changes(container):
            known = change.path in old.nodes and change.entry.kind is Kind.FILE
            if not (known and old.entry(change.path) == change.entry):
                yield change


class ListsEmptyFiles(MemoryDriver):
    """An empty file is always a change."""

    def changes(self, container: str) -> Iterator[Change]:
        found = {change.path: change for change in super().changes(container)}
        volume = self._store.volumes[container]
        for path, node in volume.nodes.items():
            if node.kind is Kind.FILE and not node.data:
                found.setdefault(path, Change(ChangeKind.MODIFIED, volume.entry(path)))
        return iter([found[path] for path in sorted(found, key=order)])


class CountsLinksAsFiles(MemoryDriver):
    """A container's apparent size counts each name of a file."""

    def usage(self, id: str) -> Usage:
        usage = super().usage(id)
        if self._item(id).held is Held.LAYER:
            return usage
        files = (change.entry.size for change in self.changes(id))
        return attrs.evolve(usage, apparent=sum(files))


class ChangedTree(MemoryDriver):
    """Opens trees of a class of its own."""

    kind: ClassVar[type[MemoryTree]] = MemoryTree

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return self.kind(tree.volume, writable=writable)


class _Joining(MemoryTree):
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        node = self.volume.nodes.get(path)
        if mode == "r+b" and node is not None:
            for other in self.volume.nodes.values():
                if other is not node and other.data and other.data == node.data:
                    other.data = node.data
        return super().open(path, mode)


class JoinsEqualFiles(ChangedTree):
    """Files of equal content are one file until somebody notices."""

    kind = _Joining


class _Masked(MemoryTree):
    def mkdir(self, path: str, mode: int = 0o755) -> None:
        mask = os.umask(0)
        os.umask(mask)
        super().mkdir(path, mode & ~mask)


class ObeysUmask(ChangedTree):
    """A new directory has the mode that the umask leaves."""

    kind = _Masked


class _Still(MemoryTree):
    def _drop(self, path: str) -> None:
        del self.volume.nodes[path]


class ForgetsDirectoryTimes(ChangedTree):
    """Removing something leaves its directory's mtime."""

    kind = _Still


class _Climbing(MemoryTree):
    def _directory(self, path: str) -> None:
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            if "/".join(parts[:depth]) not in self.volume.nodes:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class WalksThroughLinks(ChangedTree):
    """What isn't a directory on the way is FileNotFoundError, as if it weren't there."""

    kind = _Climbing


class _Overwriting(MemoryTree):
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        found = path in self.volume.nodes
        return super().open(path, "r+b" if mode == "ab" and found else mode)


class OverwritesInsteadOfAppending(ChangedTree):
    """Appending begins at the start."""

    kind = _Overwriting


class _Vanishing(MemoryTree):
    def rename(self, source: str, destination: str) -> None:
        super().rename(source, destination)
        nodes = self.volume.nodes
        if source in nodes and nodes.get(destination) is nodes[source] and source != destination:
            del nodes[source]


class RenamesAwayOneOfTwoNames(ChangedTree):
    """Renaming a name onto another of the same file removes the first."""

    kind = _Vanishing


class _NoAncientTimes(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        return attrs.evolve(entry, mtime_ns=max(0, entry.mtime_ns))


class ClampsTimes(StagesFaultily):
    """No file is older than 1970."""

    kind = _NoAncientTimes


class _PlainFiles(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        device = entry.kind in (Kind.CHAR, Kind.BLOCK)
        return attrs.evolve(entry, kind=Kind.FILE, rdev=0) if device else entry


class MakesDevicesFiles(StagesFaultily):
    """Device nodes become empty files, as without privilege."""

    kind = _PlainFiles


class _Folded(FaultyStage):
    def alter(self, entry: Entry) -> Entry | None:
        plain = entry.path.encode("utf-8", "replace").decode()
        return attrs.evolve(entry, path=plain)


class ReplacesUndecodableNames(StagesFaultily):
    """A byte that isn't UTF-8 becomes a question mark."""

    kind = _Folded


class _LazyStage(MemoryStage):
    """Reads its content when it is sealed."""

    def __init__(self, driver: MemoryDriver, parent: str | None, base: Volume) -> None:
        super().__init__(driver, parent, base)
        self._later: list[tuple[Entry, BinaryIO | None]] = []

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        self._later.append((entry, content))

    def seal(self, layer: str) -> None:
        for entry, content in self._later:
            super().add(entry, content)
        super().seal(layer)


class KeepsReferences(MemoryDriver):
    """A stage holds on to what it is to read."""

    def stage(self, parent: str | None) -> Stage:
        return _LazyStage(self, parent, self._base(parent))
