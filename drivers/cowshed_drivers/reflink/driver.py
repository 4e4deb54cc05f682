"""reflink: every layer and container a full tree, whose files share extents with its parent's.

    ROOT/layers/ID/rootfs/         the layer with all its parents, ready to use
    ROOT/containers/ID/rootfs/     the same, to be written to
    ROOT/…/ID/added.json           bytes that it adds to its parent (a cache, see ``accounts``)
    ROOT/containers/ID/forked      empty: it has extents in common with a fork or an origin
    …                              the rest is common to native stores (see ``native.store``)

On XFS a tree is cloned file by file with FICLONE. On btrfs every ``rootfs`` is a subvolume and a
clone is a snapshot, which takes 2 to 8 ms where 25,000 files take 1.5 s. Either way the kernel
copies what is written, extent by extent, so nothing can be written through, and processes may use
the directories themselves.

``changes`` looks at every name. It reads no file whose extents are its parent's still, and of what
has its parent's inode number and ctime in a snapshot it doesn't even ask for the extents.

What a tree alone holds is what the kernel says no other file has. It is measured once and
remembered: for a layer until trees on it come, go or are written to, for a container until it is
written to, or, if it was forked, any on the same layer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cowshed.driver import Held, Item, NativeDirectory, Usage
from cowshed.native.cloning import clone_tree
from cowshed.native.items import ItemFile
from cowshed.native.removal import remove_directory
from cowshed.native.store import NativeDriver
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory
from cowshed.native.tree import NativeTree
from cowshed.native.view import ROOTFS, SIDECAR

from . import subvolumes
from .accounts import FORKED, Accounts, forget
from .cloning import Cloner
from .tree import ReflinkTree, ReflinkView

#: Seconds after which no removed file counts as another that has an extent: XFS removes in the
#: background, btrfs as soon as it is asked to, or within half a minute.
_SETTLED = 5
_CLEANED = 60


class Reflink(NativeDriver):
    """A store of trees that share extents."""

    name = "reflink"
    tree_class = ReflinkTree
    view_class = ReflinkView

    def __init__(self, root: Path, options: None = None) -> None:
        super().__init__(root)

    # -- trees ----------------------------------------------------------------------------------

    def lay(self, home: str, parent: str | None) -> None:
        if parent is None:
            _make_rootfs(home)
        super().lay(home, parent)

    def clone(self, source: str, target: str, item: Item, *, still: bool) -> None:
        layer = item.held is Held.LAYER
        if not layer:
            for home in (source, target):
                Path(home, FORKED).touch(0o600)
            forget(source)
        old, new = os.path.join(source, ROOTFS), os.path.join(target, ROOTFS)
        os.rmdir(new)
        if _snapshot(old, target):
            return
        _make_rootfs(target)
        cloner = Cloner(new, live=not layer)
        try:
            clone_tree(old, new, cloner)
        finally:
            cloner.close()

    def clear(self, place: str, name: str) -> None:
        subvolumes.destroy(os.path.join(place, name), ROOTFS)
        remove_directory(place, name)

    def open_tree(
        self, item: Item, *, writable: bool, let_go: Callable[[], None] | None
    ) -> NativeTree:
        if writable:
            forget(self.home(item))
        return super().open_tree(item, writable=writable, let_go=let_go)

    def attach(self, container: str, *, read_only: bool = False) -> NativeDirectory:
        item = self.item(container)
        home = self.home(item)
        if not read_only:
            forget(home)
        return NativeDirectory(
            path=os.path.join(home, ROOTFS),
            faithful=not os.path.lexists(os.path.join(home, SIDECAR)),
            tells_owners=self.hosting.tells_owners,
        )

    # -- accounts -------------------------------------------------------------------------------

    def touch(self, item: Item | None = None) -> None:
        super().touch(item)
        if item is not None:
            if item.held is Held.CONTAINER:
                forget(self.home(item))
            if item.parent is not None:
                self._stir(item.parent)

    def _stir(self, layer: str) -> None:
        """Say that what trees share with ``layer`` may have changed."""
        marks = os.path.join(self.root, "children", layer)
        if not make_directory(marks):
            now = time.time_ns()
            os.utime(marks, ns=(now, now))

    def usage_stamp(self, item: Item) -> int:
        depends_on: str | None = item.id
        if item.held is Held.CONTAINER:
            if not os.path.lexists(os.path.join(self.home(item), FORKED)):
                return 0
            depends_on = item.parent
        path = "generation" if depends_on is None else os.path.join("children", depends_on)
        try:
            stamp = os.stat(os.path.join(self.root, path)).st_mtime_ns
        except FileNotFoundError:
            return 0
        now = time.time_ns()
        return stamp if now - stamp > _SETTLED * 1_000_000_000 else now

    def measure(self, item: Item, home: str) -> Usage:
        self._wait_for_removals()
        exclusive, inodes = Accounts(self).exclusive(item)
        if item.held is Held.LAYER:
            apparent = ItemFile(home).apparent()
        else:
            apparent = self.changed_bytes(item)
        return Usage(exclusive=exclusive, apparent=apparent, inodes=inodes)

    def disk_usage(self) -> int:
        return Accounts(self).disk_usage()

    def collect(self) -> int:
        """Wait for what was removed to be free; nothing else is ever left."""
        self._wait_for_removals()
        return 0

    def _wait_for_removals(self) -> None:
        trash = os.path.join(self.root, "trash")
        if abs(time.time() - os.stat(trash).st_mtime) < _CLEANED:
            subvolumes.wait_for_removals(trash, _SETTLED)


def _make_rootfs(home: str) -> None:
    if not subvolumes.create(home, ROOTFS):
        make_directory(os.path.join(home, ROOTFS))


def _snapshot(rootfs: str, home: str) -> bool:
    source = os.open(rootfs, OPEN_DIRECTORY)
    try:
        # Of what a process made a subvolume in its container, a snapshot would show nothing.
        return (
            subvolumes.is_subvolume(source)
            and not subvolumes.holds_others(source)
            and subvolumes.snapshot(source, home, ROOTFS)
        )
    finally:
        os.close(source)
