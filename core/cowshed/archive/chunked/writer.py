"""Writer: a layer's tar as a zstd:chunked blob, which others and the next pull read in part.

As containers/storage writes it: frames of tar headers, frames of contents, one for each chunk, and
then skippable frames with the table, the tar-split data and a footer that says where they are; at
last the shorter footer that the stargz snapshotter's own parser looks for. All of it is a zstd
stream that unpacks to the tar.

Files above ``WHOLE`` are cut by content (FastCDC), so that a changed file costs its changed chunks.
A layer with members that a table can't describe to everybody (see ``describing``) becomes a zstd
stream like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from ..feed import CHUNK, Feed, Payload
from ..limits import DEFAULT_LIMITS
from ..reader import Member, Reader
from .contents import MAX_TABLE
from .describing import describe
from .tables import OLD_ZSTD, ZSTD
from .tar_split import TarSplitWriter

#: 64 KiB is what containers/storage cuts to; a chunk's frame and entry cost some 250 bytes.
_AVERAGE, _SHORTEST, _LONGEST = 64 << 10, 16 << 10, 256 << 10
#: Files up to this stay in one piece.
WHOLE = 128 << 10
_WINDOW = 4 << 20
_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50
_FOOTER = struct.Struct("<7Q8s")
_FOOTER_MAGIC = b"GNUlInUx"
#: The stargz snapshotter's: the table alone, and behind it nothing.
_SHORT_FOOTER = struct.Struct("<4Q8s")
_SHORT_FOOTER_MAGIC = b"GnUlInUx"
_KIND = 1
#: Frames that are compressed ahead, for each thread.
_AHEAD = 8
#: Entries that wait for their frames; a thousand take a megabyte.
_ENTRIES = 1000


def write_chunked(tar: BinaryIO, out: BinaryIO, level: int) -> dict[str, str]:
    """Compress a tar; return the annotations that say where its table is, none if it has none."""
    frames = _Frames(out, level)
    try:
        writing = _Writing(frames, level)
        writing.run(tar)
        return writing.finish()
    finally:
        frames.stop()


class _Frames:
    """Frames that are compressed side by side and written one after the other."""

    def __init__(self, out: BinaryIO, level: int) -> None:
        self._out = out
        self._level = level
        self._own = threading.local()
        threads = min(os.cpu_count() or 1, 8)
        self._pool = ThreadPoolExecutor(threads, "cowshed-zstd")
        self._most = _AHEAD * threads
        self._waiting: deque[tuple[Future[bytes], Callable[[int, int], None]]] = deque()
        #: Bytes written so far.
        self.offset = 0

    def add(self, data: bytes, done: Callable[[int, int], None] = lambda start, end: None) -> None:
        """Compress a frame; ``done`` is told where it came to lie."""
        self._waiting.append((self._pool.submit(self._compress, data), done))
        while len(self._waiting) > self._most:
            self._write_one()

    def drain(self) -> None:
        """Write everything."""
        while self._waiting:
            self._write_one()

    def skippable(self, data: bytes) -> int:
        """Write a frame that decoders skip; return where its data lies."""
        self._put(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(data)) + data)
        return self.offset - len(data)

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _write_one(self) -> None:
        future, done = self._waiting.popleft()
        start = self.offset
        self._put(future.result())
        done(start, self.offset)

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self.offset += len(data)

    def _compress(self, data: bytes) -> bytes:
        compressor = getattr(self._own, "compressor", None)
        if compressor is None:
            import zstandard

            # The digest of a content says more than a frame's checksum.
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=False)
            self._own.compressor = compressor
        packed: bytes = compressor.compress(data)
        return packed


class _Writing:
    """One layer on its way through."""

    def __init__(self, frames: _Frames, level: int) -> None:
        import pyfastcdc
        from fastcrc.crc64 import go_iso

        self._frames = frames
        self._crc64 = go_iso
        self._cutter = pyfastcdc.FastCDC(_AVERAGE, min_size=_SHORTEST, max_size=_LONGEST)
        self._literal = bytearray()
        #: How much of it stands in the tar-split data already.
        self._noted = 0
        self._ending = False
        #: The table and the tar-split data; None: the layer gets none.
        self._table: _Packed | None = _Packed(level)
        self._split_data = _Packed(level)
        self._split = TarSplitWriter(self._split_data)
        self._entries: list[dict[str, object]] = []
        self._separator = b'{"version":1,"entries":['
        self._names: set[str] = set()

    def run(self, tar: BinaryIO) -> None:
        """Write all of the tar."""
        feed = Feed(iter(lambda: tar.read(CHUNK), b""), lambda size: None)
        reader = Reader(feed, self._keep, DEFAULT_LIMITS)
        for member in reader:
            entry = None if self._table is None else describe(member)
            if entry is None or reader.has_globals or member.name in self._names:
                # Others take two members of one name for an attack.
                self._table = None
                entry = {}
            if self._table is not None:
                self._names.add(member.name)
                self._split_segment()
            if member.payload is None or member.runs is not None or not member.size:
                self._member(member, entry)
            else:
                self._file(member, member.payload, entry)
            if len(self._entries) >= _ENTRIES:
                self._frames.drain()
                self._end_entries()
        self._split_segment()
        self._end_literal()
        self._ending = True
        reader.drain()
        self._frames.drain()
        self._end_entries()

    def _keep(self, data: bytes) -> None:
        if self._ending:
            self._split.segment(data)
            self._frames.add(data)
            return
        self._literal += data
        if self._table is None and len(self._literal) > CHUNK:
            self._end_literal()

    def _member(self, member: Member, entry: dict[str, object]) -> None:
        """A member without content is in one frame with the headers around it."""
        if self._table is None:
            return
        self._split.file(member.name, 0, None)
        self._entries.append(entry)
        if len(self._literal) > CHUNK:
            self._end_literal()

    def _file(self, member: Member, payload: Payload, entry: dict[str, object]) -> None:
        self._end_literal()
        described = self._table is not None
        whole, checksum = hashlib.sha256(), 0
        offset = 0
        rows: list[dict[str, object]] = []
        for data in self._cut(payload, member.size):
            row: dict[str, object] = entry
            if rows:
                row = {"type": "chunk", "name": member.name, "chunkOffset": offset}
            if len(data) < member.size:
                row["chunkSize"] = len(data)
                row["chunkDigest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
                if not data.strip(b"\0"):
                    row["chunkType"] = "zeros"
            if described:
                whole.update(data)
                checksum = self._crc64(data, checksum)
            rows.append(row)
            self._frames.add(data, _placing(row, rows[0]))
            offset += len(data)
        if described:
            rows[0]["digest"] = f"sha256:{whole.hexdigest()}"
            self._split.file(member.name, member.size, checksum.to_bytes(8, "big"))
            self._entries += rows

    def _cut(self, payload: Payload, size: int) -> Iterator[bytes]:
        if size <= WHOLE:
            yield payload.read(size)
            return
        held = b""
        while payload.left or held:
            held += payload.read(min(_WINDOW, payload.left))
            lengths = [chunk.length for chunk in self._cutter.cut_buf(held)]
            if payload.left and lengths[-1] < _LONGEST:
                lengths.pop()  # it may go on in what hasn't been read yet
            at = 0
            for length in lengths:
                yield held[at : at + length]
                at += length
            held = held[at:]

    # -- what isn't content -------------------------------------------------------------------

    def _split_segment(self) -> None:
        """Note one member's header, with the padding before it."""
        if self._table is not None:
            self._split.segment(bytes(self._literal[self._noted :]))
            self._noted = len(self._literal)

    def _end_literal(self) -> None:
        if self._literal:
            self._frames.add(bytes(self._literal))
            self._literal.clear()
        self._noted = 0

    def _end_entries(self) -> None:
        """Pack the entries, whose frames have their places by now."""
        if self._table is not None and self._entries:
            text = ",".join(json.dumps(one, separators=(",", ":")) for one in self._entries)
            self._table.write(self._separator + text.encode())
            self._separator = b","
        self._entries.clear()

    def finish(self) -> dict[str, str]:
        """Write the table, the tar-split data and the footer; return the annotations."""
        if self._table is None:
            return {}
        split = self._split_data.finish()
        end = f'],"tarSplitDigest":"sha256:{hashlib.sha256(split).hexdigest()}"}}'
        self._table.write((b"" if self._separator == b"," else self._separator) + end.encode())
        table = self._table.finish()
        if self._table.plain > MAX_TABLE:
            return {}
        place = self._frames.skippable(table)
        split_place = self._frames.skippable(split)
        plain, split_plain = self._table.plain, self._split_data.plain
        self._frames.skippable(
            _FOOTER.pack(
                place, len(table), plain, _KIND,
                split_place, len(split), split_plain,
                _FOOTER_MAGIC,
            )
        )  # fmt: skip
        self._frames.skippable(
            _SHORT_FOOTER.pack(place, len(table), plain, _KIND, _SHORT_FOOTER_MAGIC)
        )
        checksum = f"sha256:{hashlib.sha256(table).hexdigest()}"
        position = f"{place}:{len(table)}:{plain}:{_KIND}"
        return {
            f"{ZSTD}manifest-checksum": checksum,
            f"{ZSTD}manifest-position": position,
            f"{ZSTD}tarsplit-position": f"{split_place}:{len(split)}:{split_plain}",
            f"{OLD_ZSTD}manifest-checksum": checksum,
            f"{OLD_ZSTD}manifest-position": position,
        }


class _Packed:
    """A file in memory, compressed as it is written."""

    def __init__(self, level: int) -> None:
        import zstandard

        self._compressor = zstandard.ZstdCompressor(level=level).compressobj()
        self._parts: list[bytes] = []
        self.plain = 0

    def write(self, data: bytes) -> int:
        self.plain += len(data)
        self._parts.append(self._compressor.compress(data))
        return len(data)

    def finish(self) -> bytes:
        self._parts.append(self._compressor.flush())
        return b"".join(self._parts)


def _placing(row: dict[str, object], first: dict[str, object]) -> Callable[[int, int], None]:
    def place(start: int, end: int) -> None:
        row["offset"] = start
        first["endOffset"] = end

    return place
