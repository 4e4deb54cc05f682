"""ForkingDriver: forks that copy nothing, and the copy of a container that somebody writes in."""

from __future__ import annotations

import os
import stat as stat_module
from contextlib import suppress
from pathlib import Path

from cowshed.driver import Held, Item
from cowshed.native.cloning import Copier, clone_tree, copy_attributes
from cowshed.native.items import ITEM, Common
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory

from .attaching import AttachingDriver
from .freezing import FROZEN, LONGEST, SHARING, Frozen
from .records import copy_extras
from .stack import DIFF, write_frozen


class ForkingDriver(AttachingDriver):
    """Forks and removes containers."""

    names_in = (DIFF, "")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for place in (FROZEN, SHARING):
            make_directory(os.path.join(self.root, place))
        self.frozen = Frozen(self.root, self.locks, self.hosting, self.clear)

    def fork(self, container: str, new: str) -> None:
        item = self.item(container, Held.CONTAINER)
        left: tuple[str, ...] = ()
        with self.begin(item.parent, new) as workspace:
            make_directory(os.path.join(workspace.home, DIFF))
            still = self.keep_still(item)
            try:
                if still is None:
                    self._copy(self.home(item), workspace.home)
                    if self.durable:
                        workspace.sync()
                else:
                    self.finish_journal(item)
                with self.frozen.forking():
                    if still is not None:
                        left = self._freeze(item)
                        self._inherit(self.home(item), workspace.home)
                    below = self.stacks.frozen_of(self.home(item))
                    if below:
                        self.frozen.mark(below, new)
                        write_frozen(workspace.home, below, durable=self.durable)
                        if self.durable:
                            self.frozen.sync_marks(below)
                    self.publish_container(workspace, new, item.parent, durable=self.durable)
            finally:
                if still is not None:
                    still.release()
        super().touch()
        self.frozen.release(left, container)

    def _freeze(self, item: Item) -> tuple[str, ...]:
        """Freeze what ``item`` has in its directory, if anything; return what it stood on but
        doesn't any more."""
        home = self.home(item)
        if not os.listdir(os.path.join(home, DIFF)):
            return ()
        fresh = self.frozen.make_home()
        make_directory(os.path.join(fresh, DIFF))
        self._inherit(home, fresh)
        Common(self.root, item.parent, durable=self.durable).link(os.path.join(fresh, ITEM))
        below = self.frozen.freeze(home, fresh, durable=self.durable)
        if len(below) <= LONGEST:
            return ()
        self.frozen.shorten(home, below, durable=self.durable)
        return below

    def _inherit(self, home: str, new: str) -> None:
        """Give the root in home ``new`` the attributes of the one in ``home``."""
        source = os.open(os.path.join(home, DIFF), OPEN_DIRECTORY)
        try:
            target = os.open(os.path.join(new, DIFF), OPEN_DIRECTORY)
            try:
                copy_attributes(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy(self, home: str, new: str) -> None:
        """Copy what a container has in its directory while somebody may be writing there."""
        source, target = os.path.join(home, DIFF), os.path.join(new, DIFF)
        copier = _UpperCopier(target)
        try:
            clone_tree(source, target, copier)
        finally:
            copier.close()
        copy_extras(source, target, copier.inodes)

    def remove_item(self, item: Item) -> None:
        below: tuple[str, ...] = ()
        if item.held is Held.CONTAINER:
            with suppress(FileNotFoundError):
                below = self.stacks.frozen_of(self.home(item))
        super().remove_item(item)
        if below:
            self.frozen.release(below, item.id)
            super().touch()

    def recover(self) -> None:
        super().recover()
        self.frozen.sweep()

    def usage_stamp(self, item: Item) -> int:
        """What a container has in common with its forks is its own once they are gone."""
        if item.held is Held.LAYER or not self.stacks.frozen_of(self.home(item)):
            return 0
        try:
            return os.stat(os.path.join(self.root, "generation")).st_mtime_ns
        except FileNotFoundError:
            return 0

    def touch(self, item: Item | None = None) -> None:
        """Writing in a container changes nobody else's usage; forks and removals of forks do."""


class _UpperCopier(Copier):
    """Notes which inode became which, of what can't carry a mark itself."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.inodes: dict[int, int] = {}

    def __call__(self, from_fd: int, to_fd: int, name: str, directory: str) -> None:
        try:
            super().__call__(from_fd, to_fd, name, directory)
            status = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
            if stat_module.S_ISLNK(status.st_mode) or stat_module.S_ISFIFO(status.st_mode):
                made = os.stat(name, dir_fd=to_fd, follow_symlinks=False)
                self.inodes[status.st_ino] = made.st_ino
        except FileNotFoundError:
            pass  # removed meanwhile
