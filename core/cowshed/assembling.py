"""Assembling: a layer put together from what the shed holds and ranges of its blob.

First the layer's table of contents is read and every content it names is looked for here. What is
missing becomes ranges, near ones together; where those aren't clearly less than the blob, the layer
is fetched the plain way. Otherwise the ranges come while the tar is put together in its order:
bytes between contents from the tar-split data or from the blob, contents from other layers or from
the blob. Each is hashed before it is given out, as long as it is small, and the tar as a whole has
to have the layer's diff ID: the same proof that a whole download is held to. Whatever goes wrong,
from a lying table to a server without ranges, is answered by the plain way. If that fails, too, or
somebody kills us, the ranges that came stay for a later run.

In eStargz the headers behind a file lie at the end of its compressed data. Where the file is held,
its layer's recipe says what stood behind it there; the member's last eight bytes, CRC-32 and length
of what it unpacks to (RFC 1952, 2.3.1), tell whether that stands here, too.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from .archive import Limits, ZstdFrames, decompressor
from .archive.chunked import Contents, Fetch, FileContent, Piece, Table, table_of
from .arrivals import Arrivals, Range, coalesced
from .errors import ArchiveError, CowshedError, SourceError
from .partials import Claim, parts_of

if TYPE_CHECKING:
    from .blobs import BlobStore
    from .holdings import Held, Holdings, OpenHeld
    from .oci import Descriptor
    from .transport import OpenRanges

#: Ranges with fewer bytes between them are one: headers of a part take some 150 bytes.
GAP = 1 << 10
#: A part of the blob, in percent, from which a plain download is simpler and nearly as short.
_WORTH = 80
#: Blobs below this come whole in the time that it takes to ask for the table.
LEAST = 32 << 10
#: Contents up to this are hashed before anything of them is given out.
_WHOLE = 4 << 20
#: What isn't here as it was thought to be is fetched again up to this: such a content, packed, and
#: the headers behind it. It is held in memory.
_LATE = 2 * _WHOLE
_READ = 1 << 20
_TRAILER = struct.Struct("<II")
#: An eStargz member below this is fetched without looking at its end.
_SHORT = 512


class Assembly:
    """One layer on its way, in part."""

    def __init__(
        self,
        descriptor: Descriptor,
        table: Table,
        open_ranges: OpenRanges,
        limits: Limits,
    ) -> None:
        self._descriptor = descriptor
        self._table = table
        self._open_ranges = open_ranges
        self._limits = limits
        self._holdings: Holdings | None = None
        self._contents = Contents((), 0)
        self._held: dict[bytes, Held] = {}
        #: What follows a content, by where that begins in the blob, if it isn't fetched for that.
        self._tails: dict[int, bytes] = {}
        self._arrivals: Arrivals | None = None
        self._frames = ZstdFrames() if table.packed == "zstd" else None
        self._claim: Claim | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._fetching = False
        self._closed = False
        #: Nobody will want what came.
        self._worthless = False
        #: Bytes that came from the source.
        self.received = 0

    @property
    def contents(self) -> Contents:
        """The blob's table of contents, once there is a plan."""
        return self._contents

    def read_contents(self, fetch: Fetch) -> Contents:
        """Read the table of contents of a blob that is here."""
        return self._table.read(fetch, self._limits)

    # -- the plan -----------------------------------------------------------------------------

    def plan(self, holdings: Holdings, blobs: BlobStore, told: Callable[[int], None]) -> bool:
        """Find out what has to be fetched; False: it doesn't pay.

        ``told`` hears often, from several threads, how many bytes have come.
        """
        if not holdings:
            return False
        self._holdings = holdings
        self._told = told
        self._contents = self._table.read(self._fetch, self._limits)
        size = self._descriptor.size
        if self._contents.end > size:
            raise ArchiveError("the layer's table of contents speaks of more than there is")
        self._held = holdings.find(self._contents)
        if not self._held:
            return False
        between = self._table.between(self._limits)
        ranges = [] if between is not None else list(self._contents.gaps())
        doubtful: list[tuple[Piece, bytes, int]] = []
        for file in self._contents.files:
            whole = self._held.get(file.digest)
            for piece in file.pieces:
                known = whole is not None or piece.hole or piece.digest in self._held
                if not known:
                    ranges.append((piece.start, piece.end))
                elif piece.tail:
                    if whole is None or len(file.pieces) > 1 or piece.end - piece.start < _SHORT:
                        ranges.append((piece.start, piece.end))
                    else:
                        doubtful.append((piece, whole.after, whole.checksum))
        if self._too_much(ranges):
            return False
        ranges += self._untrue(doubtful)
        merged = coalesced(ranges, GAP)
        if self._too_much(merged):
            return False
        descriptor, path = blobs.partials.open(parts_of(self._descriptor.digest))
        self._claim = Claim(descriptor, path, whole=False)
        self._arrivals = Arrivals(descriptor, merged)
        return True

    def _too_much(self, ranges: Sequence[Range]) -> bool:
        asked = sum(end - start for start, end in ranges)
        return (self.received + asked) * 100 > self._descriptor.size * _WORTH

    def _untrue(self, doubtful: list[tuple[Piece, bytes, int]]) -> list[Range]:
        """Return the members that go on in another way than the same content did elsewhere."""
        if not doubtful:
            return []
        ends = [(piece.end - _TRAILER.size, piece.end) for piece, _, _ in doubtful]
        found = self._fetch_all(ends)
        wrong: list[Range] = []
        for (piece, after, checksum), end in zip(doubtful, ends, strict=True):
            expected = zlib.crc32(after, checksum), (piece.size + len(after)) & 0xFFFFFFFF
            if _TRAILER.unpack(found[end[0]]) == expected:
                self._tails[piece.start] = after
            else:
                wrong.append((piece.start, piece.end))
        return wrong

    # -- what comes from the source -----------------------------------------------------------

    def _fetch(self, start: int, end: int) -> bytes:
        return self._fetch_all([(start, end)])[start]

    def _fetch_all(self, ranges: Sequence[Range]) -> dict[int, bytes]:
        """Return a few small ranges, by where they begin."""
        found = {start: bytearray() for start, _ in ranges}
        current: int | None = None
        for offset, data in self._open_ranges(ranges):
            self._count(len(data))
            if offset in found and not found[offset]:
                current = offset
            if current is None or offset != current + len(found[current]):
                raise SourceError("a range came that nobody asked for")
            found[current] += data
        for start, end in ranges:
            if len(found[start]) != end - start:
                raise SourceError("a range came in part only")
        return {start: bytes(data) for start, data in found.items()}

    def _count(self, size: int) -> None:
        with self._lock:
            self.received += size
            done = self.received
        if self._stopped:
            raise SourceError("the import was given up")
        self._told(done)

    def fetch(self) -> None:
        """Bring all the ranges; in a thread of its own."""
        arrivals = self._arrivals
        assert arrivals is not None
        with self._lock:
            self._fetching = True
        try:
            missing = arrivals.missing()
            if missing:
                for offset, data in self._open_ranges(missing):
                    self._count(len(data))
                    arrivals.put(offset, data)
            arrivals.finish()
        except BaseException as error:
            arrivals.finish(error)
            raise
        finally:
            with self._lock:
                self._fetching = False
            if self._closed:
                self.close(done=False)

    # -- the tar ------------------------------------------------------------------------------

    def open(self) -> BinaryIO:
        """Open the uncompressed tar."""
        return io.BufferedReader(_Tar(self._parts()), _READ)

    def _parts(self) -> Iterator[bytes]:
        assert self._holdings is not None
        with self._holdings.reading() as open_held:
            between = self._table.between(self._limits)
            parts = self._by_blob() if between is None else self._by_split(between)
            for part in parts:
                self._told(self.received)
                if isinstance(part, bytes):
                    yield part
                elif isinstance(part, FileContent):
                    yield from self._file(part, open_held)
                else:
                    yield from self._gap(*part)

    def _by_split(self, between: Iterator[bytes | int]) -> Iterator[bytes | FileContent]:
        files = iter(self._contents.files)
        for part in between:
            if isinstance(part, bytes):
                yield part
                continue
            file = next(files, None)
            if file is None or file.size != part:
                raise _lie("and its tar-split data contradict each other")
            yield file
        if next(files, None) is not None:
            raise _lie("has more files than its tar-split data")

    def _by_blob(self) -> Iterator[FileContent | Range]:
        gaps = iter(self._contents.gaps())
        gap = next(gaps, None)
        for file in self._contents.files:
            # Nothing can lie between the pieces of one file but empty frames.
            while gap is not None and gap[0] < file.pieces[-1].start:
                yield gap
                gap = next(gaps, None)
            yield file
        while gap is not None:
            yield gap
            gap = next(gaps, None)

    def _gap(self, start: int, end: int) -> Iterator[bytes]:
        with self._unpacking(start, end) as plain:
            while data := plain.read(_READ):
                yield data

    def _unpacking(self, start: int, end: int) -> BinaryIO:
        return decompressor(self._packed(start, end), self._table.packed, limits=self._limits)

    def _packed(self, start: int, end: int) -> BinaryIO:
        arrivals = self._arrivals
        assert arrivals is not None
        return arrivals.open(start, end) if arrivals.has(start, end) else self._late(start, end)

    def _late(self, start: int, end: int) -> BinaryIO:
        """Fetch what was thought to be here.

        Raises:
            ArchiveError: a table says that so little lies in so much that it can't be true.
        """
        if end - start > _LATE:
            raise _lie(f"has {end - start:,} bytes for a content that is short")
        return io.BytesIO(self._fetch(start, end))

    def _file(self, file: FileContent, open_held: OpenHeld) -> Iterator[bytes]:
        whole = self._held.get(file.digest)
        last = file.pieces[-1]
        if whole is not None and (not last.tail or last.start in self._tails):
            taken = self._taken(whole, file.digest, open_held)
            if taken is not None:
                yield from taken
                yield self._tails.get(last.start, b"")
                return
        for piece in file.pieces:
            if whole is None:
                held = self._held.get(piece.digest)
            else:
                held = whole.part(piece.offset, piece.size)
            yield from self._piece(piece, held, open_held)

    def _piece(self, piece: Piece, held: Held | None, open_held: OpenHeld) -> Iterator[bytes]:
        if piece.hole:
            left = piece.size
            while left:
                yield bytes(min(left, _READ))
                left -= min(left, _READ)
            return
        if held is not None and not piece.tail:
            taken = self._taken(held, piece.digest, open_held)
            if taken is not None:
                yield from taken
                return
        data = self._at_once(piece)
        if data is not None:
            yield data
            return
        hasher = hashlib.sha256()
        left = piece.size
        with self._unpacking(piece.start, piece.end) as plain:
            while left and (data := plain.read(min(left, _READ))):
                hasher.update(data)
                left -= len(data)
                yield data
            if left or hasher.digest() != piece.digest:
                raise _lie(f"is wrong about {piece.size:,} bytes at {piece.start:,}")
            while data := plain.read(_READ):
                if not piece.tail:
                    raise _lie(f"is wrong about the length of the content at {piece.start:,}")
                yield data

    def _at_once(self, piece: Piece) -> bytes | None:
        """Return a short content that is one frame; None: it has to be looked at more closely."""
        if self._frames is None or max(piece.size, piece.end - piece.start) > _WHOLE:
            return None
        packed = self._packed(piece.start, piece.end).read()
        data = self._frames.unpack(packed, piece.size)
        return data if data and hashlib.sha256(data).digest() == piece.digest else None

    def _taken(self, held: Held, digest: bytes, open_held: OpenHeld) -> Iterator[bytes] | None:
        """Give out a content that the shed holds; None: it isn't what it was thought to be."""
        if held.size > _WHOLE:
            return self._streamed(held, digest, open_held)
        try:
            with open_held(held) as file:
                data = file.read(held.size)
        except (OSError, CowshedError):
            return None
        return iter((data,)) if hashlib.sha256(data).digest() == digest else None

    def _streamed(self, held: Held, digest: bytes, open_held: OpenHeld) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        left = held.size
        try:
            with open_held(held) as file:
                while left and (data := file.read(min(left, _READ))):
                    hasher.update(data)
                    left -= len(data)
                    yield data
        except OSError as error:
            raise ArchiveError(f"{held.path!r} of another layer can't be read: {error}") from error
        if hasher.digest() != digest:
            raise ArchiveError(f"{held.path!r} of another layer isn't what it was thought to be")

    # -- the end ------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Stop, and have no use for what came, unless all that is wrong is that the rest didn't."""
        arrivals = self._arrivals
        self._worthless = arrivals is None or not arrivals.broken
        self.stop()

    def stop(self) -> None:
        """Make ``fetch`` end soon, and whoever reads fail."""
        self._stopped = True
        if self._arrivals is not None:
            self._arrivals.finish(SourceError("the import was given up"))

    def close(self, *, done: bool) -> None:
        """Let go; unless the layer is ``done``, what came stays. Twice is fine."""
        with self._lock:
            self._closed = True
            self._worthless |= done
            if self._fetching:
                return  # it writes to the file; whoever is at it closes it
            claim, self._claim = self._claim, None
        if claim is not None:
            if self._worthless or not claim.resumable:
                claim.remove()
            claim.close()


class _Tar(io.RawIOBase):
    """Bytes made piece by piece, as a file. Errors come out of ``read``."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _lie(what: str) -> ArchiveError:
    return ArchiveError(f"the layer's table of contents {what}")


def assembly_of(
    descriptor: Descriptor, open_ranges: OpenRanges | None, limits: Limits
) -> Assembly | None:
    """Return what may bring a layer in part; None: it has no table, or isn't worth it."""
    if open_ranges is None or descriptor.size < LEAST:
        return None
    table = table_of(descriptor.annotations, descriptor.size)
    return None if table is None else Assembly(descriptor, table, open_ranges, limits)
