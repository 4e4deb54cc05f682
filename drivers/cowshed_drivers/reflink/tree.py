"""A reflink store's trees: plain directories, whose files nobody has to protect from writes."""

from __future__ import annotations

import os

from cowshed.native.tree import NativeTree
from cowshed.native.view import ROOTFS, Found, NativeView

from .extents import same_extents
from .subvolumes import is_subvolume


class ReflinkView(NativeView):
    """Reads a tree, and knows without reading what can't have changed in it."""

    _is_snapshot: bool | None = None

    def same_inode(self, was: Found, now: Found) -> bool:
        """A snapshot begins with its origin's inodes, ctimes included. Those nobody can set back,
        and what is written in a snapshot gets a later one (see ``subvolumes.snapshot``)."""
        one, other = was.status, now.status
        if (one.st_ino, one.st_ctime_ns) != (other.st_ino, other.st_ctime_ns):
            return False
        if one.st_dev == other.st_dev:
            return True
        if self._is_snapshot is None:
            self._is_snapshot = is_subvolume(self.directories.root)
        # In a subvolume that a process made in its container, numbers begin anew.
        return self._is_snapshot and other.st_dev == os.fstat(self.directories.root).st_dev

    def same_data(self, one: int, other: int) -> bool:
        """Files that share all extents needn't be read."""
        return same_extents(one, other)


class ReflinkTree(ReflinkView, NativeTree):
    """A tree whose directory processes may use."""

    @property
    def path(self) -> str:
        """The directory itself. It shows the hosting user's view: owners, devices and attributes
        that only the sidecar knows look different here than through the tree's methods."""
        return os.path.join(self.home, ROOTFS)
