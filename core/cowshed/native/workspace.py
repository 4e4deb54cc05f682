"""Workspace: a tree in the making, invisible, and swept once its process is dead."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType

from ..locking import Lock, LockFile
from .attributes import set_ids, set_mode
from .comparing import EMPTY_ROOT
from .hosting import Hosting
from .records import Record
from .removal import remove_directory
from .syscalls import OPEN_DIRECTORY, make_directory, syncfs
from .view import ROOTFS, NativeView


class Workspace:
    """``staging/KEY``, locked. ``parent`` is a lock to hold as well, which is ours from now on.
    ``remove`` is called with a directory and the name of a directory in it. Who gives no ``key``
    gets one."""

    def __init__(
        self,
        root: str,
        locks: LockFile,
        parent: Lock | None,
        remove: Callable[[str, str], object] = remove_directory,
        key: str | None = None,
    ) -> None:
        self._remove = remove
        self._staging = os.path.join(root, "staging")
        self._key = key or os.urandom(16).hex()
        # Locked before it exists, or a recover() in between would take it for a dead one.
        if parent is None:
            self._lock = locks.acquire(f"staging:{self._key}")
        else:
            parent.take(f"staging:{self._key}")
            self._lock = parent
        self.home = f"{self._staging}/{self._key}"
        self._published = False
        try:
            if not make_directory(self.home):
                remove(self._staging, self._key)  # a killed process's
                make_directory(self.home)
        except BaseException:
            self._lock.release()
            raise

    def sync(self) -> None:
        """Make everything in it durable."""
        descriptor = os.open(self.home, OPEN_DIRECTORY)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, home: str) -> None:
        """Let everybody see it, at ``home``."""
        os.rename(self.home, home)
        self._published = True

    def take_back(self, home: str) -> None:
        """Undo that."""
        os.rename(home, self.home)
        self._published = False

    def throw_away(self) -> None:
        """Remove what is left, unless it was published, and unlock. Twice is fine."""
        try:
            if not self._published and os.path.lexists(self.home):
                self._remove(self._staging, self._key)
        finally:
            self._lock.release()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.throw_away()


def lay_empty_tree(home: str, hosting: Hosting, view_class: type[NativeView]) -> None:
    """Make the root that everything without a parent starts from: empty, 0755, 0:0, mtime 0.

    The fixed mtime gives a container without a parent something to be compared with.
    """
    make_directory(os.path.join(home, ROOTFS))
    view = view_class(home, hosting, "bulk")
    try:
        record = Record()
        root = view.directories.root
        set_ids(hosting, root, ".", EMPTY_ROOT.uid, EMPTY_ROOT.gid, record)
        set_mode(hosting, root, ".", EMPTY_ROOT.kind, EMPTY_ROOT.mode, record)
        view.sidecar.put("", record)
        os.utime(root, ns=(EMPTY_ROOT.mtime_ns, EMPTY_ROOT.mtime_ns))
    finally:
        view.close_view()
