"""Shelf: where a store's trees are, and everything that only looks at them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..driver import Driver, Held, Item, Problem, Usage
from ..entry import Change, Kind
from ..errors import ConflictError, CorruptError, NotFoundError
from ..locking import Lock, LockFile
from ..tree import Tree
from .comparing import compare
from .hosting import open_hosting
from .items import COMMON, Parents, UsageCache, is_id
from .sidecar import Use
from .syscalls import make_directory
from .tree import NativeTree
from .usage import allocated_below
from .view import ROOTFS, NativeView

#: Most that is asked for is a container.
_LIKELY = (Held.CONTAINER, Held.LAYER)
PLACES = {Held.LAYER: "layers", Held.CONTAINER: "containers"}


class NativeShelf(Driver):
    """The reading half of a driver of native trees."""

    tree_class: type[NativeTree] = NativeTree
    view_class: type[NativeView] = NativeView
    #: The directory in a tree's home without which it is damaged.
    content = ROOTFS
    #: Whether files have their owners themselves, even if that takes a user namespace.
    native_owners = False

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        for place in (*PLACES.values(), "children", COMMON, "staging", "trash"):
            make_directory(os.path.join(self.root, place))
        store = os.path.join(self.root, "store.json")
        self.hosting = open_hosting(store, self.name, native=self.native_owners)
        self.locks = LockFile(root / "lock")
        self.parents = Parents(self.root)

    # -- what a driver says ---------------------------------------------------------------------

    def measure(self, item: Item, home: str) -> Usage:
        """Walk the tree in ``home`` and say what it costs."""
        raise NotImplementedError

    def usage_stamp(self, item: Item) -> int:
        """Return what the cached usage of ``item`` depends on besides its own tree."""
        return 0

    def view(self, item: Item) -> NativeView:
        """Open what ``item`` holds, to look at it."""
        layer = item.held is Held.LAYER
        use: Use = "sealed" if layer else "live"
        return self.view_class(self.home(item), self.hosting, use, live=not layer)

    def open_tree(
        self, item: Item, *, writable: bool, let_go: Callable[[], None] | None
    ) -> NativeTree:
        """Open the tree of ``item``; ``let_go`` is called once, when it is closed."""
        return self.tree_class(
            self.home(item),
            self.hosting,
            layer=item.held is Held.LAYER,
            writable=writable,
            durable=self.durable,
            let_go=let_go,
        )

    def compare(self, old: NativeView | None, new: NativeView) -> Iterator[Change]:
        """Yield the changes from a layer, or from nothing, to a container on it."""
        return compare(old, new)

    # -- looking --------------------------------------------------------------------------------

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        item = self.item(id)
        if not writable:
            return self.open_tree(item, writable=False, let_go=None)
        if item.held is Held.LAYER:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), id)
        home = self.home(item)
        writer = self.locks.acquire(
            f"writer:{id}", shared=True, timeout=60, what=f"container {id[:16]}"
        )

        def let_go() -> None:
            UsageCache(home).forget()
            self.touch(item)
            writer.release()

        try:
            UsageCache(home).forget()
            return self.open_tree(item, writable=True, let_go=let_go)
        except BaseException:
            writer.release()
            raise

    def changes(self, container: str) -> Iterator[Change]:
        return self.changes_of(self.item(container, Held.CONTAINER))

    def changes_of(self, item: Item) -> Iterator[Change]:
        """Yield what ``item`` changes in what it stands on."""
        new = self.view(item)
        try:
            old: NativeView | None = None
            if item.parent is not None:
                old = self.view(self.item(item.parent, Held.LAYER))
            try:
                yield from self.compare(old, new)
            finally:
                if old is not None:
                    old.close_view()
        finally:
            new.close_view()

    def items(self) -> Iterator[Item]:
        for held, place in PLACES.items():
            for id in sorted(os.listdir(os.path.join(self.root, place))):
                parent = self.parents.of(f"{place}/{id}")
                if parent is not ...:
                    yield Item(id=id, held=held, parent=parent)

    def usage(self, id: str) -> Usage:
        item = self.item(id)
        home = self.home(item)
        stamp = self.usage_stamp(item)
        cache = UsageCache(home)
        known = cache.read(stamp)
        if known is not None:
            return known
        found = self.measure(item, home)
        if item.held is Held.LAYER:
            cache.write(stamp, found)
            return found
        # A container open for writing is a different one in a moment.
        still = self.keep_still(item)
        if still is not None:
            with still:
                cache.write(stamp, found)
        return found

    def changed_bytes(self, item: Item) -> int:
        """Return the bytes of the files that a container added or changed, each file once."""
        sizes: dict[int | str, int] = {}
        for change in self.changes_of(item):
            entry = change.entry
            if entry.kind is Kind.FILE:
                sizes[entry.inode if entry.links > 1 else entry.path] = entry.size
        return sum(sizes.values())

    def disk_usage(self) -> int:
        return allocated_below(self.root)

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        item = self.item(id)
        home = self.home(item)
        if item.parent is not None and not self.exists(Held.LAYER, item.parent):
            yield Problem(id=id, path="", what=f"its parent layer {item.parent} is missing")
        if not os.path.isdir(os.path.join(home, self.content)):
            yield Problem(id=id, path="", what=f"its directory {self.content} is missing")
            return
        try:
            yield from self._verify_tree(item, deep)
        except CorruptError as error:
            yield Problem(id=id, path="", what=error.problem)

    def _verify_tree(self, item: Item, deep: bool) -> Iterator[Problem]:
        view = self.view(item)
        try:
            for what in view.sidecar.problems():
                yield Problem(id=item.id, path="", what=f"its sidecar is damaged: {what}")
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

    def close(self) -> None:
        pass

    # -- how ------------------------------------------------------------------------------------

    def keep_still(self, item: Item) -> Lock | None:
        """Keep a container from being opened for writing; None if somebody has it open."""
        return self.locks.attempt(f"writer:{item.id}")

    def touch(self, item: Item | None = None) -> None:
        """Say that what trees share may have changed, as ``item`` was made, written or removed."""
        path = os.path.join(self.root, "generation")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        now = time.time_ns()
        os.utime(path, ns=(now, now))

    def home(self, item: Item) -> str:
        """Return the directory of a tree."""
        return f"{self.root}/{PLACES[item.held]}/{item.id}"

    def exists(self, held: Held, id: str) -> bool:
        """Say whether there is such a layer or container."""
        path = f"{self.root}/{PLACES[held]}/{id}"
        return is_id(id) and os.access(path, os.F_OK, follow_symlinks=False)

    def item(self, id: str, held: Held | None = None) -> Item:
        """Return what ``id`` is. NotFoundError: it isn't there, or not a ``held``."""
        for each in _LIKELY if held is None else (held,):
            if is_id(id):
                parent = self.parents.of(f"{PLACES[each]}/{id}")
                if parent is not ...:
                    return Item(id=id, held=each, parent=parent)
        raise NotFoundError(held.value if held else "layer or container", id)

    def free(self, id: str, *, allowed: Held | None = None) -> None:
        """ConflictError if ``id`` is taken, other than by an ``allowed``."""
        if not is_id(id):
            raise ValueError(f"{id!r} can't be a file name")
        for held in _LIKELY:
            if held is not allowed and self.exists(held, id):
                raise ConflictError(f"{held.value} {id} exists already")
