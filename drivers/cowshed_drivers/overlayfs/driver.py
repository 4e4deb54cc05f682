"""overlayfs: a layer is the directory of what it changes, a container one more; the kernel merges.

    ROOT/overlay.json            namespace of attributes, key for signatures
    ROOT/layers/ID/diff/         what the layer changes, as overlayfs knows it (see ``stack``)
    ROOT/containers/ID/diff/     what the container changed
    ROOT/frozen/, sharing/       what forks have in common (see ``freezing``)
    ROOT/journal/                what a tree is doing in several steps (see ``journal``)
    ROOT/nothing/                what is below a layer or container that stands on nothing
    …                            the rest is common to native stores (see ``native.store``)

Whoever opens a layer or container gets a mount of his own, which is attached nowhere. So a
container costs two directories and two small files until something is written in it, and what it
changed is what it has in its directory. A layer or container is read as it was when it was opened.

What its files can't hold (image's own attributes of overlayfs, a device 0/0, in a user namespace
owners outside of it and devices) is an attribute of theirs (see ``records``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cowshed.driver import Held, Item, Problem, Usage
from cowshed.native.attributes import set_ids, set_mode
from cowshed.native.cloning import copy_attributes
from cowshed.native.comparing import EMPTY_ROOT
from cowshed.native.directories import Directories
from cowshed.native.items import ItemFile
from cowshed.native.records import Record
from cowshed.native.removal import remove_directory
from cowshed.native.shelf import PLACES
from cowshed.native.stage import NativeStage
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory
from cowshed.native.view import NativeView
from cowshed.native.workspace import Workspace

from .forking import ForkingDriver
from .freezing import FROZEN
from .journal import notices
from .opening import WORK
from .stack import DIFF, FLAT, LONGEST, write_stack
from .view import OverlayView


class Overlayfs(ForkingDriver):
    """A store of directories that the kernel merges."""

    name = "overlayfs"

    def __init__(self, root: Path, options: None = None) -> None:
        super().__init__(root)

    # -- making ---------------------------------------------------------------------------------

    def lay(self, home: str, parent: str | None) -> None:
        """Make a directory that changes nothing: its root, which hides the parent's, is like it."""
        directory = f"{home}/{DIFF}"
        os.mkdir(directory, 0o700)
        target = os.open(directory, OPEN_DIRECTORY)
        try:
            if parent is None:
                record = Record()
                set_ids(self.hosting, target, ".", EMPTY_ROOT.uid, EMPTY_ROOT.gid, record)
                set_mode(self.hosting, target, ".", EMPTY_ROOT.kind, EMPTY_ROOT.mode, record)
                os.utime(target, ns=(EMPTY_ROOT.mtime_ns, EMPTY_ROOT.mtime_ns))
                return
            below = f"{self.root}/{PLACES[Held.LAYER]}/{parent}/{DIFF}"
            source = os.open(below, OPEN_DIRECTORY)
            try:
                copy_attributes(source, target)
            finally:
                os.close(source)
        finally:
            os.close(target)

    def open_stage(self, workspace: Workspace, parent: str | None) -> OverlayView:
        mounted = self.mount_stage(workspace, parent)
        return OverlayView(mounted, workspace.home, self.hosting, "bulk")

    def make_stage(self, view: NativeView, workspace: Workspace, parent: str | None) -> NativeStage:
        from .stage import OverlayStage  # who runs a container makes no layer

        assert isinstance(view, OverlayView)

        def publish(layer: str, apparent: int) -> None:
            remove_directory(workspace.home, WORK)
            stage.finish(os.path.join(workspace.home, DIFF))
            self._write_stack(workspace.home, layer, parent)
            self.seal(workspace, layer, parent, apparent)

        stage = OverlayStage(view, publish, workspace.throw_away, durable=self.durable)
        return stage

    def _write_stack(self, home: str, layer: str, parent: str | None) -> None:
        """Write down what the layer stands on, or flatten that."""
        directory = os.path.join(home, DIFF)
        below = () if parent is None else self.stacks.of_layer(parent)
        place = f"{PLACES[Held.LAYER]}/{layer}"
        if len(below) < LONGEST:
            write_stack(home, (f"{place}/{DIFF}", *below))
            return
        from .flattening import Flattener  # seldom needed

        flat = os.path.join(home, FLAT)
        make_directory(flat)
        sources = [directory, *(os.path.join(self.root, one) for one in below)]
        flattener = Flattener(sources, flat, self.hosting, whole=True)
        try:
            flattener.run()
        finally:
            flattener.close()
        write_stack(home, (f"{place}/{FLAT}",))

    # -- sweeping -------------------------------------------------------------------------------

    def recover(self) -> None:
        for container, _, _ in list(notices(self.root)):
            if not self.exists(Held.CONTAINER, container):
                self._drop_notices(container)
                continue
            still = self.locks.attempt(f"writer:{container}")
            if still is not None:
                with still:
                    self.finish_journal(self.item(container, Held.CONTAINER))
        super().recover()

    def _drop_notices(self, container: str) -> None:
        for name, path, _ in notices(self.root):
            if name == container:
                Path(path).unlink(missing_ok=True)

    # -- looking --------------------------------------------------------------------------------

    def measure(self, item: Item, home: str) -> Usage:
        from .usage import measure

        homes = [home]
        if item.held is Held.LAYER:
            apparent = ItemFile(home).apparent()
        else:
            apparent = self.changed_bytes(item)
            user = item.id
            for directory in self.stacks.frozen_of(home):
                frozen = directory.split("/")[1]
                if self.frozen.users((directory,)) != [user]:
                    break
                homes.append(os.path.join(self.root, FROZEN, frozen))
                user = frozen
        exclusive, inodes = measure(homes)
        return Usage(exclusive=exclusive, apparent=apparent, inodes=inodes)

    def verify_content(self, item: Item, view: NativeView) -> Iterator[Problem]:
        """Read every byte that is in the item's own directories, not in those below."""
        from .usage import unreadable

        assert isinstance(view, OverlayView)
        stack = view.mounted.stack
        for directory in stack.own or (self._own_of(item),):
            directories = Directories(view.mounted.at(directory))
            try:
                for path, error in unreadable(directories):
                    yield Problem(id=item.id, path=path, what=f"can't be read: {error}")
            finally:
                directories.close()

    def _own_of(self, item: Item) -> str:
        return f"{PLACES[item.held]}/{item.id}/{DIFF}"
