"""naive-copy: every layer is a full flattened copy, every container is one too.

    ROOT/layers/ID/rootfs/         the layer with all its parents, ready to use
    ROOT/containers/ID/rootfs/     a copy of its layer's
    …                              the rest is common to native stores (see ``native.store``)

It is the honest baseline: nothing is shared, so nothing can be written through, ``changes`` has to
compare every byte, and time and space grow with the image. Where the file system can share
extents, copy_file_range(2) does so without our doing (XFS, btrfs).
"""

from __future__ import annotations

import os
from pathlib import Path

from cowshed.driver import Held, Item, NativeDirectory, Usage
from cowshed.native.cloning import Copier, clone_tree
from cowshed.native.items import ItemFile
from cowshed.native.store import NativeDriver
from cowshed.native.tree import NativeTree
from cowshed.native.usage import own_inodes
from cowshed.native.view import ROOTFS, SIDECAR


class NaiveCopyTree(NativeTree):
    """A tree whose directory processes may use."""

    @property
    def path(self) -> str:
        """The directory itself. It shows the hosting user's view: owners, devices and attributes
        that only the sidecar knows look different here than through the tree's methods."""
        return os.path.join(self.home, ROOTFS)


class NaiveCopy(NativeDriver):
    """A store of full copies."""

    name = "naive-copy"
    tree_class = NaiveCopyTree

    def __init__(self, root: Path, options: None = None) -> None:
        super().__init__(root)

    def clone(self, source: str, target: str, item: Item, *, still: bool) -> None:
        rootfs = os.path.join(target, ROOTFS)
        copier = Copier(rootfs)
        try:
            clone_tree(os.path.join(source, ROOTFS), rootfs, copier)
        finally:
            copier.close()

    def attach(self, container: str, *, read_only: bool = False) -> NativeDirectory:
        home = self.home(self.item(container))
        return NativeDirectory(
            path=os.path.join(home, ROOTFS),
            faithful=not os.path.lexists(os.path.join(home, SIDECAR)),
            tells_owners=self.hosting.tells_owners,
        )

    def measure(self, item: Item, home: str) -> Usage:
        exclusive, inodes = own_inodes(home, links_elsewhere=0)
        if item.held is Held.LAYER:
            apparent = ItemFile(home).apparent()
        else:
            apparent = self.changed_bytes(item)
        return Usage(exclusive=exclusive, apparent=apparent, inodes=inodes)
