"""NativeDriver: a store of native trees. What a driver adds is how it clones a tree.

    ROOT/store.json              format, and whose files these are (see ``hosting``)
    ROOT/lock                    locks: staging areas, parents in use, IDs being published, writers
    ROOT/generation              its mtime changes whenever what trees share may have changed
    ROOT/layers/ID/              rootfs/, sidecar.db, item.json, usage.json (a cache)
    ROOT/containers/ID/          the same
    ROOT/children/LAYER/ID       empty: layer or container ID stands on LAYER
    ROOT/staging/RANDOM/         a tree in the making, locked while its process lives
    ROOT/trash/RANDOM/           a removed tree on its way out

A tree is published by one rename out of staging and removed by one rename into the trash. The mark
in ``children`` is made before its child is published and taken away after it is gone, so there may
be one too many after a crash, never one too few; a mark without a child counts for nothing.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cowshed.driver import Driver, Held, Item, Problem, Stage, Usage
from cowshed.entry import Change, Kind
from cowshed.errors import BusyError, ConflictError, InUseError, NotFoundError
from cowshed.locking import Lock, LockFile
from cowshed.tree import Tree

from .comparing import compare
from .hosting import open_hosting
from .items import ItemFile, UsageCache, is_id
from .removal import remove_directory
from .stage import NativeStage
from .syscalls import make_directory, sync_directory, syncfs
from .tree import NativeTree
from .usage import allocated_below
from .view import ROOTFS, SIDECAR, NativeView
from .workspace import Workspace, lay_empty_tree

_PLACES = {Held.LAYER: "layers", Held.CONTAINER: "containers"}


class NativeDriver(Driver):
    """Everything but how trees are cloned, staged and measured."""

    tree_class: type[NativeTree] = NativeTree
    view_class: type[NativeView] = NativeView

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        for place in (*_PLACES.values(), "children", "staging", "trash"):
            make_directory(os.path.join(self.root, place))
        self.hosting = open_hosting(os.path.join(self.root, "store.json"), self.name)
        self.locks = LockFile(root / "lock")

    # -- what a driver says ---------------------------------------------------------------------

    def clone(self, source: str, target: str, item: Item, *, still: bool) -> None:
        """Fill the empty tree in home ``target`` with the native files of ``item``'s in home
        ``source``. ``still``: nobody writes to that one now (a sealed layer, or a container that
        isn't open for writing and can't be until this returns)."""
        raise NotImplementedError

    def make_stage(self, view: NativeView, workspace: Workspace, parent: str | None) -> NativeStage:
        """Return the stage that writes into ``view``."""
        return NativeStage(
            view,
            lambda layer, apparent: self.seal(workspace, layer, parent, apparent),
            workspace.throw_away,
        )

    def measure(self, item: Item, home: str) -> Usage:
        """Walk the tree in ``home`` and say what it costs."""
        raise NotImplementedError

    def usage_stamp(self) -> int:
        """Return what a cached usage depends on besides its own tree."""
        return 0

    # -- making ---------------------------------------------------------------------------------

    def stage(self, parent: str | None) -> Stage:
        workspace = self._begin(parent)
        try:
            self._lay(workspace.home, parent)
            view = self.view_class(workspace.home, self.hosting, "bulk")
            return self.make_stage(view, workspace, parent)
        except BaseException:
            workspace.throw_away()
            raise

    def prepare(self, container: str, parent: str | None) -> None:
        self._free(container)
        with self._begin(parent) as workspace:
            self._lay(workspace.home, parent)
            self._publish_container(workspace, container, parent)

    def fork(self, container: str, new: str) -> None:
        item = self._item(container, Held.CONTAINER)
        self._free(new)
        with self._begin(item.parent) as workspace:
            home = self._home(item)
            make_directory(os.path.join(workspace.home, ROOTFS))
            # Held until all is cloned: nobody opens it for writing in mid-clone, and a farm may
            # link what only this container holds if nobody has it open for writing now.
            writer = self.locks.attempt(f"writer:{container}")
            try:
                self.clone(home, workspace.home, item, still=writer is not None)
                view = self.view_class(home, self.hosting, "live", live=True)
                try:
                    view.sidecar.copy_to(os.path.join(workspace.home, SIDECAR))
                finally:
                    view.close_view()
                self._publish_container(workspace, new, item.parent)
            finally:
                if writer is not None:
                    writer.release()

    def _begin(self, parent: str | None) -> Workspace:
        held: Lock | None = None
        if parent is not None:
            self._item(parent, Held.LAYER)
            held = self.locks.acquire(f"parent:{parent}", shared=True)
            try:
                self._item(parent, Held.LAYER)
            except BaseException:
                held.release()
                raise
        return Workspace(self.root, self.locks, held)

    def _lay(self, home: str, parent: str | None) -> None:
        if parent is None:
            lay_empty_tree(home, self.hosting, self.view_class)
            return
        below = os.path.join(self.root, _PLACES[Held.LAYER], parent)
        make_directory(os.path.join(home, ROOTFS))
        self.clone(below, home, self._item(parent, Held.LAYER), still=True)
        view = self.view_class(below, self.hosting, "sealed")
        try:
            view.sidecar.copy_to(os.path.join(home, SIDECAR))
        finally:
            view.close_view()

    def _publish_container(self, workspace: Workspace, id: str, parent: str | None) -> None:
        if not self._publish(workspace, Item(id=id, held=Held.CONTAINER, parent=parent), 0):
            raise ConflictError(f"container {id} exists already")

    def seal(self, workspace: Workspace, layer: str, parent: str | None, apparent: int) -> None:
        """Publish a finished stage as ``layer``; quietly do nothing if that exists."""
        self._publish(workspace, Item(id=layer, held=Held.LAYER, parent=parent), apparent)

    def _publish(self, workspace: Workspace, item: Item, apparent: int) -> bool:
        """Rename a finished tree into place; False if the ID is there already."""
        home = self._home(item)
        ItemFile(workspace.home).write(item.parent, apparent)
        if self.durable:
            workspace.sync()
        with self.locks.acquire(f"id:{item.id}"):
            self._free(item.id, allowed=item.held)
            if item.parent is not None:
                self._mark(item.parent, item.id)
            try:
                os.rename(workspace.home, home)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        if self.durable:
            sync_directory(os.path.dirname(home))
        self.touch()
        return True

    def _mark(self, parent: str, child: str) -> None:
        marks = os.path.join(self.root, "children", parent)
        make_directory(marks)
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(os.path.join(marks, child), flags, 0o600))
        if self.durable:
            sync_directory(marks)

    # -- looking --------------------------------------------------------------------------------

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        item = self._item(id)
        layer = item.held is Held.LAYER
        if writable and layer:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), id)
        home = self._home(item)
        if not writable:
            return self.tree_class(home, self.hosting, layer=layer)
        writer = self.locks.acquire(
            f"writer:{id}", shared=True, timeout=60, what=f"container {id[:16]}"
        )

        def let_go() -> None:
            UsageCache(home).forget()
            self.touch()
            writer.release()

        try:
            UsageCache(home).forget()
            return self.tree_class(
                home, self.hosting, layer=False, writable=True, durable=self.durable, let_go=let_go
            )
        except BaseException:
            writer.release()
            raise

    def changes(self, container: str) -> Iterator[Change]:
        return self._changes(self._item(container, Held.CONTAINER))

    def _changes(self, item: Item) -> Iterator[Change]:
        new = self.view_class(self._home(item), self.hosting, "live", live=True)
        try:
            old: NativeView | None = None
            if item.parent is not None:
                below = os.path.join(self.root, _PLACES[Held.LAYER], item.parent)
                old = self.view_class(below, self.hosting, "sealed")
            try:
                yield from compare(old, new)
            finally:
                if old is not None:
                    old.close_view()
        finally:
            new.close_view()

    def items(self) -> Iterator[Item]:
        for held, place in _PLACES.items():
            for id in sorted(os.listdir(os.path.join(self.root, place))):
                parent = ItemFile(os.path.join(self.root, place, id)).parent()
                if parent is not ...:
                    yield Item(id=id, held=held, parent=parent)

    def usage(self, id: str) -> Usage:
        item = self._item(id)
        home = self._home(item)
        stamp = self.usage_stamp()
        cache = UsageCache(home)
        known = cache.read(stamp)
        if known is not None:
            return known
        found = self.measure(item, home)
        # A container open for writing is a different one in a moment.
        free = item.held is Held.LAYER or self.locks.attempt(f"writer:{id}")
        if free:
            cache.write(stamp, found)
            if isinstance(free, Lock):
                free.release()
        return found

    def changed_bytes(self, item: Item) -> int:
        """Return the bytes of the files that a container added or changed, each file once."""
        sizes: dict[int | str, int] = {}
        for change in self._changes(item):
            entry = change.entry
            if entry.kind is Kind.FILE:
                sizes[entry.inode if entry.links > 1 else entry.path] = entry.size
        return sum(sizes.values())

    def disk_usage(self) -> int:
        return allocated_below(self.root)

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        item = self._item(id)
        home = self._home(item)
        if item.parent is not None and not self._exists(Held.LAYER, item.parent):
            yield Problem(id=id, path="", what=f"its parent layer {item.parent} is missing")
        if not os.path.isdir(os.path.join(home, ROOTFS)):
            yield Problem(id=id, path="", what="its directory rootfs is missing")
            return
        layer = item.held is Held.LAYER
        view = self.view_class(home, self.hosting, "sealed" if layer else "live", live=not layer)
        try:
            for what in view.sidecar.problems():
                yield Problem(id=id, path="", what=f"its sidecar is damaged: {what}")
            if deep:
                yield from self.verify_content(item, view)
        finally:
            view.close_view()

    def verify_content(self, item: Item, view: NativeView) -> Iterator[Problem]:
        """Read every byte of ``item``'s files."""
        for found in view.walk_found(""):
            if found.kind is Kind.FILE:
                try:
                    with view.open_to_read(found) as file:
                        while file.read(1 << 20):
                            pass
                except OSError as error:
                    yield Problem(id=item.id, path=found.path, what=f"can't be read: {error}")

    # -- removing -------------------------------------------------------------------------------

    def remove(self, id: str) -> None:
        item = self._item(id)
        alone: Lock | None = None
        if item.held is Held.LAYER:
            alone = self.locks.attempt(f"parent:{id}")
            if alone is None:
                raise BusyError(f"layer {id} is being built on just now; try again later")
        try:
            if item.held is Held.LAYER:
                self._refuse_if_needed(id)
            key = os.urandom(16).hex()
            try:
                os.rename(self._home(item), os.path.join(self.root, "trash", key))
            except FileNotFoundError:
                raise NotFoundError("layer or container", id) from None
        finally:
            if alone is not None:
                alone.release()
        if self.durable:
            sync_directory(os.path.dirname(self._home(item)))
        self._unmark(item)
        remove_directory(os.path.join(self.root, "trash"), key)
        self.touch()

    def _refuse_if_needed(self, layer: str) -> None:
        for child in self._marks(layer):
            for held in Held:
                if self._exists(held, child):
                    raise InUseError(f"layer {layer} is needed by {held.value} {child}")

    def _marks(self, layer: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self.root, "children", layer)))
        except FileNotFoundError:
            return []

    def _unmark(self, item: Item) -> None:
        if item.parent is not None:
            with self.locks.acquire(f"id:{item.id}"):
                if not any(self._exists(held, item.id) for held in Held):
                    mark = os.path.join(self.root, "children", item.parent, item.id)
                    Path(mark).unlink(missing_ok=True)

    def recover(self) -> None:
        staging = os.path.join(self.root, "staging")
        for key in os.listdir(staging):
            lock = self.locks.attempt(f"staging:{key}")
            if lock is not None:
                with lock:
                    remove_directory(staging, key)
        trash = os.path.join(self.root, "trash")
        for key in os.listdir(trash):
            remove_directory(trash, key)
        children = os.path.join(self.root, "children")
        for layer in os.listdir(children):
            if not self._exists(Held.LAYER, layer):
                remove_directory(children, layer)

    def close(self) -> None:
        pass

    # -- how ------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Say that what trees share may have changed."""
        path = os.path.join(self.root, "generation")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        now = time.time_ns()
        os.utime(path, ns=(now, now))

    def sync(self) -> None:
        """Write out the file system that holds the store."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)

    def _home(self, item: Item) -> str:
        return os.path.join(self.root, _PLACES[item.held], item.id)

    def _exists(self, held: Held, id: str) -> bool:
        return is_id(id) and os.path.lexists(os.path.join(self.root, _PLACES[held], id))

    def _item(self, id: str, held: Held | None = None) -> Item:
        for each in Held if held is None else (held,):
            if is_id(id):
                parent = ItemFile(os.path.join(self.root, _PLACES[each], id)).parent()
                if parent is not ...:
                    return Item(id=id, held=each, parent=parent)
        raise NotFoundError(held.value if held else "layer or container", id)

    def _free(self, id: str, *, allowed: Held | None = None) -> None:
        if not is_id(id):
            raise ValueError(f"{id!r} can't be a file name")
        for held in Held:
            if held is not allowed and self._exists(held, id):
                raise ConflictError(f"{held.value} {id} exists already")
