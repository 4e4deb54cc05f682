"""NativeDriver: a store of native trees. What a driver adds is how it clones a tree.

    ROOT/store.json              format, and whose files these are (see ``hosting``)
    ROOT/lock                    locks: staging areas, parents in use, IDs being published, writers
    ROOT/generation              its mtime changes whenever what trees share may have changed
    ROOT/layers/ID/              rootfs/, sidecar.db, item.json, usage.json (a cache)
    ROOT/containers/ID/          the same
    ROOT/children/LAYER/ID       empty: layer ID stands on LAYER
    ROOT/common/LAYER            ``item.json`` of every container on LAYER, by another name
    ROOT/staging/RANDOM/         a tree in the making, locked while its process lives; a
                                 container's by its own ID
    ROOT/unfinished/CONTAINER.RANDOM
                                 what its writer is doing just now (see ``unfinished``)
    ROOT/trash/RANDOM/           a removed tree on its way out

A tree is published by one rename out of staging and removed by one rename into the trash. The mark
in ``children`` is made before its child is published and taken away after it is gone, so there may
be one too many after a crash, never one too few; a mark without a child counts for nothing. A
container makes no mark: what stands on a layer that has a file in ``common`` the containers say
themselves, when the layer is to be removed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from ..driver import Held, Item, Stage
from ..errors import BusyError, CorruptError, InUseError, NotFoundError
from ..locking import Lock
from .items import ITEM, Common, ItemFile, UsageCache, common_of, is_id
from .removal import remove_directory
from .shelf import PLACES, NativeShelf
from .stage import NativeStage
from .syscalls import make_directory, sync_directory
from .unfinished import noted, unfinished
from .view import ROOTFS, SIDECAR, NativeView
from .workspace import Workspace, lay_empty_tree


class NativeDriver(NativeShelf):
    """Everything but how trees are cloned, staged and measured."""

    # -- what a driver says ---------------------------------------------------------------------

    #: Directories of a container that begins with no more than names in them: then a journal, which
    #: has them in their order, is written once for all of them, when it is published. None: before
    #: that its files are synced, with all of the file system.
    names_in: tuple[str, ...] | None = None

    def clone(self, source: str, target: str, item: Item, *, still: bool) -> None:
        """Fill the empty tree in home ``target`` with the native files of ``item``'s in home
        ``source``. ``still``: nobody writes to that one now (a sealed layer, or a container that
        isn't open for writing and can't be until this returns)."""
        raise NotImplementedError

    def open_stage(self, workspace: Workspace, parent: str | None) -> NativeView:
        """Open the tree that a layer on ``parent`` is written into."""
        return self.view_class(workspace.home, self.hosting, "bulk")

    def make_stage(self, view: NativeView, workspace: Workspace, parent: str | None) -> NativeStage:
        """Return the stage that writes into ``view``."""
        return NativeStage(
            view,
            lambda layer, apparent: self.seal(workspace, layer, parent, apparent),
            workspace.throw_away,
            durable=self.durable,
        )

    def lay(self, home: str, parent: str | None) -> None:
        """Make the tree in ``home`` what a layer or container on ``parent`` starts as."""
        if parent is None:
            lay_empty_tree(home, self.hosting, self.view_class)
            return
        below = os.path.join(self.root, PLACES[Held.LAYER], parent)
        make_directory(os.path.join(home, ROOTFS))
        self.clone(below, home, self.item(parent, Held.LAYER), still=True)
        view = self.view_class(below, self.hosting, "sealed")
        try:
            view.sidecar.copy_to(os.path.join(home, SIDECAR))
        finally:
            view.close_view()

    def clear(self, place: str, name: str) -> None:
        """Remove the home ``name`` in ``place``, which nobody sees (any more)."""
        remove_directory(place, name)

    # -- making ---------------------------------------------------------------------------------

    def stage(self, parent: str | None) -> Stage:
        workspace = self.begin(parent)
        try:
            self.lay(workspace.home, parent)
            view = self.open_stage(workspace, parent)
            return self.make_stage(view, workspace, parent)
        except BaseException:
            workspace.throw_away()
            raise

    def prepare(self, container: str, parent: str | None) -> None:
        self.make_container(container, parent, durable=self.durable)

    def prepare_unsynced(self, container: str, parent: str | None) -> None:
        self.make_container(container, parent, durable=False)

    def make_container(self, container: str, parent: str | None, *, durable: bool) -> None:
        """See ``prepare``, and ``prepare_unsynced`` where it isn't ``durable``."""
        with self.begin(parent, container) as workspace:
            self.lay(workspace.home, parent)
            self.publish_container(workspace, container, parent, durable=durable)

    def fork(self, container: str, new: str) -> None:
        item = self.item(container, Held.CONTAINER)
        with self.begin(item.parent, new) as workspace:
            home = self.home(item)
            make_directory(os.path.join(workspace.home, ROOTFS))
            # Held until all is cloned: nobody opens it for writing in mid-clone, and a farm may
            # link what only this container holds if nobody has it open for writing now.
            writer = self.keep_still(item)
            try:
                self.clone(home, workspace.home, item, still=writer is not None)
                view = self.view_class(home, self.hosting, "live", live=True)
                try:
                    view.sidecar.copy_to(os.path.join(workspace.home, SIDECAR))
                finally:
                    view.close_view()
                self.publish_container(workspace, new, item.parent, durable=self.durable)
            finally:
                if writer is not None:
                    writer.release()

    def begin(self, parent: str | None, container: str | None = None) -> Workspace:
        """Return a place for what is to stand on ``parent``, which can't go away meanwhile.

        For a container its ID is its own from now on. ConflictError: it is taken.
        """
        held: Lock | None = None
        if parent is not None:
            held = self.locks.acquire(f"parent:{parent}", shared=True)
        try:
            if parent is not None and not self.exists(Held.LAYER, parent):
                raise NotFoundError("layer", parent)
            if container is not None and not is_id(container):
                raise ValueError(f"{container!r} can't be a file name")
            workspace = Workspace(self.root, self.locks, held, self.clear, container)
        except BaseException:
            if held is not None:
                held.release()
            raise
        try:
            if container is not None:
                self.free(container)
        except BaseException:
            workspace.throw_away()
            raise
        return workspace

    def publish_container(
        self,
        workspace: Workspace,
        id: str,
        parent: str | None,
        *,
        durable: bool,
        names_in: tuple[str, ...] | None = None,
    ) -> None:
        """Publish a finished tree as container ``id``, for which ``workspace`` was begun.
        ``names_in``: as the driver's, which it has otherwise."""
        names_in = names_in or self.names_in
        common = Common(self.root, parent, durable=self.durable)
        common.link(f"{workspace.home}/{ITEM}")
        if durable and names_in is None:
            workspace.sync()
        item = Item(id=id, held=Held.CONTAINER, parent=parent)
        home = self.home(item)
        workspace.publish(home)
        try:
            if durable:
                for directory in names_in or ():
                    sync_directory(os.path.join(home, directory))
                sync_directory(os.path.dirname(home))
            self.touch(item)
        except BaseException:
            workspace.take_back(home)  # and goes with it
            raise

    def seal(self, workspace: Workspace, layer: str, parent: str | None, apparent: int) -> None:
        """Publish a finished stage as ``layer``; quietly do nothing if that exists."""
        item = Item(id=layer, held=Held.LAYER, parent=parent)
        home = self.home(item)
        ItemFile(workspace.home).write(parent, apparent)
        if self.durable:
            workspace.sync()
        with self.locks.acquire(f"staging:{layer}"):
            self.free(layer, allowed=Held.LAYER)
            if parent is not None:
                self._mark(parent, layer)
            try:
                workspace.publish(home)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return
                raise
        if self.durable:
            sync_directory(os.path.dirname(home))
        self.touch(item)

    def _mark(self, parent: str, child: str) -> None:
        marks = os.path.join(self.root, "children", parent)
        make_directory(marks)
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(os.path.join(marks, child), flags, 0o600))
        if self.durable:
            sync_directory(marks)

    # -- removing -------------------------------------------------------------------------------

    def remove(self, id: str) -> None:
        try:
            item = self.item(id)
        except CorruptError:  # whose parent nobody knows
            held = Held.CONTAINER if self.exists(Held.CONTAINER, id) else Held.LAYER
            item = Item(id=id, held=held, parent=None)
        self.remove_item(item)

    def remove_item(self, item: Item) -> None:
        """Remove what is there, or was a moment ago."""
        alone: Lock | None = None
        if item.held is Held.LAYER:
            alone = self.locks.attempt(f"parent:{item.id}")
            if alone is None:
                raise BusyError(f"layer {item.id} is being built on just now; try again later")
        try:
            if item.held is Held.LAYER:
                self._refuse_if_needed(item.id)
                Common(self.root, item.id, durable=False).remove()
            key = os.urandom(16).hex()
            try:
                os.rename(self.home(item), os.path.join(self.root, "trash", key))
            except FileNotFoundError:
                raise NotFoundError("layer or container", item.id) from None
        finally:
            if alone is not None:
                alone.release()
        if self.durable:
            sync_directory(os.path.dirname(self.home(item)))
        self._unmark(item)
        self.clear(os.path.join(self.root, "trash"), key)
        self.touch(item)

    def _refuse_if_needed(self, layer: str) -> None:
        for child in self._marks(layer):
            if self.exists(Held.LAYER, child):
                raise InUseError(f"layer {layer} is needed by layer {child}")
        if not Common(self.root, layer, durable=False).exists():
            return
        for container in os.listdir(f"{self.root}/{PLACES[Held.CONTAINER]}"):
            try:
                needed = self.parents.of(f"{PLACES[Held.CONTAINER]}/{container}") == layer
            except CorruptError as error:
                raise InUseError(
                    f"layer {layer} may be needed by container {container}, which is to be removed "
                    f"first: {error}"
                ) from error
            if needed:
                raise InUseError(f"layer {layer} is needed by container {container}")

    def _marks(self, layer: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self.root, "children", layer)))
        except FileNotFoundError:
            return []

    def _unmark(self, item: Item) -> None:
        if item.held is Held.LAYER and item.parent is not None:
            with self.locks.acquire(f"staging:{item.id}"):
                if not self.exists(Held.LAYER, item.id):
                    with suppress(FileNotFoundError):
                        os.unlink(os.path.join(self.root, "children", item.parent, item.id))

    def recover(self) -> None:
        staging = os.path.join(self.root, "staging")
        for key in os.listdir(staging):
            lock = self.locks.attempt(f"staging:{key}")
            if lock is not None:
                with lock:
                    self.clear(staging, key)
        trash = os.path.join(self.root, "trash")
        for key in os.listdir(trash):
            self.clear(trash, key)
        for container, note in unfinished(self.root):
            self._clear_up(container, note)
        children = os.path.join(self.root, "children")
        for layer in {*os.listdir(children), *common_of(self.root)}:
            if self.exists(Held.LAYER, layer):
                continue
            # Locked and looked again: it may be sealed, and built on, this very moment.
            lock = self.locks.attempt(f"parent:{layer}")
            if lock is not None:
                with lock:
                    if not self.exists(Held.LAYER, layer):
                        Common(self.root, layer, durable=False).remove()
                        remove_directory(children, layer)

    def _clear_up(self, container: str, note: str) -> None:
        """Finish, or take back, what a container's writer was doing when it died."""
        writer = self.locks.attempt(f"writer:{container}")
        if writer is None:
            return  # it is alive
        with writer, suppress(FileNotFoundError):  # another process may have done it
            paths = noted(note)
            with suppress(NotFoundError):
                item = self.item(container, Held.CONTAINER)
                UsageCache(self.home(item)).forget()
                with self.open_tree(item, writable=True, let_go=None) as tree:
                    tree.clear_up(*paths)
                self.touch(item)
            os.unlink(note)
