"""OverlayView: a tree that is an overlay mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cowshed.entry import Kind, parent_of
from cowshed.native.directories import Directories
from cowshed.native.records import Records
from cowshed.native.sidecar import Use
from cowshed.native.view import Found, NativeView

from .hosting import OverlayHosting
from .links import Links, is_whiteout
from .records import Extras, ObjectRecords
from .stack import Stack


class Mounted(NamedTuple):
    """A mount and what is in it."""

    #: Descriptor of its root, which the view closes.
    root: int
    #: The store's.
    store: str
    stack: Stack
    #: Signs records.
    key: bytes
    #: Another of the directory that is written to, behind the mount: a failing disk is reported to
    #: who syncs the file system, not to who syncs the overlay.
    disk: int | None = None

    def at(self, directory: str) -> str:
        """Return the path of one of the stack's directories."""
        return os.path.join(self.store, directory)


class OverlayView(NativeView):
    """Looks into a mount. What others change below it meanwhile, a view that was opened later
    shows; this one may."""

    hosting: OverlayHosting

    def __init__(self, mounted: Mounted, home: str, hosting: OverlayHosting, use: Use) -> None:
        self.mounted = mounted
        super().__init__(home, hosting, use)

    def open_directories(self) -> Directories:
        #: A container's own directory, behind the mount.
        self._upper: Directories | None = None
        self._lowers: list[Directories] | None = None
        mounted = self.mounted
        self._links = Links(mounted.store, mounted.stack.lowers, mounted.stack.frozen)
        self._names: dict[int, list[str]] = {}
        self._not_in_upper: set[str] = set()
        return Directories(mounted.root)

    def open_records(self, use: Use) -> Records:
        mounted = self.mounted
        return ObjectRecords(self, Extras(mounted.store, mounted.stack.all), mounted.key)

    @property
    def disk(self) -> int:
        return self.directories.root if self.mounted.disk is None else self.mounted.disk

    def close_view(self) -> None:
        if self.directories.root >= 0 and self.mounted.disk is not None:
            os.close(self.mounted.disk)
        super().close_view()
        if self._upper is not None:
            self._upper.close()
        for lower in self._lowers or ():
            lower.close()

    # -- names of one file ----------------------------------------------------------------------

    def inode(self, found: Found) -> int:
        """In a user namespace's mount one of a file's names may go on to show the inode it was
        copied up from, and the others don't."""
        status = found.status
        if found.kind is not Kind.DIRECTORY and status.st_nlink > 1:
            return (self.in_upper(found.path) or status).st_ino
        return status.st_ino

    def identity(self, found: Found) -> tuple[int, int]:
        status = found.status
        if found.kind is Kind.DIRECTORY or status.st_nlink == 1:
            return status.st_ino, 1
        own = self.in_upper(found.path)
        if own is not None:
            return own.st_ino, own.st_nlink
        return status.st_ino, len(self.names(found))

    def names(self, found: Found) -> list[str]:
        """Return all names that a file of the layers still has, ``found``'s first."""
        inode = found.status.st_ino
        known = self._names.get(inode)
        if known is None:
            known = [found.path]
            for group in self._links.groups_of(found.path):
                names = [path for path in group if self._inode_at(path) == inode]
                if len(names) > 1:
                    known = names
                    break
            self._names[inode] = known
        return [found.path, *(path for path in known if path != found.path)]

    def _inode_at(self, path: str) -> int | None:
        try:
            fd, name = self.directories.at(path)
            return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino
        except (FileNotFoundError, NotADirectoryError):
            return None

    def lower_groups(self) -> list[dict[str, list[str]]]:
        """Return, for each directory that is only read, the names of files that have several."""
        return self._links.each()

    def hard_links(self) -> dict[str, int]:
        return dict(self._find_links())

    def _find_links(self) -> Iterator[tuple[str, int]]:
        for found in self.walk_found(""):
            if found.kind is not Kind.DIRECTORY and self.identity(found)[1] > 1:
                yield found.path, found.status.st_ino

    # -- behind the mount -----------------------------------------------------------------------

    def in_upper(self, path: str) -> os.stat_result | None:
        """Return the status of what a container's own directory has at ``path``."""
        upper = self.mounted.stack.upper
        if upper is None or parent_of(path) in self._not_in_upper:
            return None
        if self._upper is None:
            self._upper = Directories(self.mounted.at(upper))
        try:
            fd, name = self._upper.at(path)
        except (FileNotFoundError, NotADirectoryError):
            self._not_in_upper.add(parent_of(path))
            return None
        status = _status(fd, name)
        return None if status is None or is_whiteout(status) else status

    def changed(self) -> None:
        """Take note that names may have changed."""
        self._names.clear()
        self._not_in_upper.clear()
        if self._upper is not None:
            self._upper.clear()

    def real_inode(self, path: str, status: os.stat_result) -> int:
        """Return the number of the inode that an object, not a directory, really is: the mount
        goes on to show the one it was copied up from."""
        return next(self.real_inodes(path, status))

    def real_inodes(self, path: str, status: os.stat_result) -> Iterator[int]:
        """Yield it, and the one it was copied up from, if it was."""
        own = self.in_upper(path)
        if own is None:
            yield status.st_ino
            return
        yield own.st_ino
        if self._lowers is None:
            stack = self.mounted.stack
            self._lowers = [Directories(self.mounted.at(one), keep=1) for one in stack.lowers]
        for lower in self._lowers:
            with suppress(FileNotFoundError, NotADirectoryError):
                status_below = _status(*lower.at(path))
                if status_below is not None:
                    yield status_below.st_ino
                    return


def _status(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
