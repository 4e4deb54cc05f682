"""A farm's trees: directories of links, whose links break before anything is written.

An inode belongs to one tree alone if it has no more links than that tree has names for it: one,
or as many as the sidecar knows of an image's hard-linked file. ``st_nlink`` tells, so nothing
has to be remembered about what was made private already.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from cowshed.entry import Kind, parent_of
from cowshed.native.cloning import copy_object
from cowshed.native.sidecar import Sidecar, Use
from cowshed.native.syscalls import OPEN_DIRECTORY, make_directory, sync_file
from cowshed.native.tree import NativeTree
from cowshed.native.view import SIDECAR, Found, NativeView

#: In a tree's home, beside its rootfs.
ASIDE = "aside"
#: Ending of a file there that holds directories' mtimes.
TIMES = ".times"


class FarmView(NativeView):
    """Reads a farm's tree; can give one of its files a fresh inode."""

    inodes_are_identity = False
    sidecar: Sidecar

    def open_records(self, use: Use) -> Sidecar:
        self._sealed = use == "sealed"
        return Sidecar(os.path.join(self.home, SIDECAR), use, groups=True)

    def hard_links(self) -> dict[str, int]:
        return self.sidecar.groups()

    def mtime(self, found: Found) -> int:
        if self._sealed and found.kind is Kind.DIRECTORY:
            return self.mtime_of(self.directories.fd(found.path), found.path)
        return super().mtime(found)

    def mtime_of(self, fd: int, path: str) -> int:
        """Return the mtime of the open directory ``path``, in nanoseconds: not the moment's in
        which somebody gives a file of a sealed tree a fresh inode, or was killed doing so."""
        now = os.fstat(fd).st_mtime_ns
        while self._sealed:
            noted = self._noted(path)
            if noted is not None:
                return noted
            # It was noted before anything was replaced, and is until the time is put back.
            before, now = now, os.fstat(fd).st_mtime_ns
            if before == now:
                break
        return now

    def detach(self, found: Found, *, keep_data: bool = True, durable: bool = False) -> Found:
        """Move ``found``, under all its names in this tree, to a fresh inode of its own.

        The copy is made beside the tree and renamed in, so that the tree never holds half a file;
        the directories' mtimes stay, as for their users nothing happened. A process killed between
        two names of one file leaves both with equal content, and the next write detaches again.
        ``durable``: before it takes the place of what is durable.
        """
        names = [found.path, *(name for name in self.inodes_of(found) if name != found.path)]
        aside = os.path.join(self.home, ASIDE)
        make_directory(aside)
        aside_fd = os.open(aside, OPEN_DIRECTORY)
        temporary = os.urandom(8).hex()
        times = f"{temporary}{TIMES}"
        try:
            fd, name = self.directories.at(found.path)
            try:
                copy_object(fd, name, aside_fd, temporary, keep_data=keep_data)
                self._note_times(aside_fd, times, names)
                if durable:
                    sync_file(times, aside_fd)
                    if found.kind is Kind.FILE:
                        sync_file(temporary, aside_fd)
                for other in names[1:]:
                    self._replace(aside_fd, temporary, other, link=True)
                self._replace(aside_fd, temporary, found.path, link=False)
                os.unlink(times, dir_fd=aside_fd)
            except BaseException:
                for left in (temporary, f"{temporary}.link", times):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(left, dir_fd=aside_fd)
                raise
        finally:
            os.close(aside_fd)
        return self.find(found.path)

    def _note_times(self, aside_fd: int, times: str, names: list[str]) -> None:
        """Write down the mtimes of the directories of ``names``, lest a kill lose them."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(times, flags, 0o600, dir_fd=aside_fd), "wb") as file:
            for path in names:
                fd, _ = self.directories.at(path)
                kept = self.mtime_of(fd, parent_of(path))
                file.write(b"%d %s\0" % (kept, os.fsencode(path)))

    def restore_times(self) -> None:
        """Put back the mtimes of directories in which a killed process was replacing files."""
        for path, kept in self._notes():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd, _ = self.directories.at(path)
                os.utime(fd, ns=(kept, kept))

    def _noted(self, directory: str) -> int | None:
        """Return the mtime of a directory in which somebody is replacing files."""
        return next((kept for path, kept in self._notes() if parent_of(path) == directory), None)

    def _notes(self) -> Iterator[tuple[str, int]]:
        """Yield what ``_note_times`` wrote: files, and the mtimes of their directories."""
        aside = os.path.join(self.home, ASIDE)
        try:
            noted = os.listdir(aside)
        except FileNotFoundError:
            return
        for name in noted:
            if not name.endswith(TIMES):
                continue
            try:
                with open(os.path.join(aside, name), "rb") as file:
                    lines = file.read().split(b"\0")
            except FileNotFoundError:
                continue  # it has been put back
            for line in lines[:-1]:
                kept, _, path = line.partition(b" ")
                yield os.fsdecode(path), int(kept)

    def inodes_of(self, found: Found) -> dict[str, int]:
        """Return the inode under each name of the file, one unless a kill tore them apart. A name
        that a kill left in the sidecar alone is forgotten."""
        if found.record is None or found.record.links <= 1:
            return {found.path: found.status.st_ino}
        inodes: dict[str, int] = {}
        for path in self.sidecar.names(found.record.id):
            try:
                fd, name = self.directories.at(path)
                inodes[path] = os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino
            except (FileNotFoundError, NotADirectoryError):
                self.sidecar.drop(path)
        return inodes

    def _replace(self, aside_fd: int, temporary: str, path: str, *, link: bool) -> None:
        fd, name = self.directories.at(path)
        kept = self.mtime_of(fd, parent_of(path))
        if link:
            linked = f"{temporary}.link"
            os.link(
                temporary, linked, src_dir_fd=aside_fd, dst_dir_fd=aside_fd, follow_symlinks=False
            )
            temporary = linked
        os.rename(temporary, name, src_dir_fd=aside_fd, dst_dir_fd=fd)
        os.utime(fd, ns=(kept, kept))


class FarmTree(FarmView, NativeTree):
    """A layer or container of the farm.

    Its ``path`` is None: a process writing there would write into every tree that shares the inode.
    """

    def make_private(self, found: Found, *, keep_data: bool = True) -> Found:
        inodes = self.inodes_of(found)
        if found.status.st_nlink <= len(inodes) and len(set(inodes.values())) == 1:
            return found
        return self.detach(found, keep_data=keep_data)

    def link(self, existing: str, path: str) -> None:
        try:
            super().link(existing, path)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self.detach(self.find(existing))
            super().link(existing, path)
