"""Contents: what one tree has on disk, found in one walk.

An extent that the kernel says is shared may be another file's of the same tree, of the parent's, a
fork's, or of something that isn't ours; the driver finds out which, where that matters. Of metadata
that file systems don't account for by file (inodes, what btrfs keeps of directories) nothing is
counted, but for small files that btrfs keeps in its metadata, which are counted by their size.

A compressed extent tells what it unpacks to, and where it begins. It is counted up to where the
next one that we know of begins, which is right for extents written one after the other and never
too little.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Container, Iterator
from itertools import pairwise

import attrs

from cowshed.native.directories import Directories

from .extents import Extent, extents_of
from .intervals import Interval, length, union

#: Inode and ctime: in the snapshots of a tree whatever has the same ones was never touched.
Identity = tuple[int, int]


@attrs.define
class Contents:
    """Bytes of a tree's own, what it shares, and its inodes."""

    alone: int = 0
    inodes: int = 0
    #: Extents that are another file's too, one for each file.
    shared: list[Interval] = attrs.Factory(list[Interval])
    #: The same of compressed ones, and those of the tree's own.
    shared_encoded: list[Interval] = attrs.Factory(list[Interval])
    alone_encoded: list[Interval] = attrs.Factory(list[Interval])

    def add(self, extent: Extent, size: int) -> None:
        """Count an extent of a file of ``size`` bytes."""
        if not extent.placed:
            self.alone += min(extent.length, size) if extent.inline else extent.length
            return
        place = (extent.physical, extent.physical + extent.length)
        if extent.encoded:
            (self.shared_encoded if extent.shared else self.alone_encoded).append(place)
        elif extent.shared:
            self.shared.append(place)
        else:
            self.alone += extent.length

    @property
    def starts(self) -> set[int]:
        """Where all known extents begin."""
        return {
            start
            for places in (self.shared, self.shared_encoded, self.alone_encoded)
            for start, _ in places
        }

    def told_apart(self, *others: Contents) -> tuple[int, list[Interval]]:
        """Return the bytes of its own and the extents that it shares, compressed ones bounded by
        what is known here and in ``others``."""
        if not self.shared_encoded and not self.alone_encoded:
            return self.alone, self.shared
        known = sorted(self.starts.union(*(other.starts for other in others)))
        after = dict(pairwise(known))

        def bounded(places: list[Interval]) -> list[Interval]:
            return [(start, min(end, after.get(start, end))) for start, end in places]

        alone = self.alone + length(union(bounded(self.alone_encoded)))
        return alone, self.shared + bounded(self.shared_encoded)


def gather(rootfs: str, *, live: bool, known: Container[Identity] = ()) -> Contents:
    """Look at all of a tree, but for the data of files whose identity is ``known``. ``live``: it
    may be written to just now."""
    contents = Contents()
    seen: set[tuple[int, int]] = set()
    own_device: int | None = None
    for fd, name, status in walk(rootfs):
        if own_device is None:
            own_device = status.st_dev
        directory = stat_module.S_ISDIR(status.st_mode)
        if status.st_nlink > 1 and not directory:
            inode = (status.st_dev, status.st_ino)
            if inode in seen:
                continue
            seen.add(inode)
        contents.inodes += 1
        if status.st_blocks == 0:
            continue
        if not stat_module.S_ISREG(status.st_mode):
            contents.alone += status.st_blocks * 512
            continue
        if status.st_dev == own_device and (status.st_ino, status.st_ctime_ns) in known:
            continue
        try:
            descriptor = open_regular(fd, name, live=live)
        except FileNotFoundError:
            continue
        except PermissionError:
            contents.alone += status.st_blocks * 512
            continue
        try:
            for extent in extents_of(descriptor, sync=live):
                contents.add(extent, status.st_size)
        finally:
            os.close(descriptor)
    return contents


def identities(rootfs: str) -> set[Identity]:
    """Return the identity of all there is in a tree."""
    return {(status.st_ino, status.st_ctime_ns) for _, _, status in walk(rootfs)}


def walk(rootfs: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield everything in a tree, its root first, by the directory that holds it and the name
    there; what vanishes meanwhile is left out."""
    directories = Directories(rootfs)
    try:
        yield directories.root, ".", os.fstat(directories.root)
        todo = [""]
        while todo:
            path = todo.pop()
            try:
                fd = directories.fd(path)
                names = os.listdir(fd)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            for name in names:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat_module.S_ISDIR(status.st_mode):
                    todo.append(f"{path}/{name}" if path else name)
                yield fd, name, status
    finally:
        directories.close()


def open_regular(fd: int, name: str, *, live: bool) -> int:
    """Open a regular file for reading. Where somebody may be ``live`` it is pinned and judged
    first, as opening a device that was put in its place would have effects of its own.

    Raises:
        FileNotFoundError: it isn't one any more.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if not live:
        return os.open(name, flags, dir_fd=fd)
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        if not stat_module.S_ISREG(os.fstat(pinned).st_mode):
            raise FileNotFoundError(f"{name!r} was replaced meanwhile")
        return os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pinned)
