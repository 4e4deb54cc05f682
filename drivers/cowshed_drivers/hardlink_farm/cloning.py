"""Linker: clones a farm's tree by links."""

from __future__ import annotations

import errno
import os
from collections import Counter

from cowshed.entry import Kind, join
from cowshed.locking import LockFile
from cowshed.native.cloning import Copier
from cowshed.native.directories import Directories
from cowshed.native.view import ROOTFS

from .objects import Objects, key_of_file, link
from .tree import FarmView


class Linker:
    """A ``Put`` that links from ``source`` into the tree in home ``target``.

    An inode that has as many links as it can have is replaced in the *source* by a fresh one,
    which the next 65,000 containers share; copying into the target would cost every one of them.
    That needs a source that is ``still``. Of a container open for writing, only what it shares
    with its layer is linked, and what it holds alone is copied: its writer may hold it open.
    """

    def __init__(
        self,
        source: FarmView,
        target: str,
        objects: Objects,
        locks: LockFile,
        *,
        still: bool,
        durable: bool,
    ) -> None:
        self._source = source
        self._target = Directories(os.path.join(target, ROOTFS))
        self._objects = objects
        self._max_links = objects.max_links
        self._locks = locks
        self._durable = durable
        self._copier = None if still else Copier(os.path.join(target, ROOTFS))
        self._groups = source.sidecar.groups()
        self._links = Counter(self._groups.values())

    def close(self) -> None:
        """Let go of descriptors."""
        self._target.close()
        if self._copier is not None:
            self._copier.close()

    def __call__(self, from_fd: int, to_fd: int, name: str, directory: str) -> None:
        if self._copier is not None:
            status = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
            if status.st_nlink == 1 or join(directory, name) in self._groups:
                self._copier(from_fd, to_fd, name, directory)
                return
        try:
            link(name, name, from_fd, to_fd, self._max_links)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            if self._copier is not None:
                self._copier(from_fd, to_fd, name, directory)
            else:
                self._renew(join(directory, name))
                os.link(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)

    def _renew(self, path: str) -> None:
        """Give ``path`` a fresh inode in the source, and the names of it that were linked into
        the target already as well, as one file's names must share an inode."""
        with self._locks.acquire(f"renew:{self._source.home}"):
            found = self._source.find(path)
            limit = self._max_links
            if limit is None or found.status.st_nlink >= limit:
                found = self._source.detach(found, durable=self._durable)
                if found.kind is Kind.FILE and found.record is None:
                    descriptor = self._source.open_found(found, os.O_RDONLY)
                    try:
                        key = key_of_file(descriptor)
                    finally:
                        os.close(descriptor)
                    self._objects.renew(key, *self._source.directories.at(path))
        group = self._groups.get(path)
        if group is None:
            return
        for other in self._source.sidecar.names(group):
            if other != path:
                self._link_again(other)

    def _link_again(self, path: str) -> None:
        try:
            fd, name = self._target.at(path)
            kept = os.fstat(fd).st_mtime_ns
            os.unlink(name, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            return  # its turn is yet to come
        from_fd, from_name = self._source.directories.at(path)
        os.link(from_name, name, src_dir_fd=from_fd, dst_dir_fd=fd, follow_symlinks=False)
        os.utime(fd, ns=(kept, kept))
