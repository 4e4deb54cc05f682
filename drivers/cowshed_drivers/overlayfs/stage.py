"""OverlayStage: a layer being written, on an overlay mount of its parent.

So it is the kernel that makes whiteouts and copies up what a layer changes, as for a container. On
a mount a file takes 38 µs to make instead of 24; a base layer has no parent and needs no mount.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from cowshed.entry import Entry, Kind, parent_of
from cowshed.native.directories import Directories
from cowshed.native.stage import NativeStage, Publish

from .links import groups_among, is_whiteout, write_groups
from .view import OverlayView


class OverlayStage(NativeStage):
    """``finish`` it when it is unmounted."""

    view: OverlayView

    def __init__(
        self,
        view: OverlayView,
        publish: Publish,
        throw_away: Callable[[], None],
        *,
        durable: bool = False,
    ) -> None:
        super().__init__(view, publish, throw_away, durable=durable)
        self.linked: set[str] = set()
        #: Directories that were emptied, of which the kernel doesn't know how little is left.
        self.emptied: set[str] = set()

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        self.view.changed()
        super().add(entry, content)
        if entry.kind is Kind.OPAQUE and entry.path:
            self.emptied.add(entry.path)

    def link_file(self, entry: Entry, fd: int, name: str) -> None:
        self._join(entry.target)
        super().link_file(entry, fd, name)
        self.linked.update((entry.target, entry.path))

    def _join(self, path: str) -> None:
        """Make all names of a file of the parent names of its copy, as a link is about to."""
        view = self.view
        found = view.find(path)
        if found.status.st_nlink == 1 or view.in_upper(path) is not None:
            return
        _, *others = names = view.names(found)
        self.linked.update(names)
        from_fd, from_name = view.directories.at(path)
        for other in others:
            self._keep_time(parent_of(other))
            fd, name = view.directories.at(other)
            aside = f".{os.urandom(8).hex()}"
            os.link(from_name, aside, src_dir_fd=from_fd, dst_dir_fd=fd, follow_symlinks=False)
            os.rename(aside, name, src_dir_fd=fd, dst_dir_fd=fd)
        view.sidecar.link(path, path)
        view.changed()

    def finish(self, directory: str) -> None:
        """Write down the names of files that have several, and let an emptied directory hide
        what is below it at once, not name by name."""
        directories = Directories(directory)
        try:
            for path in self.emptied:
                with suppress(FileNotFoundError, NotADirectoryError):
                    self._hide(directories.fd(path))
            if self.linked:
                write_groups(directory, groups_among(directories, self.linked))
        finally:
            directories.close()

    def _hide(self, directory: int) -> None:
        times = os.fstat(directory)
        os.setxattr(directory, self.view.hosting.opaque_name, b"y")
        for name in os.listdir(directory):
            if is_whiteout(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                os.unlink(name, dir_fd=directory)
        os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
