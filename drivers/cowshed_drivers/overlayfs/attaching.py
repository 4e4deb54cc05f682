"""AttachingDriver: mounts at a path, for processes that outlive us.

    ROOT/attached/CONTAINER.RANDOM/     the kernel's work directory of a mount that can be written

A tree's mount goes with the process that opened the tree. One that is attached stays until it is
detached or the machine stops; no process has a lock for it then, so the kernel is asked whether a
container's directory is in use. While it is, ``changes`` and forks see what is there at the moment,
a fork copies, and the container can't be removed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from cowshed.driver import Held, Item, OwnMount
from cowshed.errors import BusyError
from cowshed.locking import Lock
from cowshed.native.items import UsageCache
from cowshed.native.overlays import attach, detach, has_ended, is_upper
from cowshed.native.removal import remove_directory
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory

from .opening import OpeningDriver
from .stack import DIFF

ATTACHED = "attached"


class AttachingDriver(OpeningDriver):
    """Attaches what a store holds."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        make_directory(os.path.join(self.root, ATTACHED))

    def attach(self, container: str, *, read_only: bool = False) -> OwnMount:
        def mount(path: str) -> None:
            self.attach_at(container, path, writable=not read_only)

        def mount_unsynced(path: str) -> None:
            self.attach_at(container, path, writable=not read_only, volatile=True)

        def unmount(path: str) -> None:
            self.detach_from(container, path)

        return OwnMount(mount=mount, unmount=unmount, mount_unsynced=mount_unsynced)

    def attach_at(
        self, id: str, path: str, *, writable: bool = False, volatile: bool = False
    ) -> None:
        """Mount ``id`` at directory ``path`` until it is detached, in this process's mount
        namespace. ``volatile``: the kernel syncs nothing that is written there.

        What only records know (see ``records``) looks different there; files of several names that
        a process writes to come apart, and directories of lower layers can't be renamed, but are
        copied by programs that know overlayfs.

        Raises:
            OSError: EROFS for a layer to write in; what mounting may say.
        """
        item = self.item(id)
        if not writable:
            self._attach(item, path, None, volatile=False)
            return
        if item.held is Held.LAYER:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), id)
        writer = self.locks.acquire(
            f"writer:{id}", shared=True, timeout=60, what=f"container {id[:16]}"
        )
        with writer:
            UsageCache(self.home(item)).forget()
            work = f"{self.root}/{ATTACHED}/{id}.{os.urandom(8).hex()}"
            os.mkdir(work, 0o700)
            try:
                self._attach(item, path, work, volatile=volatile)
            except BaseException:
                remove_directory(*os.path.split(work))
                raise

    def _attach(self, item: Item, path: str, work: str | None, *, volatile: bool) -> None:
        _, mounted = self.mount(item, work, volatile=volatile)
        try:
            attach(mounted, path)
        finally:
            os.close(mounted)

    def detach_from(self, id: str, path: str) -> None:
        """Take the mount of ``id`` at ``path`` away. Processes in it keep it until they end."""
        device = os.stat(path).st_dev
        detach(path)
        works = self._works(id)
        if len(works) == 1 and has_ended(device):
            remove_directory(os.path.join(self.root, ATTACHED), *works)
        else:
            self._attached(self.item(id))

    def keep_still(self, item: Item) -> Lock | None:
        still = super().keep_still(item)
        if still is not None and self._attached(item):
            still.release()
            return None
        return still

    def remove_item(self, item: Item) -> None:
        if item.held is Held.CONTAINER and self._attached(item):
            raise BusyError(f"container {item.id} is mounted and in use; unmount it first")
        super().remove_item(item)

    def _attached(self, item: Item) -> bool:
        """Say whether a container is attached somewhere; sweep what is left if it isn't."""
        works = self._works(item.id)
        if not works:
            return False
        with suppress(FileNotFoundError):
            upper = os.open(os.path.join(self.home(item), DIFF), OPEN_DIRECTORY)
            try:
                if is_upper(upper, user_xattrs=self.hosting.user):
                    return True
            finally:
                os.close(upper)
        for name in works:
            remove_directory(os.path.join(self.root, ATTACHED), name)
        return False

    def _works(self, container: str) -> list[str]:
        """Return the work directories of a container's mounts."""
        names = os.listdir(os.path.join(self.root, ATTACHED))
        return [name for name in names if name.rpartition(".")[0] == container]

    def recover(self) -> None:
        super().recover()
        for name in os.listdir(os.path.join(self.root, ATTACHED)):
            container = name.rpartition(".")[0]
            still = self.locks.attempt(f"writer:{container}")
            if still is not None:
                with still:
                    self._attached(Item(id=container, held=Held.CONTAINER, parent=None))
