"""Shelved: the model kept in a file, and drivers that keep it there with one fault each.

They do the right thing as long as nothing goes wrong, so only the fault injector catches them.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cowshed.driver import Driver, Item, Stage, Usage
from cowshed.entry import Change, Entry
from cowshed.errors import BusyError
from cowshed.testing import DriverConformance, MemoryDriver
from cowshed.testing.memory import MemoryStage, _Store
from cowshed.testing.memory_tree import MemoryTree, Volume, _numbers
from cowshed.tree import Tree


class Shelved(MemoryDriver):
    """Without a fault: written aside, synced, renamed into place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "store"
        self.aside = root / "store.new"
        self._depth = 0
        self._store = _Store()
        with self.turn():
            pass

    # -- keeping --------------------------------------------------------------------------------

    @contextmanager
    def turn(self) -> Generator[None]:
        """Have the store to ourselves, and keep what was changed."""
        if self._depth:
            yield
            return
        with self.locked():
            before = self.load()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            after = pickle.dumps(self.state())
            if before != after:
                self.save(after)

    @contextmanager
    def locked(self) -> Generator[None]:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def state(self) -> Any:
        return self._store.items, self._store.volumes, self._store.bases

    def take(self, state: Any) -> None:
        self._store.items, self._store.volumes, self._store.bases = state

    def load(self) -> bytes:
        """Return what was kept, and take it."""
        self._store = _Store()
        with suppress(FileNotFoundError):
            self.take(pickle.loads(self.read()))
        nodes = [node for one in self._store.volumes.values() for node in one.nodes.values()]
        for node in {id(node): node for node in nodes}.values():
            node.number = next(_numbers)  # another process may have given the same number
        return pickle.dumps(self.state())

    def read(self) -> bytes:
        return self.file.read_bytes()

    def save(self, data: bytes) -> None:
        self.write(self.aside, data)
        os.rename(self.aside, self.file)
        self.sync(self.root)

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.sync(path)

    def sync(self, path: Path) -> None:
        if self.durable:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # -- each call is a turn --------------------------------------------------------------------

    def stage(self, parent: str | None) -> Stage:
        with self.turn():
            return MemoryStage(self, parent, self._base(parent))

    def publish(self, layer: str, parent: str | None, volume: Volume) -> None:
        with self.turn():
            super().publish(layer, parent, volume)

    def prepare(self, container: str, parent: str | None) -> None:
        with self.turn():
            super().prepare(container, parent)

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        with self.turn():
            super().prepare_many(containers, parent)

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        with self.turn():
            tree = super().tree(id, writable=writable)
        assert isinstance(tree, MemoryTree)
        return ShelvedTree(self, id, tree.volume) if writable else tree

    def keep(self, container: str, volume: Volume) -> None:
        with self.turn():
            self._item(container)
            self._store.volumes[container] = volume

    def changes(self, container: str) -> Iterator[Change]:
        with self.turn():
            return super().changes(container)

    def fork(self, container: str, new: str) -> None:
        with self.turn():
            super().fork(container, new)

    def remove(self, id: str) -> None:
        with self.turn():
            super().remove(id)

    def usage(self, id: str) -> Usage:
        with self.turn():
            return super().usage(id)

    def items(self) -> Iterator[Item]:
        with self.turn():
            return super().items()

    def disk_usage(self) -> int:
        return sum(path.stat().st_size for path in self.root.iterdir())

    def recover(self) -> None:
        with self.locked(), suppress(FileNotFoundError):
            os.unlink(self.aside)


class ShelvedTree(MemoryTree):
    """Keeps what was written when it is synced or closed."""

    def __init__(self, driver: Shelved, id: str, volume: Volume) -> None:
        super().__init__(volume, writable=True)
        self._driver = driver
        self._id = id

    def sync(self) -> None:
        self._driver.keep(self._id, self.volume)

    def close(self) -> None:
        self.sync()


# -- with one fault each ------------------------------------------------------------------------


class WritesInPlace(Shelved):
    """A kill finds the only copy half written."""

    def save(self, data: bytes) -> None:
        self.write(self.file, data)


class RemovesBeforeRenaming(Shelved):
    """For a moment there is no copy at all."""

    def save(self, data: bytes) -> None:
        self.write(self.aside, data)
        with suppress(FileNotFoundError):
            os.unlink(self.file)
        os.rename(self.aside, self.file)
        self.sync(self.root)


class CommitsTwice(Shelved):
    """What there is and what it holds are published one after the other."""

    def read(self) -> bytes:
        items, _, _ = pickle.loads((self.root / "items").read_bytes())
        _, volumes, bases = pickle.loads(self.file.read_bytes())
        return pickle.dumps((items, volumes, bases))

    def save(self, data: bytes) -> None:
        self.write(self.aside, data)
        os.rename(self.aside, self.root / "items")
        super().save(data)


