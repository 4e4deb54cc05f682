"""FarmStage: a layer being written, sharing what the farm has already."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from cowshed.entry import Entry, Kind
from cowshed.native.attributes import declare
from cowshed.native.records import Record
from cowshed.native.stage import NativeStage, Publish, create
from cowshed.native.syscalls import syncfs, write_sparse

from .objects import Hash, Objects, key_of_file, link, make_key
from .tree import FarmView

#: Up to here a file is hashed in memory and not written at all if the farm has it.
SMALL = 1 << 20


class FarmStage(NativeStage):
    """Hashes files as they come. Ones new to the farm get their object names only when sealed,
    after one syncfs(2) for all: 20,000 fsyncs would take 20 s on a disk that does 1,000/s."""

    view: FarmView

    def __init__(
        self,
        view: FarmView,
        objects: Objects,
        publish: Publish,
        throw_away: Callable[[], None],
        *,
        durable: bool,
    ) -> None:
        super().__init__(view, publish, throw_away, durable=durable)
        self.view = view
        self._objects = objects

    def make_file(self, entry: Entry, content: BinaryIO | None, fd: int, name: str) -> str:
        """Return the key of a file that is new to the farm."""
        data = b""
        hashed = hashlib.sha256()
        small = entry.size <= SMALL
        if small:
            if content is not None:
                data = content.read(SMALL + 1)
            hashed.update(data)
            if not entry.xattrs:
                key = self._expected_key(entry, hashed)
                if self._share(key, entry.path, fd, name):
                    record = declare(self.hosting, entry)
                    if record is not None:
                        self.view.sidecar.put(entry.path, record)
                    return ""
        try:
            descriptor = create(fd, name)
        except FileExistsError:
            self.remove(entry.path)
            descriptor = create(fd, name)
        try:
            if small:
                write_sparse(descriptor, data, 0)
                if len(data) >= 1 << 16:
                    os.ftruncate(descriptor, len(data))
            elif content is not None:
                _write_hashing(descriptor, content, hashed)
            record = self.settle_file(entry, descriptor, fd, name)
            if small and not entry.xattrs and record == (declare(self.hosting, entry) or Record()):
                key = self._expected_key(entry, hashed)
            else:
                # Which attributes the file holds itself shows only once they are set.
                key = key_of_file(descriptor, hashed)
                if self._exchange(key, fd, name):
                    return ""
        finally:
            os.close(descriptor)
        if self.flusher is not None:
            self.flusher.wrote(entry.size)
        return key

    def _expected_key(self, entry: Entry, hashed: Hash) -> str:
        mode = self.hosting.native_mode(Kind.FILE, entry.mode)
        uid, gid = self.hosting.native_ids(entry.uid, entry.gid)
        return make_key(hashed, mode, uid, gid, entry.mtime_ns, entry.size, {})

    def _share(self, key: str, path: str, fd: int, name: str) -> bool:
        """Make ``name`` a link to the inode of that key, from this stage or from the farm."""
        try:
            return self._link_to(key, fd, name)
        except FileExistsError:
            self.remove(path)
            return self._link_to(key, fd, name)

    def _link_to(self, key: str, fd: int, name: str) -> bool:
        ours = self.brought.path_of(key)
        if ours is None:
            return self._objects.link(key, fd, name)
        our_fd, our_name = self.view.directories.at(ours)
        try:
            link(our_name, name, our_fd, fd, self._objects.max_links)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return False
        return True

    def _exchange(self, key: str, fd: int, name: str) -> bool:
        """Replace the file just written by the farm's, if it has it."""
        aside = f".{os.urandom(8).hex()}"
        if not self._link_to(key, fd, aside):
            return False
        os.rename(aside, name, src_dir_fd=fd, dst_dir_fd=fd)
        return True

    def link_file(self, entry: Entry, fd: int, name: str) -> None:
        try:
            super().link_file(entry, fd, name)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            found = self.view.detach(self.view.find(entry.target))
            names = self.view.sidecar.names(found.record.id) if found.record else [entry.target]
            for path in names:
                self.brought.unkey(path)
            super().link_file(entry, fd, name)

    def before_publishing(self) -> None:
        if self.flusher is not None:
            self.flusher.finish()
            syncfs(self.view.disk)
        for path, key in self.brought.keyed():
            fd, name = self.view.directories.at(path)
            self._objects.add(key, fd, name, is_shared=partial(self.view.sidecar.shared, path))


def _write_hashing(descriptor: int, content: BinaryIO, hashed: Hash) -> None:
    size = 0
    while piece := content.read(SMALL):
        hashed.update(piece)
        write_sparse(descriptor, piece, size)
        size += len(piece)
    os.ftruncate(descriptor, size)
