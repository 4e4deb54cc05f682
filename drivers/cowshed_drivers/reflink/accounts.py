"""Accounts: what a tree alone holds, and what all of them together take.

A tree's extents are its parent's, its own, or also a fork's or origin's. So the whole store takes
what each tree adds to its parent, where what forks share counts once; and a tree alone holds what
the kernel says no other file has, and what only files of the tree itself share (as cp(1) in a
container leaves them).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import attrs

from cowshed.driver import Held, Item
from cowshed.native.store import NativeDriver
from cowshed.native.syscalls import OPEN_DIRECTORY
from cowshed.native.usage import allocated_below
from cowshed.native.view import ROOTFS

from .contents import Contents, Identity, gather, identities
from .intervals import Interval, length, repeated, subtract, union
from .subvolumes import is_subvolume

#: In a container's home if it was forked or is a fork; empty.
FORKED = "forked"
_ADDED = "added.json"


@attrs.frozen
class Added:
    """What a tree adds to its parent."""

    #: Bytes that are no other tree's.
    alone: int
    #: Extents that may be a fork's or origin's as well.
    shared: list[Interval]


class Accounts:
    """Looks at a store's trees, each parent of several once."""

    def __init__(self, store: NativeDriver) -> None:
        self._store = store
        self._parents: dict[str, Contents] = {}
        self._known: dict[str, set[Identity]] = {}

    def exclusive(self, item: Item) -> tuple[int, int]:
        """Return bytes and inodes that go away with ``item``."""
        contents = self._gather(item)
        bytes_, shared = contents.told_apart()
        twice = repeated(shared) if item.held is Held.CONTAINER else []
        if twice:
            for other in (self._parent(item), *self._relatives(item)):
                if other is not None:
                    twice = subtract(twice, union(other.told_apart(contents)[1]))
        return bytes_ + length(twice), contents.inodes

    def disk_usage(self) -> int:
        """Return the bytes on disk of everything in the store, each extent once."""
        total, shared = 0, list[Interval]()
        for item in sorted(self._store.items(), key=lambda item: item.parent or ""):
            with suppress(FileNotFoundError):  # removed meanwhile
                added = self.added(item)
                total += added.alone
                shared += added.shared
        return total + length(union(shared)) + self._elsewhere()

    # -- what a tree adds -----------------------------------------------------------------------

    def added(self, item: Item) -> Added:
        """Return what ``item`` adds to its parent, remembered until ``forget``."""
        home = self._store.home(item)
        known = _read(home)
        if known is not None:
            return known
        if item.held is Held.LAYER:
            found = self._find_added(item)
            _write(home, found)
            return found
        # Held, so that it isn't opened for writing before what was found is written down.
        lock = self._store.locks.attempt(f"writer:{item.id}")
        if lock is None:
            return self._find_added(item)
        with lock:
            found = self._find_added(item)
            _write(home, found)
        return found

    def _find_added(self, item: Item) -> Added:
        contents = self._gather(item)
        parent = self._parent(item) if contents.shared or contents.shared_encoded else None
        alone, shared = contents.told_apart(*([parent] if parent else []))
        own = union(shared)
        if parent is not None:
            own = subtract(own, union(parent.told_apart(contents)[1]))
        if own and self._is_forked(item):
            return Added(alone, own)
        return Added(alone + length(own), [])

    # -- looking --------------------------------------------------------------------------------

    def _rootfs(self, item: Item) -> str:
        return os.path.join(self._store.home(item), ROOTFS)

    def _gather(self, item: Item) -> Contents:
        rootfs = self._rootfs(item)
        known: set[Identity] = set()
        if item.parent is not None and _snapshots(rootfs):
            known = self._identities(item.parent)
        return gather(rootfs, live=item.held is Held.CONTAINER, known=known)

    def _identities(self, layer: str) -> set[Identity]:
        if layer not in self._known:
            rootfs = self._rootfs(self._store.item(layer, Held.LAYER))
            self._known = {layer: identities(rootfs) if _snapshots(rootfs) else set()}
        return self._known[layer]

    def _parent(self, item: Item) -> Contents | None:
        """Return all that the parent of ``item`` consists of."""
        if item.parent is None:
            return None
        if item.parent not in self._parents:
            rootfs = self._rootfs(self._store.item(item.parent, Held.LAYER))
            self._parents = {item.parent: gather(rootfs, live=False)}
        return self._parents[item.parent]

    def _is_forked(self, item: Item) -> bool:
        return os.path.lexists(os.path.join(self._store.home(item), FORKED))

    def _relatives(self, item: Item) -> list[Contents]:
        """Return what the containers hold that may share with ``item`` what isn't its parent's."""
        if not self._is_forked(item):
            return []
        return [
            gather(self._rootfs(other), live=True)
            for other in self._store.items()
            if other.held is Held.CONTAINER
            and other.parent == item.parent
            and other.id != item.id
            and self._is_forked(other)
        ]

    def _elsewhere(self) -> int:
        """Return the bytes of all but the trees, and of trees in the making and on their way out
        what they alone hold."""
        root = self._store.root
        total = os.lstat(root).st_blocks * 512
        for name in os.listdir(root):
            path = os.path.join(root, name)
            if name not in ("layers", "containers", "staging", "trash"):
                total += _allocated(path)
                continue
            total += os.lstat(path).st_blocks * 512
            for home in os.listdir(path):
                total += _beside_rootfs(os.path.join(path, home))
                if name in ("staging", "trash"):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        rootfs = os.path.join(path, home, ROOTFS)
                        total += gather(rootfs, live=True).told_apart()[0]
        return total


def forget(home: str) -> None:
    """Forget what the tree in ``home`` adds, as it is about to change."""
    Path(home, _ADDED).unlink(missing_ok=True)


def _read(home: str) -> Added | None:
    try:
        with open(os.path.join(home, _ADDED), "rb") as file:
            found = json.load(file)
        return Added(int(found["alone"]), [(int(one), int(two)) for one, two in found["shared"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(home: str, added: Added) -> None:
    """Remember ``added``; never synced, and that the tree was removed meanwhile is no error."""
    path = os.path.join(home, _ADDED)
    aside = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(aside, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            json.dump(attrs.asdict(added), file)
        os.rename(aside, path)
    except OSError:
        Path(aside).unlink(missing_ok=True)


def _snapshots(rootfs: str) -> bool:
    descriptor = os.open(rootfs, OPEN_DIRECTORY)
    try:
        return is_subvolume(descriptor)
    finally:
        os.close(descriptor)


def _allocated(path: str) -> int:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            return allocated_below(path)
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _beside_rootfs(home: str) -> int:
    try:
        names = os.listdir(home)
        total = os.lstat(home).st_blocks * 512
    except (FileNotFoundError, NotADirectoryError):
        return _allocated(home)
    return total + sum(_allocated(os.path.join(home, name)) for name in names if name != ROOTFS)
