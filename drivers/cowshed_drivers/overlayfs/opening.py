"""OpeningDriver: how layers and containers become mounts, and mounts become trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cowshed.driver import Held, Item
from cowshed.entry import Change
from cowshed.errors import CorruptError, NotFoundError
from cowshed.native.overlays import mount, open_root
from cowshed.native.sidecar import Use
from cowshed.native.store import NativeDriver
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory
from cowshed.native.view import NativeView
from cowshed.native.workspace import Workspace

from .format import open_format
from .hosting import OverlayHosting
from .journal import JOURNAL, notices
from .stack import DIFF, NOTHING, Stack, Stacks
from .tree import OverlayTree
from .view import Mounted, OverlayView

#: A stage's work directory, in its home.
WORK = "work"


class OpeningDriver(NativeDriver):
    """Opens what a store holds. Each call makes a mount of its own."""

    hosting: OverlayHosting
    content = DIFF
    native_owners = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for place in (JOURNAL, NOTHING):
            make_directory(os.path.join(self.root, place))
        format = open_format(self.root, self.name)
        self.hosting = OverlayHosting(self.hosting.owner, user=format.user)
        self.stacks = Stacks(self.root)
        self._key = format.key

    def view(self, item: Item) -> OverlayView:
        mounted = self.mounted(item)
        use: Use = "sealed" if item.held is Held.LAYER else "live"
        return OverlayView(mounted, self.home(item), self.hosting, use)

    def open_tree(
        self, item: Item, *, writable: bool, let_go: Callable[[], None] | None
    ) -> OverlayTree:
        home = self.home(item)
        layer = item.held is Held.LAYER
        if not writable:
            return OverlayTree(self.mounted(item), home, self.hosting, layer=layer, let_go=let_go)
        workspace = Workspace(self.root, self.locks, None, self.clear)

        def close() -> None:
            try:
                workspace.throw_away()
            finally:
                if let_go is not None:
                    let_go()

        try:
            return OverlayTree(
                self.mounted(item, workspace.home),
                home,
                self.hosting,
                layer=layer,
                writable=True,
                durable=self.durable,
                let_go=close,
            )
        except BaseException:
            workspace.throw_away()
            raise

    def finish_journal(self, item: Item) -> None:
        """Finish what a killed process was doing in a container that nobody has open for writing
        now."""
        for container, path, notice in list(notices(self.root)):
            if container == item.id:
                if notice is not None:
                    with self.open_tree(item, writable=True, let_go=None) as tree:
                        tree.replay(notice)
                Path(path).unlink(missing_ok=True)

    def mounted(self, item: Item, work: str | None = None) -> Mounted:
        """Mount ``item``, read-only unless ``work`` is an empty directory for the kernel's use."""
        stack, descriptor = self.mount(item, work)
        root = open_root(descriptor)
        disk = None if work is None else os.open(work, OPEN_DIRECTORY)
        return Mounted(root=root, disk=disk, store=self.root, stack=stack, key=self._key)

    def mount(self, item: Item, work: str | None, *, volatile: bool = False) -> tuple[Stack, int]:
        """Return the stack of ``item`` and a detached mount of it. ``volatile``: nothing that is
        written there is synced, as where the store isn't durable."""
        try:
            with self.stacks.opened(item) as (stack, descriptors):
                if work is None:
                    return stack, self._mount_to_read(descriptors)
                volatile = volatile or not self.durable
                return stack, self._mount_to_write(descriptors, work, volatile=volatile)
        except FileNotFoundError as error:
            if not self.exists(item.held, item.id):
                raise NotFoundError(item.held.value, item.id) from None
            raise CorruptError(item.id, f"{error.filename} is missing") from None

    def mount_stage(self, workspace: Workspace, parent: str | None) -> Mounted:
        """Mount a layer that is being made in ``workspace``, which is to be synced when it is
        finished. A base layer needs no mount."""
        directory = os.path.join(workspace.home, DIFF)
        upper = os.path.relpath(directory, self.root)
        if parent is None:
            root = os.open(directory, OPEN_DIRECTORY)
            stack = Stack(lowers=(), upper=upper)
            return Mounted(root=root, store=self.root, stack=stack, key=self._key)
        work = os.path.join(workspace.home, WORK)
        make_directory(work)
        item = self.item(parent, Held.LAYER)
        with self.stacks.opened(item) as (below, descriptors):
            own = os.open(directory, OPEN_DIRECTORY)
            try:
                mounted = self._mount_to_write([own, *descriptors], work, volatile=True)
            finally:
                os.close(own)
        stack = Stack(lowers=below.lowers, upper=upper)
        root = open_root(mounted)
        disk = os.open(directory, OPEN_DIRECTORY)
        return Mounted(root=root, disk=disk, store=self.root, stack=stack, key=self._key)

    def _mount_to_read(self, descriptors: list[int]) -> int:
        if len(descriptors) > 1:
            return mount(descriptors, user_xattrs=self.hosting.user)
        nothing = os.open(os.path.join(self.root, NOTHING), OPEN_DIRECTORY)
        try:
            return mount([*descriptors, nothing], user_xattrs=self.hosting.user)
        finally:
            os.close(nothing)

    def _mount_to_write(self, descriptors: list[int], work: str, *, volatile: bool) -> int:
        at = os.open(work, OPEN_DIRECTORY)
        try:
            upper, *lowers = descriptors
            return mount(
                lowers, upper=upper, work=at, user_xattrs=self.hosting.user, volatile=volatile
            )
        finally:
            os.close(at)

    def compare(self, old: NativeView | None, new: NativeView) -> Iterator[Change]:
        from .comparing import OverlayComparison

        assert isinstance(new, OverlayView)
        assert old is None or isinstance(old, OverlayView)
        comparison = OverlayComparison(old, new)
        try:
            yield from comparison.changes()
        finally:
            comparison.close()