class PublishesOneByOne(Shelved):
    """Many containers that are made at once aren't, and nobody takes them back."""

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        for container in containers:
            self.prepare(container, parent)


class AcknowledgesEarly(Shelved):
    """A call returns before what it did is committed: the next one, or ``close``, does that."""

    _mine = False

    def __init__(self, root: Path) -> None:
        self.waiting = root / "store.waiting"
        super().__init__(root)

    def read(self) -> bytes:
        return (self.waiting if self.waiting.exists() else self.file).read_bytes()

    def save(self, data: bytes) -> None:
        self.commit()
        self.write(self.aside, data)
        os.rename(self.aside, self.waiting)
        self._mine = True

    def commit(self) -> None:
        with suppress(FileNotFoundError):
            os.rename(self.waiting, self.file)
            self.sync(self.root)

    def close(self) -> None:
        with self.locked():
            if self._mine:
                self.commit()

    def recover(self) -> None:
        with self.locked(), suppress(FileNotFoundError):
            os.unlink(self.waiting)


class IgnoresFullDisks(Shelved):
    """Takes what it couldn't keep for kept."""

    def save(self, data: bytes) -> None:
        with suppress(OSError):
            super().save(data)


class SaysNothingInParticular(Shelved):
    """A full disk is an error of its own code, not the disk's."""

    def save(self, data: bytes) -> None:
        try:
            super().save(data)
        except OSError as error:
            raise TypeError("NoneType isn't subscriptable") from error


class StaysBroken(Shelved):
    """A driver object that failed once refuses everything, space or no space."""

    _failed = False

    def save(self, data: bytes) -> None:
        if self._failed:
            raise OSError("can't be used any more")
        try:
            super().save(data)
        except OSError:
            self._failed = True
            raise


class LeaksOnFailure(Shelved):
    """What was written aside when the disk was full, or a kill came, is never swept."""

    def save(self, data: bytes) -> None:
        self.aside = self.root / f"store.{time.monotonic_ns()}"
        super().save(data + bytes(1 << 20))  # what pickle doesn't read

    def recover(self) -> None:
        pass


class KeepsTheSpace(Shelved):
    """What is removed is invisible, and on the disk for ever."""

    def remove(self, id: str) -> None:
        with self.turn():
            removed = self._store.volumes.get(id, Volume())
            super().remove(id)
            self._store.bases[f"removed {id}"] = removed


class LocksByAFile(Shelved):
    """Who is killed leaves its lock, and nobody may do anything any more."""

    @contextmanager
    def locked(self) -> Generator[None]:
        try:
            os.close(os.open(self.root / "lock", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise BusyError("another process has the store") from None
        try:
            yield
        finally:
            os.unlink(self.root / "lock")


class _Spilling(MemoryStage):
    def __init__(self, driver: LeavesStages, parent: str | None, base: Volume) -> None:
        super().__init__(driver, parent, base)
        self._spilled = driver.root / f"stage.{os.getpid()}.{time.monotonic_ns()}"

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        super().add(entry, content)
        with self._spilled.open("ab") as file:
            file.write(bytes(entry.size))

    def discard(self) -> None:
        super().discard()
        self._spilled.unlink(missing_ok=True)


class LeavesStages(Shelved):
    """What is being staged is on the disk, and nobody sweeps it when its process is dead."""

    def stage(self, parent: str | None) -> Stage:
        with self.turn():
            return _Spilling(self, parent, self._base(parent))


class RenamesBeforeSyncing(Shelved):
    """The new file is in place before its content is on the disk."""

    def save(self, data: bytes) -> None:
        self.aside.write_bytes(data)
        os.rename(self.aside, self.file)
        self.sync(self.file)
        self.sync(self.root)


class SyncsNamesOnly(Shelved):
    """The directory is synced, the file in it never."""

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)


class SyncsNothingWithIt(Shelved):
    """What is thrown away soon is written with all else, and none of that is synced."""

    def prepare_unsynced(self, container: str, parent: str | None) -> None:
        durable, self.durable = self.durable, False
        try:
            super().prepare_unsynced(container, parent)
        finally:
            self.durable = durable


class SyncsWhenClosed(Shelved):
    """What a call returned from is on the disk once the driver is closed."""

    _unsynced: Callable[[], None] = staticmethod(lambda: None)

    def sync(self, path: Path) -> None:
        self._unsynced = lambda: super(SyncsWhenClosed, self).sync(self.file)

    def close(self) -> None:
        self._unsynced()


# -- and the kit on those that several processes use: at the top of a module, for them to find ----


class Sound(DriverConformance):
    def open_driver(self, root: Path) -> Driver:
        return Shelved(root)


class Leaving(DriverConformance):
    def open_driver(self, root: Path) -> Driver:
        return LeavesStages(root)
