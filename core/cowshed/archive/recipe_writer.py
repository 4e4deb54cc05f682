"""RecipeWriter: a recipe written while a tar is read, or written.

Layout: ``MAGIC``, then blocks of ``<cQQQ``: tag, payload number, compressed and plain length, each
followed by one zstd frame with a checksum:

* ``M`` records, one after the other: ``L`` literal bytes; ``F`` the content of a file; ``R`` a file
  in runs (sparse). Each ``F`` and ``R`` is a payload, numbered from 1.
* ``S`` content of a payload that is in the tar but not in the tree: a later member replaced the
  file. It may stand before or after the record that needs it.
* ``E`` the end, its number is the number of payloads. What lacks it was cut off.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from .feed import CHUNK, Run

MAGIC = b"cowshed recipe 1\n"
BLOCK_HEAD = struct.Struct("<cQQQ")
LITERAL = struct.Struct("<cI")
FILE = struct.Struct("<cIQI")
RUNS = struct.Struct("<cIQI")
RUN = struct.Struct("<QQI")
#: Plain bytes to a block. The same /usr: 256 KiB make 2.25 MB, 1 MiB 2.20, 4 MiB 2.14.
_FILL = 1 << 20
MAX_PLAIN = 64 << 20

Checked = tuple[int, int, int]


class RecipeWriter:
    """Write a recipe while a tar is read or written. Without an output it only counts."""

    def __init__(self, out: BinaryIO | None) -> None:
        import zstandard

        self._out = out
        # 59,000 entries of a Debian /usr: level 1 makes 2.19 MB, 3 the same, 9 makes 1.86 MB for
        # some 15 µs more an entry.
        self._compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self._literal = bytearray()
        self._records = bytearray()
        self._payloads = 0
        if out is not None:
            out.write(MAGIC)

    def literal(self, data: bytes) -> None:
        """Note bytes that stand in the tar as they are."""
        if self._out is None:
            return
        self._literal += data
        if len(self._literal) >= _FILL:
            self._end_literal()

    def file(self, path: str, size: int, checksum: int) -> int:
        """Note that here stands the content of ``path``; returns the payload's number."""
        self._payloads += 1
        if self._out is not None:
            name = path.encode("utf-8", "surrogateescape")
            self._end_literal()
            self._records += FILE.pack(b"F", len(name), size, checksum) + name
        return self._payloads

    def runs(self, path: str, size: int, runs: list[Checked]) -> int:
        """Note that here stand parts of the content of ``path``, a file of ``size`` bytes."""
        self._payloads += 1
        if self._out is not None:
            name = path.encode("utf-8", "surrogateescape")
            self._end_literal()
            self._records += RUNS.pack(b"R", len(name), size, len(runs)) + name
            self._records += b"".join(RUN.pack(*run) for run in runs)
        return self._payloads

    @property
    def keeps(self) -> bool:
        """Whether there is an output at all."""
        return self._out is not None

    def save(self, payload: int, content: BinaryIO, runs: list[Run] | None) -> None:
        """Keep the content of a payload whose file is about to go away: all of it, or in runs."""
        if runs is None:
            while data := content.read(CHUNK):
                self._block(b"S", payload, data)
            return
        for start, length in runs:
            content.seek(start)
            while length and (data := content.read(min(length, CHUNK))):
                self._block(b"S", payload, data)
                length -= len(data)

    def finish(self) -> None:
        """Write what is still held back, and the end."""
        if self._out is not None:
            self._end_literal()
            self._end_records()
            self._block(b"E", self._payloads, b"")

    def _end_literal(self) -> None:
        if self._literal:
            self._records += LITERAL.pack(b"L", len(self._literal)) + self._literal
            self._literal.clear()
        if len(self._records) >= _FILL:
            self._end_records()

    def _end_records(self) -> None:
        if self._records:
            self._block(b"M", 0, bytes(self._records))
            self._records.clear()

    def _block(self, tag: bytes, number: int, data: bytes) -> None:
        assert self._out is not None
        packed = self._compressor.compress(data)
        self._out.write(BLOCK_HEAD.pack(tag, number, len(packed), len(data)) + packed)
