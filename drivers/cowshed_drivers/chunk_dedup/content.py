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

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

from .chunks import (
    CHUNK_MAX,
    CHUNK_MIN,
    LIST_MAGIC,
    ROW,
    SEGMENT_MAGIC,
    SEGMENT_PIECES,
    Get,
    Held,
    Put,
    hold_small,
    is_zero,
    list_rows,
    segment_rows,
)
from .node import NO_DIGEST
from .pack import DamagedError
from .record import CHUNK, FORM, HOLE, INLINE, LIST, Record, payload

#: Bytes at the end of a file that wait to be cut.
_CUT_AT = 1 << 20
#: Bytes of changed chunks kept before they go to the writer.
_DIRTY_MAX = 8 << 20


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


@dataclass(slots=True)
class _Piece:
    length: int
    digest: bytes
    #: What replaces the chunk, until it is settled.
    data: bytearray | None = None

    @property
    def is_hole(self) -> bool:
        return self.data is None and self.digest == NO_DIGEST


@dataclass(slots=True)
class _Segment:
    length: int
    digest: bytes
    #: None: not loaded, hence not changed.
    pieces: list[_Piece] | None = None


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
        self._get = get
        self._put = put
        self._put_node = put_node or put
        self._chunk_size = chunk_size
        self._segments: list[_Segment] = []
        self._ends: list[int] | None = None
        self._tail = bytearray()
        self._fixed = 0  # bytes before the tail
        self._dirty = 0
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._held: Held | None = (0, HOLE, b"")
        if record is not None and record[6]:
            self._load(record[6], record[1] & FORM, payload(record))

    def _load(self, size: int, form: int, content: bytes) -> None:
        self._held = (size, form, content)
        if form == INLINE:
            self._tail += content
            return
        self._fixed = size
        if form == HOLE:
            self._segments = [_Segment(size, b"", [_Piece(size, NO_DIGEST)])]
        elif form == CHUNK:
            self._segments = [_Segment(size, b"", [_Piece(size, content)])]
        else:
            found = list_rows(self._get(content))
            self._segments = [_Segment(length, digest) for length, digest in found]
            if sum(segment.length for segment in self._segments) != size:
                raise DamagedError("chunk list has another length than its file")

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self._fixed + len(self._tail)

    # -- reading ------------------------------------------------------------------------------

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset``; fewer at the end."""
        end = min(offset + count, self.size)
        if offset >= end:
            return b""
        parts: list[bytes] = []
        for piece, start in self._pieces(offset, min(end, self._fixed)):
            low = max(offset - start, 0)
            high = min(end - start, piece.length)
            if piece.is_hole:
                parts.append(bytes(high - low))
            else:
                parts.append(bytes(self._data(piece)[low:high]))
        if end > self._fixed:
            low = max(offset - self._fixed, 0)
            parts.append(bytes(self._tail[low : end - self._fixed]))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _data(self, piece: _Piece) -> bytes | bytearray:
        if piece.data is not None:
            return piece.data
        if self._last[0] != piece.digest:
            data = self._get(piece.digest)
            if len(data) != piece.length:
                raise DamagedError("chunk has another length than its list says")
            self._last = (piece.digest, data)
        return self._last[1]

    def _pieces(self, offset: int, end: int) -> Iterator[tuple[_Piece, int]]:
        """Yield the pieces that overlap a range of the fixed part, with where each begins."""
        if offset >= end:
            return
        if self._ends is None:
            self._ends = list(accumulate(segment.length for segment in self._segments))
        index = bisect_right(self._ends, offset)
        start = self._ends[index - 1] if index else 0
        while start < end:
            segment = self._segments[index]
            at = start
            for piece in self._expanded(segment):
                if at >= end:
                    return
                if at + piece.length > offset:
                    yield piece, at
                at += piece.length
            start += segment.length
            index += 1

    def _expanded(self, segment: _Segment) -> list[_Piece]:
        if segment.pieces is None:
            if segment.digest == NO_DIGEST:
                segment.pieces = [_Piece(segment.length, NO_DIGEST)]
            else:
                found = segment_rows(self._get(segment.digest))
                segment.pieces = [_Piece(length, digest) for length, digest in found]
                if sum(length for length, _ in found) != segment.length:
                    raise DamagedError("chunk segment has another length than its list says")
        return segment.pieces

    # -- writing ------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset``; what lies between the end and there becomes a hole."""
        if not len(data):
            return
        self._held = None
        if offset > self.size:
            self._grow(offset)
        view = memoryview(data)
        inside = min(max(self._fixed - offset, 0), len(view))
        if inside:
            self._overwrite(offset, view[:inside])
            view = view[inside:]
            offset += inside
        if len(view):
            if offset == self.size and not self._tail:
                self._reopen_last()
            at = offset - self._fixed
            self._tail[at : at + len(view)] = view
            if len(self._tail) >= _CUT_AT:
                self._cut(final=False)

    def _overwrite(self, offset: int, view: memoryview) -> None:
        end = offset + len(view)
        for piece, start in list(self._pieces(offset, end)):
            low = max(offset - start, 0)
            high = min(end - start, piece.length)
            part = view[start + low - offset : start + high - offset]
            if piece.is_hole and piece.length > CHUNK_MAX:
                self._fill_hole(start, piece, low, part)
                continue
            self._touch(start)
            if piece.data is None:
                found = bytes(piece.length) if piece.is_hole else self._data(piece)
                piece.data = bytearray(found)
                self._dirty += piece.length
            piece.data[low:high] = part
        if self._dirty > _DIRTY_MAX:
            self._settle()

    def _touch(self, offset: int) -> _Segment:
        """Mark the segment at ``offset`` as changed and return it."""
        if self._ends is None:
            self._ends = list(accumulate(segment.length for segment in self._segments))
        segment = self._segments[bisect_right(self._ends, offset)]
        self._expanded(segment)
        segment.digest = b""
        return segment

    def _fill_hole(self, start: int, hole: _Piece, low: int, part: memoryview) -> None:
        segment = self._touch(start)
        pieces = self._expanded(segment)
        index = next(i for i, piece in enumerate(pieces) if piece is hole)
        fresh = [_Piece(low, NO_DIGEST)] if low else []
        for at in range(0, len(part), CHUNK_MAX):
            chunk = part[at : at + CHUNK_MAX]
            fresh.append(_Piece(len(chunk), b"", bytearray(chunk)))
            self._dirty += len(chunk)
        rest = hole.length - low - len(part)
        if rest:
            fresh.append(_Piece(rest, NO_DIGEST))
        pieces[index : index + 1] = fresh

    def truncate(self, size: int) -> None:
        """Cut or extend, with a hole, to ``size`` bytes."""
        if size == self.size:
            return
        self._held = None
        if size > self.size:
            self._grow(size)
        elif size >= self._fixed:
            del self._tail[size - self._fixed :]
        else:
            self._tail.clear()
            self._shrink(size)

    def _grow(self, size: int) -> None:
        if self._tail:
            self._cut(final=True)
        extra = size - self._fixed
        last = self._segments[-1].pieces if self._segments else None
        if last and last[-1].is_hole:
            last[-1].length += extra
            self._segments[-1].length += extra
            self._segments[-1].digest = b""
        else:
            self._segments.append(_Segment(extra, b"", [_Piece(extra, NO_DIGEST)]))
        self._fixed = size
        self._ends = None

    def _shrink(self, size: int) -> None:
        while self._segments and self._fixed - self._segments[-1].length >= size:
            self._fixed -= self._segments.pop().length
        self._ends = None
        if self._fixed > size:
            segment = self._segments[-1]
            pieces = self._expanded(segment)
            segment.digest = b""
            while self._fixed - pieces[-1].length >= size:
                gone = pieces.pop().length
                self._fixed -= gone
                segment.length -= gone
            over = self._fixed - size
            if over:
                last = pieces[-1]
                if not last.is_hole:
                    last.data = bytearray(self._data(last)[: last.length - over])
                last.length -= over
                segment.length -= over
                self._fixed = size

    def _reopen_last(self) -> None:
        """Take the last chunk back into the tail, so that cutting goes on from where it began."""
        if not self._segments:
            return
        segment = self._segments[-1]
        pieces = self._expanded(segment)
        last = pieces[-1]
        alone = len(self._segments) == 1 and len(pieces) == 1
        if last.is_hole or (last.length >= CHUNK_MAX and not alone):
            return
        self._tail += self._data(last)
        pieces.pop()
        segment.digest = b""
        segment.length -= last.length
        self._fixed -= last.length
        if not pieces:
            self._segments.pop()
        self._ends = None

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
            self._append(tail[at : at + length])
            at += length
        self._tail = bytearray(tail[at:])
        self._ends = None

    def _append(self, data: bytes) -> None:
        length = len(data)
        hole = is_zero(data)
        digest = NO_DIGEST if hole else self._put(data)
        self._fixed += length
        segment = self._segments[-1] if self._segments else None
        if segment is not None and segment.pieces is not None:
            segment.digest = b""
            if hole and segment.pieces and segment.pieces[-1].is_hole:
                segment.pieces[-1].length += length
                segment.length += length
                return
            if len(segment.pieces) < SEGMENT_PIECES:
                segment.pieces.append(_Piece(length, digest))
                segment.length += length
                return
        self._segments.append(_Segment(length, b"", [_Piece(length, digest)]))

    def _settle(self) -> None:
        for segment in self._segments:
            if segment.pieces is None or segment.digest:
                continue
            for piece in segment.pieces:
                if piece.data is not None:
                    zero = is_zero(piece.data)
                    piece.digest = NO_DIGEST if zero else self._put(bytes(piece.data))
                    piece.data = None
        self._dirty = 0

    # -- the end ------------------------------------------------------------------------------

    def finish(self) -> Held:
        """Store what changed; return (size, form, payload) for the file's record."""
        if self._held is None:
            self._held = self._finish()
        return self._held

    def _finish(self) -> Held:
        size = self.size
        if size <= CHUNK_MAX:
            return hold_small(self.read(0, size), self._put)
        if self._tail:
            self._cut(final=True)
        self._settle()
        parts: list[bytes] = [LIST_MAGIC]
        whole_hole = True
        for segment in self._segments:
            if not segment.digest and segment.pieces is not None:
                yielded = [
                    (sum(p.length for p in group), self._segment_digest(group))
                    for group in _groups(segment.pieces)
                ]
                whole_hole = whole_hole and all(d == NO_DIGEST for _, d in yielded)
                parts += [ROW.pack(length, digest) for length, digest in yielded]
                if len(yielded) == 1:
                    segment.digest = yielded[0][1]
            else:
                whole_hole = whole_hole and segment.digest == NO_DIGEST
                parts.append(ROW.pack(segment.length, segment.digest))
        if whole_hole:
            return size, HOLE, b""
        return size, LIST, self._put_node(b"".join(parts))

    def _segment_digest(self, pieces: list[_Piece]) -> bytes:
        if all(piece.is_hole for piece in pieces):
            return NO_DIGEST
        packed = [ROW.pack(piece.length, piece.digest) for piece in _merged(pieces)]
        return self._put_node(SEGMENT_MAGIC + b"".join(packed))


def _merged(pieces: list[_Piece]) -> Iterator[_Piece]:
    """Yield the pieces with neighbouring holes as one."""
    hole: _Piece | None = None
    for piece in pieces:
        if not piece.is_hole:
            if hole is not None:
                yield hole
                hole = None
            yield piece
        elif hole is None:
            hole = _Piece(piece.length, NO_DIGEST)
        else:
            hole.length += piece.length
    if hole is not None:
        yield hole


def _groups(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Cut pieces into segments of at most 128; writing into holes can have made more."""
    for start in range(0, len(pieces), SEGMENT_PIECES):
        yield pieces[start : start + SEGMENT_PIECES]
