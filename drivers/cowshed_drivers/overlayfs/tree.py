"""OverlayTree: a layer or container as the kernel shows it, and the two things it doesn't do.

Without ``index`` the kernel copies up the name that is written to and leaves the file's other names
as they were. So before anything reaches a lower file of several names, they become names of its
copy: a write through one name shows through all. A process on the mount gets what overlayfs gives.

Without ``redirect_dir`` the kernel refuses to rename a directory that is in a lower layer, and
processes copy it, as they do in Docker's and Podman's containers. Here it is made anew with its
files linked into it, which copies each file up once, and renamed; then the old one goes.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from cowshed.entry import Kind, join, parent_of
from cowshed.native.cloning import copy_attributes
from cowshed.native.files import Privileges
from cowshed.native.syscalls import list_directory, syncfs
from cowshed.native.tree import NativeTree
from cowshed.native.view import Found

from .hosting import OverlayHosting
from .journal import Journal, Notice
from .view import Mounted, OverlayView


class OverlayTree(OverlayView, NativeTree):
    """What is open for writing has an upper directory, everything else only lower ones."""

    def __init__(
        self,
        mounted: Mounted,
        home: str,
        hosting: OverlayHosting,
        *,
        layer: bool,
        writable: bool = False,
        durable: bool = True,
        let_go: Callable[[], None] | None = None,
    ) -> None:
        self.mounted = mounted
        NativeTree.__init__(
            self, home, hosting, layer=layer, writable=writable, durable=durable, let_go=let_go
        )
        self.live = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    @property
    def path(self) -> str:
        """The mount, by way of this process: usable by it and its children, while it lives and the
        tree is open. What only records know looks different there."""
        return f"/proc/{self._process}/fd/{self.directories.root}"

    def _change(self) -> None:
        super()._change()
        self.changed()

    # -- several names --------------------------------------------------------------------------

    def make_private(self, found: Found, *, keep_data: bool = True) -> Found:
        if found.status.st_nlink > 1 and self.in_upper(found.path) is None:
            names = self.names(found)
            if len(names) > 1:
                self._join(found, names)
                found = self.find(found.path)
        if not keep_data and found.kind is Kind.FILE and found.status.st_size:
            self._empty(found)
        return found

    def _empty(self, found: Found) -> None:
        """Cut the file to nothing as it is opened: only so it isn't copied up whole before."""
        descriptor = self.open_found(found, os.O_RDONLY)
        try:
            privileges = Privileges(descriptor)
        finally:
            os.close(descriptor)
        descriptor = self.open_found(found, os.O_WRONLY | os.O_TRUNC)
        try:
            privileges.restore(descriptor)
        finally:
            os.close(descriptor)

    def link(self, existing: str, path: str) -> None:
        self._change()
        found = self.find(existing)
        if found.kind is not Kind.DIRECTORY:
            self.make_private(found)
        super().link(existing, path)

    def _join(self, found: Found, names: list[str]) -> None:
        """Make ``names``, which are one file of the layers, names of its copy.

        What fails halfway is tried again at once: nothing but names is missing then. What still
        fails, ``recover`` does.
        """
        journal = self._journal()
        notice: Notice = {
            "what": "join",
            "names": names,
            "inode": found.status.st_ino,
            "temporary": _temporary(),
            "times": self._times(map(parent_of, names)),
        }
        journal.note(notice)
        try:
            self._join_rest(notice)
        except OSError:
            if self._inode_at(names[0]) != found.status.st_ino:
                self._join_rest(notice)
            else:
                self._restore(notice)
            journal.done()
            raise
        journal.done()

    def _join_rest(self, notice: Notice) -> None:
        first, *others = notice["names"]
        for other in others:
            if self._inode_at(other) != notice["inode"]:
                continue
            fd, name = self.directories.at(other)
            from_fd, from_name = self.directories.at(first)
            temporary = notice["temporary"]
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)
            os.link(from_name, temporary, src_dir_fd=from_fd, dst_dir_fd=fd, follow_symlinks=False)
            self.sidecar.link(first, other)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        self.changed()
        self._restore(notice)

    # -- moving ---------------------------------------------------------------------------------

    def rename(self, source: str, destination: str) -> None:
        self._change()
        moved = self.find(source)
        if moved.kind is not Kind.DIRECTORY:
            self.make_private(moved)
        try:
            super().rename(source, destination)
        except OSError as error:
            if error.errno != errno.EXDEV or moved.kind is not Kind.DIRECTORY:
                raise
            self._move(moved, destination)

    def _move(self, moved: Found, destination: str) -> None:
        with suppress(FileNotFoundError):
            if self.scan(destination):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), destination)
        journal = self._journal()
        notice: Notice = {
            "what": "move",
            "source": moved.path,
            "inode": moved.status.st_ino,
            "destination": destination,
            "temporary": join(parent_of(destination), _temporary()),
            "times": self._times([parent_of(destination)]),
            "made": False,
        }
        journal.note(notice)
        try:
            self._make_linked(moved.path, notice["temporary"])
            if self._durable:
                syncfs(self.disk)
            journal.note({**notice, "made": True})
        except BaseException:
            self._undo_move(notice)
            journal.done()
            raise
        try:
            self._finish_move(notice)
        except OSError:
            self._finish_move(notice)
        journal.done()

    def _make_linked(self, source: str, target: str) -> None:
        """Make ``target`` a directory like ``source``, with the same files."""
        todo = [(source, target)]
        fd, name = self.directories.at(target)
        os.mkdir(name, 0o700, dir_fd=fd)
        while todo:
            here, there = todo.pop()
            for name, status in self._listed(here):
                path, new = join(here, name), join(there, name)
                if stat_module.S_ISDIR(status.st_mode):
                    os.mkdir(name, 0o700, dir_fd=self.directories.fd(there))
                    todo.append((path, new))
                    continue
                if status.st_nlink > 1 and not stat_module.S_ISSOCK(status.st_mode):
                    self.make_private(self.find(path))
                fds = {
                    "src_dir_fd": self.directories.fd(here),
                    "dst_dir_fd": self.directories.fd(there),
                }
                os.link(name, name, **fds, follow_symlinks=False)
                self.sidecar.link(path, new)
            copy_attributes(self.directories.fd(here), self.directories.fd(there))

    def _listed(self, directory: str) -> list[tuple[str, os.stat_result]]:
        """Return what a directory holds, sockets as well."""
        fd = self.directories.fd(directory)
        return [
            (name, os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in list_directory(fd)
        ]

    def _finish_move(self, notice: Notice) -> None:
        from_fd, from_name = self.directories.at(notice["temporary"])
        to_fd, to_name = self.directories.at(notice["destination"])
        with suppress(FileNotFoundError):
            os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        self.directories.forget(notice["temporary"])
        self.directories.forget(notice["destination"])
        if self._inode_at(notice["source"]) == notice["inode"]:
            self._remove_all(notice["source"])
        self.changed()

    def _undo_move(self, notice: Notice) -> None:
        self._remove_all(notice["temporary"])
        self._restore(notice)

    def _remove_all(self, path: str) -> None:
        """Remove a directory and all below it, if it is there."""
        if self._inode_at(path) is None:
            return
        levels = [path]
        for here in levels:
            for name, status in self._listed(here):
                if stat_module.S_ISDIR(status.st_mode):
                    levels.append(join(here, name))
                else:
                    os.unlink(name, dir_fd=self.directories.fd(here))
        for here in reversed(levels):
            fd, name = self.directories.at(here)
            self.directories.forget(here)
            os.rmdir(name, dir_fd=fd)

    # -- journal --------------------------------------------------------------------------------

    def replay(self, notice: Notice) -> None:
        """Finish, or take back, what a killed process was doing."""
        self._change()
        if notice["what"] == "join":
            for directory in notice["times"]:
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(notice["temporary"], dir_fd=self.directories.fd(directory))
            self._join_rest(notice)
        elif notice["made"]:
            self._finish_move(notice)
        else:
            self._undo_move(notice)

    def _journal(self) -> Journal:
        container = os.path.basename(self.home)
        return Journal(self.mounted.store, container, durable=self._durable)

    def _times(self, directories: Iterable[str]) -> dict[str, int]:
        return {path: os.fstat(self.directories.fd(path)).st_mtime_ns for path in set(directories)}

    def _restore(self, notice: Notice) -> None:
        for path, mtime_ns in notice["times"].items():
            with suppress(FileNotFoundError, NotADirectoryError):
                os.utime(self.directories.fd(path), ns=(mtime_ns, mtime_ns))


def _temporary() -> str:
    return f".cowshed-{os.urandom(8).hex()}"
