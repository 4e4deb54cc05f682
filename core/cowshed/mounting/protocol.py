"""Protocol: what the kernel asks a FUSE server that only shows, and the forms of the answers.

After linux/fuse.h, version 7.31 (Linux 5.4) and later; what later versions added isn't needed. All
numbers are in the machine's order.
"""

from __future__ import annotations

import enum
import os
import struct

from ..entry import Entry, Kind

#: Requests of a file system that is only read are short.
LONGEST_REQUEST = 1 << 16

#: length, operation, unique, node, user, group, process, length of extensions
REQUEST = struct.Struct("=IIQQIIIHxx")
_REPLY = struct.Struct("=IiQ")
_INIT = struct.Struct("=IIII")
_INIT_REPLY = struct.Struct("=IIIIHHIIHHII24x")
_ATTRIBUTES = struct.Struct("=QQQQqQIIIIIIIIII")
_ENTRY = struct.Struct("=QQQQII")
_ATTRIBUTES_REPLY = struct.Struct("=QII")
_NAME = struct.Struct("=QQII")
#: handle, offset, size
READ = struct.Struct("=QQI")
FORGET = struct.Struct("=Q")
COUNT = struct.Struct("=I4x")
FORGET_ONE = struct.Struct("=QQ")
#: size
XATTR = struct.Struct("=I4x")
_STATFS = struct.Struct("=QQQQQIII28x")

#: Seconds for which the kernel need not ask again: nothing changes as long as the mount lives.
FOR_EVER = 1 << 31


class Operation(enum.IntEnum):
    """What we answer; all else is ENOSYS, which the kernel then doesn't ask again."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    READ = 15
    STATFS = 17
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    READDIR = 28
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44


#: Opening is answered by ENOSYS as well: from then on the kernel opens, keeps and caches without
#: asking, so that what was read once costs as much as on a disk's file system.
_ASYNC_READ, _READDIRPLUS, _NO_OPEN, _PARALLEL = 1 << 0, 1 << 13, 1 << 17, 1 << 18
_MAX_PAGES, _CACHE_SYMLINKS, _NO_OPENDIR = 1 << 22, 1 << 23, 1 << 24
_WANTED = (
    _ASYNC_READ | _READDIRPLUS | _NO_OPEN | _PARALLEL | _MAX_PAGES | _CACHE_SYMLINKS | _NO_OPENDIR
)

_TYPES = {
    Kind.FILE: 8,
    Kind.DIRECTORY: 4,
    Kind.SYMLINK: 10,
    Kind.FIFO: 1,
    Kind.CHAR: 2,
    Kind.BLOCK: 6,
}


def reply(unique: int, data: bytes) -> bytes:
    """Return an answer."""
    return _REPLY.pack(_REPLY.size + len(data), 0, unique) + data


def refusal(unique: int, code: int) -> bytes:
    """Return the answer that says an errno."""
    return _REPLY.pack(_REPLY.size, -code, unique)


def init(data: bytes) -> bytes:
    """Answer the first request, which says what the kernel can."""
    major, _, readahead, flags = _INIT.unpack_from(data)
    if major != 7:
        raise OSError(71, os.strerror(71))  # EPROTO
    # Reads of up to 1 MiB; requests in the background are answered one after the other anyway.
    return _INIT_REPLY.pack(7, 31, readahead, flags & _WANTED, 64, 48, 4096, 1, 256, 0, 0, 0)


def attributes(number: int, entry: Entry, uid: int, gid: int) -> bytes:
    """Return what stat says of node ``number``."""
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    second = seconds & 0xFFFFFFFFFFFFFFFF
    rdev = 0
    if entry.rdev:
        major, minor = os.major(entry.rdev), os.minor(entry.rdev)
        rdev = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    size = len(os.fsencode(entry.target)) if entry.kind is Kind.SYMLINK else entry.size
    return _ATTRIBUTES.pack(
        *(number, size, -(-size // 512), second, seconds, second),
        *(nanoseconds, nanoseconds, nanoseconds),
        *(entry.st_mode, 2 if entry.kind is Kind.DIRECTORY else entry.links),
        *(uid, gid, rdev & 0xFFFFFFFF, 4096, 0),
    )


def attributes_reply(found: bytes) -> bytes:
    """Answer GETATTR."""
    return _ATTRIBUTES_REPLY.pack(FOR_EVER, 0, 0) + found


def entry_reply(number: int, found: bytes) -> bytes:
    """Answer LOOKUP, and begin an answer of READDIRPLUS."""
    return _ENTRY.pack(number, 0, FOR_EVER, FOR_EVER, 0, 0) + found


#: Answers LOOKUP of what isn't there, for ever.
NOTHING = _ENTRY.pack(0, 0, FOR_EVER, 0, 0, 0) + bytes(_ATTRIBUTES.size)
#: In READDIRPLUS stands before a name that the kernel shall not remember: ``.`` and ``..``.
UNSAID = bytes(_ENTRY.size + _ATTRIBUTES.size)


def listed(number: int, following: int, kind: Kind, name: bytes) -> bytes:
    """Return one line of a directory; ``following`` is where to go on after it."""
    line = _NAME.pack(number, following, len(name), _TYPES[kind]) + name
    return line.ljust(-(-len(line) // 8) * 8, b"\0")


def xattr_reply(size: int, value: bytes) -> bytes:
    """Answer GETXATTR and LISTXATTR; ``size``: 0 asks for the length.

    Raises:
        OSError: ERANGE: it is longer than that.
    """
    if size == 0:
        return XATTR.pack(len(value))
    if len(value) > size:
        raise OSError(34, os.strerror(34))  # ERANGE
    return value


def statfs() -> bytes:
    """Answer STATFS: nothing can be written here."""
    return _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096)
