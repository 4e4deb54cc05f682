"""Extents: which stretches of the disk a file consists of, and cloning one by sharing them.

FIEMAP (Documentation/filesystems/fiemap.rst) is asked for as many extents as a call brings; nearly
every file of an image has one.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterable
from typing import NamedTuple

#: As on x86, ARM, RISC-V and s390; elsewhere ``probe`` finds that cloning fails.
_FICLONE = 0x40049409
_FS_IOC_FIEMAP = 0xC020660B

_SYNC = 0x1
_LAST = 0x1
_UNKNOWN = 0x2
_DELAYED = 0x4
_ENCODED = 0x8
_INLINE = 0x200
_UNWRITTEN = 0x800
_SHARED = 0x2000
#: No such flag, no promise that ``physical`` says all there is to say.
_NOT_EXACT = _UNKNOWN | _DELAYED | _ENCODED | 0x80 | 0x100 | _INLINE | 0x400

_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
#: A first call of 984 bytes, and calls of 57 kB for files in many pieces.
_FEW, _MANY = 17, 1024


class Extent(NamedTuple):
    """A stretch of a file and where it is."""

    logical: int
    physical: int
    length: int
    flags: int

    @property
    def placed(self) -> bool:
        """Say whether it has a place on the disk of its own: it isn't waiting to be written, and
        isn't part of the file system's metadata."""
        return not self.flags & (_UNKNOWN | _DELAYED | _INLINE)

    @property
    def inline(self) -> bool:
        """Say whether it lies in the file system's metadata."""
        return bool(self.flags & _INLINE)

    @property
    def encoded(self) -> bool:
        """Say whether it is compressed: ``length`` is what it unpacks to."""
        return bool(self.flags & _ENCODED)

    @property
    def shared(self) -> bool:
        """Say whether another file has it too."""
        return bool(self.flags & _SHARED)


def clone(source: int, target: int) -> None:
    """Make the empty open file ``target`` share everything in ``source``."""
    fcntl.ioctl(target, _FICLONE, source)


def extents_of(descriptor: int, *, sync: bool) -> list[Extent]:
    """Return the extents of an open file in its order. ``sync``: what was written to it is given
    its place first, or a write over a shared extent wouldn't show yet."""
    found: list[Extent] = []
    position, room = 0, _FEW
    while True:
        buffer = bytearray(_HEADER.size + room * _EXTENT.size)
        length = (1 << 64) - 1 - position
        _HEADER.pack_into(buffer, 0, position, length, _SYNC if sync else 0, 0, room, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        for number in range(count):
            offset = _HEADER.size + number * _EXTENT.size
            found.append(Extent(*_EXTENT.unpack_from(buffer, offset)))
        if count < room or found[-1].flags & _LAST:
            return found
        position, room = found[-1].logical + found[-1].length, _MANY


def same_extents(one: int, other: int) -> bool:
    """Say whether two open files of one size have all their extents in common, so that no byte
    differs. False where the kernel's answer leaves that open."""
    first = _joined(extents_of(one, sync=True))
    return first is not None and first == _joined(extents_of(other, sync=True))


def _joined(extents: Iterable[Extent]) -> list[Extent] | None:
    """Return extents without the borders that mean nothing; None if one isn't exact."""
    joined: list[Extent] = []
    for extent in extents:
        if extent.flags & _NOT_EXACT:
            return None
        logical, physical, length, flags = extent
        flags &= _UNWRITTEN
        if joined:
            before = joined[-1]
            gap = logical - before.logical
            if (gap, physical - before.physical, flags) == (before.length, gap, before.flags):
                joined[-1] = before._replace(length=before.length + length)
                continue
        joined.append(Extent(logical, physical, length, flags))
    return joined
