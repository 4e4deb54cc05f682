"""Pieces: the part of a file's content that is cut, as chunks and holes in segments.

Of a file of any length only some segments are open, with their chunks listed in memory; the others
are a length and a digest, 27 bytes per MiB of the file. Changed chunks wait in a segment until
they are many, then go to the writer; changed segments do when too many are open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

import attrs

from .chunks import (
    CHUNK_MAX,
    LIST_MAGIC,
    ROW,
    SEGMENT_MAGIC,
    SEGMENT_PIECES,
    Get,
    Held,
    Put,
    is_zero,
    list_rows,
    segment_rows,
)
from .node import NO_DIGEST
from .pack import DamagedError
from .record import HOLE, LIST

#: Bytes of changed chunks kept before they go to the writer.
_DIRTY_MAX = 8 << 20
#: Pieces listed in memory, about 200 bytes each, before segments are closed: 1.5 GB of content.
#: Not fewer, or writing here and there in a file would store its segments again and again.
_LISTED_MAX = 32_768


@attrs.define
class Piece:
    """A chunk or a hole."""

    length: int
    digest: bytes
    #: What replaces the chunk, until it is settled.
    data: bytearray | None = None

    @property
    def is_hole(self) -> bool:
        """Whether it is nothing but zeros that nobody stored."""
        return self.data is None and self.digest == NO_DIGEST


@attrs.define
class _Segment:
    length: int
    #: Empty: changed, so its object has to be written.
    digest: bytes
    #: None: closed, hence not changed.
    pieces: list[Piece] | None = None


class Pieces:
    """Chunks and holes one after the other, readable and replaceable at any offset."""

    def __init__(self, get: Get, put: Put, put_node: Put) -> None:
        self._get = get
        self._put = put
        self._put_node = put_node
        self._segments: list[_Segment] = []
        self._ends: list[int] | None = None
        #: Bytes of content.
        self.length = 0
        self._dirty = 0
        self._listed = 0
        self._last: tuple[bytes, bytes] = (b"", b"")

    def load_one(self, size: int, digest: bytes) -> None:
        """Begin as one chunk or hole."""
        self._segments = [_Segment(size, b"", [Piece(size, digest)])]
        self.length = size

    def load_list(self, size: int, digest: bytes) -> None:
        """Begin as a stored list says.

        Raises:
            DamagedError: it isn't one of that size.
        """
        found = list_rows(self._get(digest))
        self._segments = [_Segment(length, segment) for length, segment in found]
        if sum(segment.length for segment in self._segments) != size:
            raise DamagedError("chunk list has another length than its file")
        self.length = size

    # -- reading ------------------------------------------------------------------------------

    def overlapping(self, offset: int, end: int) -> Iterator[tuple[Piece, int]]:
        """Yield the pieces that overlap a range, with where each begins."""
        end = min(end, self.length)
        if offset >= end:
            return
        index = bisect_right(self._bounds(), offset)
        start = self._bounds()[index - 1] if index else 0
        while start < end:
            segment = self._segments[index]
            at = start
            for piece in self._opened(segment):
                if at >= end:
                    return
                if at + piece.length > offset:
                    yield piece, at
                at += piece.length
            start += segment.length
            index += 1

    def data(self, piece: Piece) -> bytes | bytearray:
        """Return a chunk's bytes."""
        if piece.data is not None:
            return piece.data
        if self._last[0] != piece.digest:
            data = self._get(piece.digest)
            if len(data) != piece.length:
                raise DamagedError("chunk has another length than its list says")
            self._last = (piece.digest, data)
        return self._last[1]

    def _bounds(self) -> list[int]:
        if self._ends is None:
            self._ends = list(accumulate(segment.length for segment in self._segments))
        return self._ends

    def _opened(self, segment: _Segment) -> list[Piece]:
        if segment.pieces is None:
            if segment.digest == NO_DIGEST:
                segment.pieces = [Piece(segment.length, NO_DIGEST)]
            else:
                found = segment_rows(self._get(segment.digest))
                segment.pieces = [Piece(length, digest) for length, digest in found]
                if sum(length for length, _ in found) != segment.length:
                    raise DamagedError("chunk segment has another length than its list says")
            self._listed += len(segment.pieces)
        return segment.pieces

    # -- changing -----------------------------------------------------------------------------

    def overwrite(self, offset: int, view: memoryview) -> None:
        """Replace bytes that are there."""
        end = offset + len(view)
        for piece, start in list(self.overlapping(offset, end)):
            low = max(offset - start, 0)
            high = min(end - start, piece.length)
            part = view[start + low - offset : start + high - offset]
            if piece.is_hole and piece.length > CHUNK_MAX:
                self._fill_hole(start, piece, low, part)
                continue
            self._touch(start)
            if piece.data is None:
                found = bytes(piece.length) if piece.is_hole else self.data(piece)
                piece.data = bytearray(found)
                self._dirty += piece.length
            piece.data[low:high] = part
        if self._dirty > _DIRTY_MAX:
            self.settle()

    def _touch(self, offset: int) -> list[Piece]:
        """Mark the segment at ``offset`` as changed and return its pieces."""
        segment = self._segments[bisect_right(self._bounds(), offset)]
        pieces = self._opened(segment)
        segment.digest = b""
        return pieces

    def _fill_hole(self, start: int, hole: Piece, low: int, part: memoryview) -> None:
        pieces = self._touch(start)
        index = next(i for i, piece in enumerate(pieces) if piece is hole)
        fresh = [Piece(low, NO_DIGEST)] if low else []
        for at in range(0, len(part), CHUNK_MAX):
            chunk = part[at : at + CHUNK_MAX]
            fresh.append(Piece(len(chunk), b"", bytearray(chunk)))
            self._dirty += len(chunk)
        rest = hole.length - low - len(part)
        if rest:
            fresh.append(Piece(rest, NO_DIGEST))
        pieces[index : index + 1] = fresh
        self._listed += len(fresh) - 1

    def append(self, data: bytes) -> None:
        """Put a chunk at the end."""
        hole = is_zero(data)
        self._append(Piece(len(data), NO_DIGEST if hole else self._put(data)))

    def append_hole(self, length: int) -> None:
        """Put a hole at the end."""
        self._append(Piece(length, NO_DIGEST))

    def _append(self, piece: Piece) -> None:
        self.length += piece.length
        self._ends = None
        last = self._segments[-1] if self._segments else None
        if last is not None and last.pieces is not None:
            if piece.is_hole and last.pieces and last.pieces[-1].is_hole:
                last.pieces[-1].length += piece.length
            elif len(last.pieces) < SEGMENT_PIECES:
                last.pieces.append(piece)
                self._listed += 1
            else:
                last = None
        else:
            last = None
        if last is None:
            self._segments.append(_Segment(piece.length, b"", [piece]))
            self._listed += 1
        else:
            last.length += piece.length
            last.digest = b""

    def take_last(self) -> bytes | bytearray:
        """Take the last chunk away and return it, for the cut after it may move; or nothing."""
        if not self._segments:
            return b""
        segment = self._segments[-1]
        pieces = self._opened(segment)
        last = pieces[-1]
        alone = len(self._segments) == 1 and len(pieces) == 1
        if last.is_hole or (last.length >= CHUNK_MAX and not alone):
            return b""
        data = self.data(last)
        self._drop_last(segment, pieces)
        if not pieces:
            self._segments.pop()
        self._ends = None
        return data

    def _drop_last(self, segment: _Segment, pieces: list[Piece]) -> None:
        length = pieces.pop().length
        self._listed -= 1
        segment.digest = b""
        segment.length -= length
        self.length -= length

    def shrink(self, size: int) -> None:
        """Cut off what is behind ``size``."""
        self._ends = None
        while self._segments and self.length - self._segments[-1].length >= size:
            gone = self._segments.pop()
            self._listed -= len(gone.pieces or ())
            self.length -= gone.length
        over = self.length - size
        if over <= 0:
            return
        segment = self._segments[-1]
        pieces = self._opened(segment)
        while over >= pieces[-1].length:
            over -= pieces[-1].length
            self._drop_last(segment, pieces)
        if over:
            last = pieces[-1]
            if not last.is_hole:
                last.data = bytearray(self.data(last)[: last.length - over])
            last.length -= over
            segment.length -= over
            segment.digest = b""
            self.length = size

    # -- storing ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Hand every changed chunk to the writer."""
        for segment in self._segments:
            if segment.pieces is None or segment.digest:
                continue
            for piece in segment.pieces:
                if piece.data is not None:
                    zero = is_zero(piece.data)
                    piece.digest = NO_DIGEST if zero else self._put(bytes(piece.data))
                    piece.data = None
        self._dirty = 0

    def tidy(self) -> None:
        """Close segments if too many are open. Pieces that were yielded are void after it."""
        if self._listed <= _LISTED_MAX:
            return
        self.settle()
        self._ends = None
        closed: list[_Segment] = []
        last = self._segments.pop()
        for segment in self._segments:
            closed += [_Segment(*row) for row in self._rows(segment)]
        if len(last.pieces or ()) > SEGMENT_PIECES:
            closed += [_Segment(*row) for row in self._rows(last)]
        else:
            closed.append(last)  # it may be growing
        self._segments = closed
        self._listed = len(closed[-1].pieces or ())

    def store(self) -> Held:
        """Store what changed; return (size, form, payload) for the file's record."""
        self.settle()
        self._ends = None
        rows: list[tuple[int, bytes]] = []
        for segment in self._segments:
            found = self._rows(segment)
            if len(found) == 1:
                segment.digest = found[0][1]
            rows += found
        if all(digest == NO_DIGEST for _, digest in rows):
            return self.length, HOLE, b""
        packed = b"".join([ROW.pack(length, digest) for length, digest in rows])
        return self.length, LIST, self._put_node(LIST_MAGIC + packed)

    def _rows(self, segment: _Segment) -> list[tuple[int, bytes]]:
        """Return what the list says of a segment; more than one row if it outgrew its bound."""
        if segment.digest or segment.pieces is None:
            return [(segment.length, segment.digest)]
        pieces = segment.pieces
        groups = [
            pieces[start : start + SEGMENT_PIECES]
            for start in range(0, len(pieces), SEGMENT_PIECES)
        ]
        return [(sum(piece.length for piece in group), self._store(group)) for group in groups]

    def _store(self, pieces: list[Piece]) -> bytes:
        if all(piece.is_hole for piece in pieces):
            return NO_DIGEST
        packed = [ROW.pack(piece.length, piece.digest) for piece in _merged(pieces)]
        return self._put_node(SEGMENT_MAGIC + b"".join(packed))


def _merged(pieces: list[Piece]) -> Iterator[Piece]:
    """Yield the pieces with neighbouring holes as one."""
    hole: Piece | None = None
    for piece in pieces:
        if not piece.is_hole:
            if hole is not None:
                yield hole
                hole = None
            yield piece
        elif hole is None:
            hole = Piece(piece.length, NO_DIGEST)
        else:
            hole.length += piece.length
    if hole is not None:
        yield hole
