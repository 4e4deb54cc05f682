"""Rootfs: a mounted container's files, looked at by descriptor and never outside of it.

The kernel resolves every path as a chroot would (openat2(2), RESOLVE_IN_ROOT, Linux 5.6): a link to
``/etc/shadow`` or ``../../..`` means the container's own, and magic links such as those in
``/proc/self/fd`` are refused. What isn't a regular file isn't opened, so no fifo blocks us and no
device of an image is touched.
"""

from __future__ import annotations

import errno
import os
import stat

from ..context import Closing
from ..native.syscalls import BENEATH, IN_ROOT, NO_MAGIC_LINKS, NO_SYMLINKS, openat2

_LOOK = os.O_PATH | os.O_CLOEXEC

#: As many links as Linux follows in one look-up (path_resolution(7)).
_MAX_SYMLINKS = 40

#: A user database larger than this is no user database.
LARGEST = 16 << 20


class Rootfs(Closing):
    """A directory that is some container's root."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._root = os.open(path, _LOOK | os.O_DIRECTORY)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._root)

    # -- looking --------------------------------------------------------------------------------

    def stat(self, path: str) -> os.stat_result:
        """Describe what ``path`` leads to."""
        descriptor = self._open(path, _LOOK, IN_ROOT | NO_MAGIC_LINKS)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes:
        """Return the content of a regular file; FileNotFoundError for anything else."""
        return self.read_start(path, LARGEST)

    def read_start(self, path: str, size: int) -> bytes:
        """Return its first bytes, ``size`` at most."""
        descriptor = self._open(path, _LOOK, IN_ROOT | NO_MAGIC_LINKS)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file", path)
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                return file.read(size)
        finally:
            os.close(descriptor)

    def resolve(self, path: str) -> tuple[str, int | None]:
        """Return where ``path`` leads without any link (relative; "" is the root), and the mode
        of what is there; None: nothing, and what is missing may be several directories.

        Raises:
            NotADirectoryError: something on the way is none.
            OSError: ELOOP, more than 40 links.
        """
        todo = [part for part in path.split("/")[::-1] if part]
        done: list[str] = []
        mode: int | None = os.fstat(self._root).st_mode
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                mode = self._mode("/".join(done))
                continue
            if mode is not None and not stat.S_ISDIR(mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            here = "/".join([*done, part])
            mode = None if mode is None else self._mode(here)
            if mode is not None and stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = self._readlink(here)
                if target.startswith("/"):
                    done = []
                todo.extend(part for part in target.split("/")[::-1] if part)
                mode = self._mode("/".join(done))
                continue
            done.append(part)
        return "/".join(done), mode

    def _mode(self, path: str) -> int | None:
        """Return the mode of what is at ``path`` itself, which has no link on the way."""
        try:
            descriptor = self._open(path, _LOOK | os.O_NOFOLLOW, BENEATH | NO_MAGIC_LINKS)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)

    def _readlink(self, path: str) -> str:
        descriptor = self._open(path, _LOOK | os.O_NOFOLLOW, BENEATH | NO_MAGIC_LINKS)
        try:
            return os.readlink("", dir_fd=descriptor)
        finally:
            os.close(descriptor)

    # -- changing -------------------------------------------------------------------------------

    def directory(self, path: str) -> int:
        """Open a directory to work in; there must be no link on the way to it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self._open(path, flags, BENEATH | NO_SYMLINKS)

    def _open(self, path: str, flags: int, resolve: int) -> int:
        # Below the root, or the root itself.
        return openat2(path.lstrip("/") or ".", flags, resolve, self._root)
