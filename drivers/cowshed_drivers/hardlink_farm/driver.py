"""hardlink-farm: equal files are one inode, in every layer and container.

    ROOT/objects/ab/KEY            an inode, by the hash of its content and metadata (``objects``)
    ROOT/layers/ID/rootfs/         a directory tree of links
    ROOT/containers/ID/untouched   it has no tree yet, and shows its layer's
    ROOT/containers/ID/rootfs/     one of links, once somebody opened it for writing; they break on
                                   first write (``tree``)
    ROOT/…/ID/aside/               files on their way into rootfs
    …                              the rest is common to native stores (see ``native.store``)

Mode, owner, times and xattrs live in the inode, so the key covers them: a file that differs in one
is another object. What the sidecar holds isn't in the inode and not in the key. Names that share
an inode here need not be hard links of the image; those have a record in common.

Order of publication: files into the staging tree, one syncfs, names in ``objects``, the tree
renamed into place, its directory synced. So whoever finds an object may link to it and rely on it.

Nothing protects an inode from a user who may write to it by a path around us; permissions are the
image's and have to stay, and an immutable flag would forbid linking. ROOT's mode 0700 keeps others
out, and ``verify(deep=True)`` hashes every file against its object's key.

To link 25,000 files takes a second, and so does comparing them with their layer's. Nobody but a
tree of ours writes in a container, and processes get an overlay on the layer's files. So a
container's tree is made when it is first opened for writing: in staging, then its sidecar and its
rootfs are renamed into place, then ``untouched`` goes. What has that is its layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cowshed.driver import Held, Item, LayerContents, Problem, Usage
from cowshed.entry import Change, Kind
from cowshed.native.cloning import clone_tree
from cowshed.native.items import ItemFile
from cowshed.native.removal import remove_directory
from cowshed.native.shelf import PLACES
from cowshed.native.store import NativeDriver
from cowshed.native.syscalls import sync_directory
from cowshed.native.tree import NativeTree
from cowshed.native.usage import own_inodes
from cowshed.native.view import ROOTFS, SIDECAR, NativeView
from cowshed.native.workspace import Workspace

from .cloning import Linker
from .objects import Objects, key_of_file
from .options import FarmOptions
from .stage import FarmStage
from .tree import ASIDE, FarmTree, FarmView

UNTOUCHED = "untouched"


class HardlinkFarm(NativeDriver):
    """A store of trees of links."""

    name = "hardlink-farm"
    tree_class = FarmTree
    view_class = FarmView

    def __init__(self, root: Path, options: FarmOptions | None = None) -> None:
        super().__init__(root)
        self._objects = Objects(self.root, (options or FarmOptions()).max_links)

    def close(self) -> None:
        super().close()
        self._objects.close()

    def make_stage(self, view: NativeView, workspace: Workspace, parent: str | None) -> FarmStage:
        assert isinstance(view, FarmView)
        return FarmStage(
            view,
            self._objects,
            lambda layer, apparent: self.seal(workspace, layer, parent, apparent),
            workspace.throw_away,
            durable=self.durable,
        )

    def clone(self, source: str, target: str, item: Item, *, still: bool) -> None:
        layer = item.held is Held.LAYER
        view = FarmView(source, self.hosting, "sealed" if layer else "live")
        try:
            linker = Linker(
                view, target, self._objects, self.locks, still=still, durable=self.durable
            )
            try:
                clone_tree(f"{source}/{ROOTFS}", f"{target}/{ROOTFS}", linker, view.mtime_of)
            finally:
                linker.close()
        finally:
            view.close_view()

    def make_container(self, container: str, parent: str | None, *, durable: bool) -> None:
        with self.begin(parent, container) as workspace:
            if parent is None:
                self.lay(workspace.home, None)
                self.publish_container(workspace, container, parent, durable=durable)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(f"{workspace.home}/{UNTOUCHED}", flags, 0o600))
                self.publish_container(
                    workspace, container, parent, durable=durable, names_in=("",)
                )

    def fork(self, container: str, new: str) -> None:
        item = self.item(container, Held.CONTAINER)
        if self._is_untouched(item):
            self.prepare(new, item.parent)
        else:
            super().fork(container, new)

    def _is_untouched(self, item: Item) -> bool:
        return item.held is Held.CONTAINER and os.path.lexists(f"{self.home(item)}/{UNTOUCHED}")

    def _shown(self, item: Item) -> Item:
        """Return what has the tree of ``item``: itself, or the layer that it stands on."""
        if item.parent is None or not self._is_untouched(item):
            return item
        if os.path.lexists(f"{self.home(item)}/{ROOTFS}"):
            return item  # it is being made, or was when somebody was killed, or made at once
        return Item(id=item.parent, held=Held.LAYER, parent=None)

    def _touch_first(self, item: Item) -> None:
        """Give a container a tree of its own, durably, before anything is written there.

        Raises:
            NotFoundError: it was removed meanwhile.
        """
        if not self._is_untouched(item):
            return
        home = self.home(item)
        with self.locks.acquire(_laying(item.id)):  # as long as it is held nobody removes it
            item = self.item(item.id, Held.CONTAINER)
            if not self._is_untouched(item):
                return  # another was first
            if not os.path.lexists(f"{home}/{ROOTFS}"):
                with self.begin(item.parent) as workspace:
                    self.lay(workspace.home, item.parent)
                    if self.durable:
                        workspace.sync()
                    with suppress(FileNotFoundError):  # few layers have one
                        os.rename(f"{workspace.home}/{SIDECAR}", f"{home}/{SIDECAR}")
                        if self.durable:
                            sync_directory(home)
                    os.rename(f"{workspace.home}/{ROOTFS}", f"{home}/{ROOTFS}")
                if self.durable:
                    sync_directory(home)
            os.unlink(f"{home}/{UNTOUCHED}")
            if self.durable:
                sync_directory(home)

    def remove_item(self, item: Item) -> None:
        if item.held is Held.CONTAINER:
            with self.locks.acquire(_laying(item.id)):
                super().remove_item(item)
        else:
            super().remove_item(item)

    def view(self, item: Item) -> NativeView:
        return super().view(self._shown(item))

    def open_tree(
        self, item: Item, *, writable: bool, let_go: Callable[[], None] | None
    ) -> NativeTree:
        if writable:
            self._touch_first(item)
        return super().open_tree(
            item if writable else self._shown(item), writable=writable, let_go=let_go
        )

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        item = self.item(id)
        if self._shown(item) == item:
            yield from super().verify(id, deep=deep)
        elif item.parent is not None and not self.exists(Held.LAYER, item.parent):
            yield Problem(id=id, path="", what=f"its parent layer {item.parent} is missing")

    def changes_of(self, item: Item) -> Iterator[Change]:
        if self._is_untouched(item):
            return iter(())
        return super().changes_of(item)

    def attach(self, container: str, *, read_only: bool = False) -> LayerContents | None:
        """A process shall never reach a shared inode, so it gets the layer's files to read only."""
        parent = self.item(container, Held.CONTAINER).parent
        if parent is None:
            return None
        return LayerContents(directory=os.path.join(self.root, PLACES[Held.LAYER], parent, ROOTFS))

    def usage_stamp(self, item: Item) -> int:
        """A container made or removed changes what a layer alone holds."""
        try:
            return os.stat(os.path.join(self.root, "generation")).st_mtime_ns
        except FileNotFoundError:
            return 0

    def measure(self, item: Item, home: str) -> Usage:
        # A layer's inodes have one more name, in objects, and are collected once it is the last.
        # A container's own have none; two forks may share what no layer has.
        layer = item.held is Held.LAYER
        exclusive, inodes = own_inodes(home, links_elsewhere=1 if layer else 0)
        apparent = ItemFile(home).apparent() if layer else self.changed_bytes(item)
        return Usage(exclusive=exclusive, apparent=apparent, inodes=inodes)

    def verify_content(self, item: Item, view: NativeView) -> Iterator[Problem]:
        """Hash every file that is an object and compare with its key; read the others."""
        keys = self._objects.keys_by_inode()
        for found in view.walk_found(""):
            if found.kind is not Kind.FILE:
                continue
            try:
                descriptor = view.open_found(found, os.O_RDONLY)
                try:
                    key = key_of_file(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                yield Problem(id=item.id, path=found.path, what=f"can't be read: {error}")
                continue
            if keys.get(found.status.st_ino, key) != key:
                yield Problem(
                    id=item.id,
                    path=found.path,
                    what="content, mode, owner, mtime or xattrs were changed behind Cowshed's back",
                )

    def remove(self, id: str) -> None:
        self.remove_many([id])

    def remove_many(self, ids: Iterable[str]) -> None:
        """Remove, and with layers the objects that were theirs alone: looking through 25,000
        objects takes 0.1 s, and whoever removes an image expects its space back."""
        wanted = list(ids)
        layers = any(self.exists(Held.LAYER, id) for id in wanted)
        try:
            for id in wanted:
                super().remove(id)
        finally:
            if layers:
                self.collect()

    def recover(self) -> None:
        super().recover()
        for held, place in PLACES.items():
            for id in os.listdir(os.path.join(self.root, place)):
                home = os.path.join(self.root, place, id)
                if not os.path.lexists(os.path.join(home, ASIDE)):
                    continue
                # What a killed process had there; a layer's is used when a full inode is renewed.
                user = f"writer:{id}" if held is Held.CONTAINER else f"renew:{home}"
                lock = self.locks.attempt(user)
                if lock is not None:
                    with lock, suppress(FileNotFoundError):
                        view = FarmView(
                            home, self.hosting, "sealed" if held is Held.LAYER else "live"
                        )
                        try:
                            view.restore_times()
                        finally:
                            view.close_view()
                        remove_directory(home, ASIDE)

    def collect(self) -> int:
        with self.locks.acquire("collect"):
            freed = self._objects.collect()
        self.touch()
        return freed


def _laying(container: str) -> str:
    """Return the key of the lock held while a container gets its tree, or is removed."""
    return f"lay:{container}"
