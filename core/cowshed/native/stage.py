"""NativeStage: entries applied to a directory that nobody else sees yet.

It does what ``Tree.apply`` does, with fewer calls: names are made first and looked up only if
they turn out to be taken, and a directory's mtime is set once, at the end, not after every entry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..driver import Stage
from ..entry import Entry, Kind, file_format, join, parent_of
from .attributes import make_special, make_symlink, remove_xattr, settle, settle_file
from .brought import Brought
from .flushing import Flusher
from .records import Record
from .spooled import Spooled
from .syscalls import write_sparse
from .times import Times
from .view import NativeView

_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDWR
_PIECE = 1 << 20

#: Publishes the finished tree as a layer, given its ID and the bytes of the files it brought.
Publish = Callable[[str, int], None]


class NativeStage(Stage):
    """Writes into ``view``, which is the stage's own. ``throw_away`` may be called twice."""

    def __init__(
        self,
        view: NativeView,
        publish: Publish,
        throw_away: Callable[[], None],
        *,
        durable: bool = False,
    ) -> None:
        self.view = view
        self.hosting = view.hosting
        self._publish = publish
        self._throw_away = throw_away
        #: ``durable``: what is written goes to the disk meanwhile, not all at once in the end.
        self.flusher = Flusher(view.disk) if durable else None
        self._done = False
        #: mtimes that directories are to have in the end.
        self._times = Times(view.home)
        self.brought = Brought(view.home)

    # -- entries --------------------------------------------------------------------------------

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        self._check()
        kind = entry.kind
        if kind is Kind.OPAQUE:
            self._keep_time(entry.path)
            for name in self._all_names(entry.path):
                self.remove(join(entry.path, name))
            return
        if entry.path:
            self._keep_time(parent_of(entry.path))
        if kind is Kind.WHITEOUT:
            self.remove(entry.path)
            return
        try:
            self._make(entry, content)
        except FileExistsError:
            if kind is Kind.DIRECTORY and self.view.find(entry.path).kind is Kind.DIRECTORY:
                self._merge(entry)
                return
            self.remove(entry.path)
            self._make(entry, content)

    def _make(self, entry: Entry, content: BinaryIO | None) -> None:
        fd, name = self.view.directories.at(entry.path)
        if entry.kind is Kind.FILE:
            self.brought.add(entry.path, entry.size, self.make_file(entry, content, fd, name))
        elif entry.kind is Kind.HARDLINK:
            self.link_file(entry, fd, name)
        elif entry.kind is Kind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=fd)
            self._settle(entry, fd, name, Record())
            self._times.put(entry.path, entry.mtime_ns)
        else:
            record = Record()
            if entry.kind is Kind.SYMLINK:
                make_symlink(fd, name, entry.target, record)
            else:
                st_mode = file_format(entry.kind)
                make_special(self.hosting, fd, name, entry.kind, st_mode, entry.rdev, record)
            self._settle(entry, fd, name, record)
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
            if not record.says_nothing:
                self.view.sidecar.retimed(entry.path, record)

    def make_file(self, entry: Entry, content: BinaryIO | None, fd: int, name: str) -> str:
        """Make the regular file ``entry``. FileExistsError, before ``content`` is read, if the
        name is taken. Return the key by which ``brought`` is to know it, if there is one."""
        descriptor = create(fd, name)
        try:
            if content is not None:
                write_content(descriptor, content)
            self.settle_file(entry, descriptor, fd, name)
        finally:
            os.close(descriptor)
        if self.flusher is not None:
            self.flusher.wrote(entry.size)
        return ""

    def settle_file(self, entry: Entry, descriptor: int, fd: int, name: str) -> Record:
        """Give a file just written its attributes and its record, which is returned."""
        record = Record()
        settle_file(self.hosting, descriptor, fd, name, entry, record)
        if not record.says_nothing:
            self.view.sidecar.put(entry.path, record)
        return record

    def _settle(self, entry: Entry, fd: int, name: str, record: Record) -> None:
        settle(
            self.hosting,
            fd,
            name,
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.xattrs,
            record,
        )
        self.view.sidecar.put(entry.path, record)

    def link_file(self, entry: Entry, fd: int, name: str) -> None:
        """Make the HARDLINK ``entry``."""
        target_fd, target = self.view.directories.at(entry.target)
        os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=fd, follow_symlinks=False)
        self.view.sidecar.link(entry.target, entry.path)
        if entry.target in self.brought:
            self.brought.add(entry.path, 0)

    def _merge(self, entry: Entry) -> None:
        fd, name = self.view.directories.at(entry.path)
        found = self.view.find(entry.path)
        record = found.record or Record()
        for xattr in self.view.describe(found).xattrs:
            if xattr not in entry.xattrs:
                remove_xattr(fd, name, xattr, record)
        self._settle(entry, fd, name, record)
        self._times.put(entry.path, entry.mtime_ns)

    def _keep_time(self, directory: str) -> None:
        if directory not in self._times:
            fd = self.view.directories.fd(directory)
            self._times.put(directory, os.fstat(fd).st_mtime_ns)

    # -- removing -------------------------------------------------------------------------------

    def remove(self, path: str) -> None:
        """Remove ``path`` and everything below it."""
        if self.view.find(path).kind is not Kind.DIRECTORY:
            self._remove_name(path)
            return
        with Spooled(self.view.home) as directories:
            directories.append(path)
            for directory in directories:
                for name in self._all_names(directory):
                    child = join(directory, name)
                    if self.view.find(child).kind is Kind.DIRECTORY:
                        directories.append(child)
                    else:
                        self._remove_name(child)
            for directory in reversed(directories):
                self._remove_directory(directory)

    def _all_names(self, path: str) -> Iterator[str]:
        """Yield the names in a directory that is changed meanwhile. There may be very many."""
        with Spooled(self.view.home) as names:
            for name in self.view.listdir(path):
                names.append(name)
            yield from names

    def _remove_directory(self, path: str) -> None:
        fd, name = self.view.directories.at(path)
        os.rmdir(name, dir_fd=fd)
        self.view.directories.forget(path)
        self.view.sidecar.drop(path)
        self._times.drop(path)

    def _remove_name(self, path: str) -> None:
        fd, name = self.view.directories.at(path)
        os.unlink(name, dir_fd=fd)
        self.view.sidecar.drop(path)
        self.brought.drop(path)

    # -- life -----------------------------------------------------------------------------------

    def open(self, path: str) -> BinaryIO:
        self._check()
        if path not in self.brought:
            raise FileNotFoundError(f"{path!r} isn't a file of this stage")
        return self.view.open_to_read(self.view.find(path))

    def seal(self, layer: str) -> None:
        self._check()
        self.before_publishing()
        for directory, mtime_ns in self._times.items():
            os.utime(self.view.directories.fd(directory), ns=(mtime_ns, mtime_ns))
        if self.flusher is not None:
            self.flusher.finish()
        self.view.close_view()
        apparent = self.brought.bytes
        self._close()
        self._publish(layer, apparent)
        self._done = True
        self._throw_away()

    def before_publishing(self) -> None:
        """Do what has to precede publication, with all entries applied."""

    def discard(self) -> None:
        if not self._done:
            self._done = True
            self._close()
            self.view.close_view()
            self._throw_away()

    def _close(self) -> None:
        self._times.close()
        self.brought.close()

    def _check(self) -> None:
        if self._done:
            raise ValueError("the stage is sealed or discarded")


def create(fd: int, name: str) -> int:
    """Make an empty regular file that must not exist, open for writing and reading back."""
    return os.open(name, _CREATE, 0o600, dir_fd=fd)


def write_content(descriptor: int, content: BinaryIO) -> int:
    """Write ``content`` into a new file, zeros as holes; return its size in bytes."""
    size = 0
    while piece := content.read(_PIECE):
        write_sparse(descriptor, piece, size)
        size += len(piece)
    if os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, size)
    return size
