"""Chunks: how content is held in objects, and the bounds that keep small writes small."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .pack import DamagedError
from .record import CHUNK, HOLE, INLINE

#: Longest chunk, and longest file that is one chunk.
CHUNK_MAX = 128 << 10
CHUNK_MIN = 16 << 10
#: Indexing an object costs about 210 bytes (digest, row, edge, table), so less than that is kept
#: in the directory. Not more: a directory's page is written anew with each change in it.
INLINE_MAX = 160

#: Chunks in a segment.
SEGMENT_PIECES = 128

LIST_MAGIC = b"FL\x01\x00"
SEGMENT_MAGIC = b"SG\x01\x00"
ROW = struct.Struct("<Q32s")

Get = Callable[[bytes], bytes]
Put = Callable[[bytes], bytes]
#: A file's (size, form, payload) as a record takes them.
Held = tuple[int, int, bytes]


def is_zero(data: bytes | bytearray | memoryview) -> bool:
    """Say whether there is nothing but zeros."""
    if not len(data) or data[0] or data[-1]:
        return not len(data)
    return not bytes(data).strip(b"\0")


def _rows(data: bytes, magic: bytes) -> list[tuple[int, bytes]]:
    """Return the (length, digest) rows of a list or segment.

    Raises:
        DamagedError: the bytes aren't one.
    """
    if data[:4] != magic or (len(data) - 4) % ROW.size:
        raise DamagedError("not a chunk list of a format this version reads")
    return [(length, digest) for length, digest in ROW.iter_unpack(memoryview(data)[4:])]


def list_rows(data: bytes) -> list[tuple[int, bytes]]:
    """Return the segments of a list object."""
    return _rows(data, LIST_MAGIC)


def segment_rows(data: bytes) -> list[tuple[int, bytes]]:
    """Return the chunks of a segment object."""
    return _rows(data, SEGMENT_MAGIC)


def hold_small(data: bytes, put: Put) -> Held:
    """Store content of up to ``CHUNK_MAX`` bytes."""
    size = len(data)
    if not size or (not data[0] and is_zero(data)):
        return size, HOLE, b""
    if size <= INLINE_MAX:
        return size, INLINE, bytes(data)
    return size, CHUNK, put(data)
