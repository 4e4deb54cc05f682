"""Content: what a regular file holds, as pieces in segments.

A file of up to 128 KiB is one chunk, so that a write to it stores no more than that; a few dozen
bytes lie inline in the directory. Anything longer is cut by FastCDC into chunks of 48 KiB on
average and 128 KiB at most, listed in two levels:

    list      "FL" version 0   (length u64, digest of segment) × segments
    segment   "SG" version 0   (length u64, digest of chunk) × up to 128

A digest of zeros is a hole, of any length. A write in the middle changes its chunk, keeps where
the chunk begins and ends, and rewrites one segment of 5 KB and the list: 3 KB for 500 MB. A write
at the end takes up cutting where the last chunk began, so that a log appended to in a hundred
steps ends up cut like one imported whole.
"""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from .chunks import CHUNK_MAX, CHUNK_MIN, Get, Held, Put, hold_small
from .node import NO_DIGEST
from .pieces import Pieces
from .record import CHUNK, FORM, HOLE, INLINE, Record, payload

#: Bytes at the end of a file that wait to be cut.
_CUT_AT = 1 << 20
#: As far as an ``off_t`` reaches.
_SIZE_MAX = (1 << 63) - 1


def hold_stream(stream: BinaryIO, get: Get, put: Put, put_node: Put, chunk_size: int) -> Held:
    """Store what is left of a stream."""
    data = stream.read(CHUNK_MAX + 1)
    while 0 < len(data) <= CHUNK_MAX:
        more = stream.read(CHUNK_MAX + 1 - len(data))
        if not more:
            break
        data += more
    if len(data) <= CHUNK_MAX:
        return hold_small(data, put)
    content = Content(get, put, chunk_size, put_node=put_node)
    size = 0
    while data:
        content.write(size, data)
        size += len(data)
        data = stream.read(_CUT_AT)
    return content.finish()


class Content:
    """One file's content, readable and writable at any offset; bounded in memory."""

    def __init__(
        self,
        get: Get,
        put: Put,
        chunk_size: int,
        record: Record | None = None,
        *,
        put_node: Put | None = None,
    ) -> None:
        self._put = put
        self._chunk_size = chunk_size
        self._fixed = Pieces(get, put, put_node or put)
        #: What comes after, not cut yet.
        self._tail = bytearray()
        self._held: Held | None = (0, HOLE, b"")
        if record is not None and record[6]:
            self._load(record[6], record[1] & FORM, payload(record))

    def _load(self, size: int, form: int, content: bytes) -> None:
        self._held = (size, form, content)
        if form == INLINE:
            self._tail += content
        elif form in (HOLE, CHUNK):
            self._fixed.load_one(size, NO_DIGEST if form == HOLE else content)
        else:
            self._fixed.load_list(size, content)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self._fixed.length + len(self._tail)

    # -- reading ------------------------------------------------------------------------------

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset``; fewer at the end."""
        end = min(offset + count, self.size)
        if offset >= end:
            return b""
        fixed = self._fixed
        parts: list[bytes] = []
        for piece, start in fixed.overlapping(offset, end):
            low = max(offset - start, 0)
            high = min(end - start, piece.length)
            if piece.is_hole:
                parts.append(bytes(high - low))
            else:
                parts.append(bytes(fixed.data(piece)[low:high]))
        if end > fixed.length:
            low = max(offset - fixed.length, 0)
            parts.append(bytes(self._tail[low : end - fixed.length]))
        fixed.tidy()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- writing ------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset``; what lies between the end and there becomes a hole.

        Raises:
            OSError: the file would be too long for any system (EFBIG).
        """
        if not len(data):
            return
        _check_size(offset + len(data))
        self._held = None
        if offset > self.size:
            self._grow(offset)
        fixed = self._fixed
        view = memoryview(data)
        inside = min(max(fixed.length - offset, 0), len(view))
        if inside:
            fixed.overwrite(offset, view[:inside])
            view = view[inside:]
            offset += inside
        if len(view):
            if offset == self.size and not self._tail:
                self._tail += fixed.take_last()
            at = offset - fixed.length
            self._tail[at : at + len(view)] = view
            if len(self._tail) >= _CUT_AT:
                self._cut(final=False)
        fixed.tidy()

    def truncate(self, size: int) -> None:
        """Cut or extend, with a hole, to ``size`` bytes.

        Raises:
            OSError: the size is negative (EINVAL) or too large for any system (EFBIG).
        """
        _check_size(size)
        if size == self.size:
            return
        self._held = None
        if size > self.size:
            self._grow(size)
        elif size >= self._fixed.length:
            del self._tail[size - self._fixed.length :]
        else:
            self._tail.clear()
            self._fixed.shrink(size)

    def _grow(self, size: int) -> None:
        if self._tail:
            self._cut(final=True)
        self._fixed.append_hole(size - self._fixed.length)

    def _cut(self, *, final: bool) -> None:
        """Turn the tail into chunks; unless ``final`` its last one stays, for it may grow."""
        import pyfastcdc  # 20 ms, and most commands write no large file

        tail = bytes(self._tail)
        cutter = pyfastcdc.FastCDC(self._chunk_size, min_size=CHUNK_MIN, max_size=CHUNK_MAX)
        lengths = [chunk.length for chunk in cutter.cut_buf(tail)]
        if not final and lengths[-1] < CHUNK_MAX:
            lengths.pop()
        at = 0
        for length in lengths:
            self._fixed.append(tail[at : at + length])
            at += length
        self._tail = bytearray(tail[at:])

    # -- the end ------------------------------------------------------------------------------

    def finish(self) -> Held:
        """Store what changed; return (size, form, payload) for the file's record."""
        if self._held is None:
            size = self.size
            if size <= CHUNK_MAX:
                self._held = hold_small(self.read(0, size), self._put)
            else:
                if self._tail:
                    self._cut(final=True)
                self._held = self._fixed.store()
        return self._held


def _check_size(size: int) -> None:
    if size < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if size > _SIZE_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
