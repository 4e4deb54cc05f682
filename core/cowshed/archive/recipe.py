"""Recipe: what a layer's tar held besides file contents, so that it can be written again exactly.

A diff ID is the digest of a tar, and a tar is more than the tree it describes: order, padding,
formats, duplicates, trailing zeros. The recipe keeps every byte that isn't a file's content and
refers to the layer's own files for the rest (as tar-split does for containers/storage and moby).

Layout: ``MAGIC``, then blocks of ``<cQQQ``: tag, payload number, compressed and plain length, each
followed by one zstd frame with a checksum:

* ``M`` records, one after the other: ``L`` literal bytes; ``F`` the content of a file; ``R`` a file
  in runs (sparse). Each ``F`` and ``R`` is a payload, numbered from 1.
* ``S`` content of a payload that is in the tar but not in the tree: a later member replaced the
  file. It may stand before or after the record that needs it.
* ``E`` the end, its number is the number of payloads. What lacks it was cut off.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

import attrs

from ..entry import Kind
from ..errors import ArchiveError, CorruptError, FormatTooNewError
from ..tree import Tree
from .feed import CHUNK, Feed, Run
from .inflate import crc32

MAGIC = b"cowshed recipe 1\n"
_BLOCK = struct.Struct("<cQQQ")
_LITERAL = struct.Struct("<cI")
_FILE = struct.Struct("<cIQI")
_RUNS = struct.Struct("<cIQI")
_RUN = struct.Struct("<QQI")
#: Plain bytes to a block: larger ones compress no better (20,000 entries: 0.5 % from 1 to 4 MiB).
_FILL = 1 << 20
_MAX_PLAIN = 64 << 20

Checked = tuple[int, int, int]


class RecipeWriter:
    """Write a recipe while a tar is read or written. Without an output it only counts."""

    def __init__(self, out: BinaryIO | None) -> None:
        import zstandard

        self._out = out
        # Level 3 takes 2 µs an entry; level 9 would take 12 and save a tenth.
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._literal = bytearray()
        self._records = bytearray()
        self._payloads = 0
        self._runs: dict[int, list[Run]] = {}
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
            self._records += _FILE.pack(b"F", len(name), size, checksum) + name
        return self._payloads

    def runs(self, path: str, size: int, runs: list[Checked]) -> int:
        """Note that here stand parts of the content of ``path``, a file of ``size`` bytes."""
        self._payloads += 1
        if self._out is not None:
            name = path.encode("utf-8", "surrogateescape")
            self._end_literal()
            self._records += _RUNS.pack(b"R", len(name), size, len(runs)) + name
            self._records += b"".join(_RUN.pack(*run) for run in runs)
            self._runs[self._payloads] = [(start, length) for start, length, _ in runs]
        return self._payloads

    @property
    def keeps(self) -> bool:
        """Whether there is an output at all."""
        return self._out is not None

    def save(self, payload: int, content: BinaryIO) -> None:
        """Keep the content of a payload whose file is about to go away."""
        runs = self._runs.get(payload)
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
            self._records += _LITERAL.pack(b"L", len(self._literal)) + self._literal
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
        self._out.write(_BLOCK.pack(tag, number, len(packed), len(data)) + packed)


@attrs.frozen
class RecipeItem:
    """One member of a layer's tar, as its header describes it."""

    #: As the tar names it: ``./``, slashes and ``.wh.`` included.
    name: str
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: str


@attrs.frozen
class _Payload:
    number: int
    path: str
    size: int
    #: (start, length, CRC-32) of each run, in the order of the tar.
    runs: list[Checked]


class _Recipe:
    """A recipe opened for reading: an index of saved payloads, and the records."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor()
        self._file = file
        self._payloads = 0
        self._main: list[tuple[int, int, int]] = []
        self.saved: dict[int, list[tuple[int, int, int]]] = {}
        self._index()

    def _index(self) -> None:
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            version = magic[15:16]
            if magic.startswith(MAGIC[:15]) and version.isdigit() and version > b"1":
                raise FormatTooNewError("recipe", int(version), 1)
            raise CorruptError("layer recipe", "is not a recipe")
        at = len(MAGIC)
        while True:
            head = self._file.read(_BLOCK.size)
            if len(head) < _BLOCK.size:
                raise CorruptError("layer recipe", "is cut off")
            tag, number, packed, plain = _BLOCK.unpack(head)
            at += _BLOCK.size
            if tag == b"E":
                self._payloads = number
                return
            if tag not in b"MS" or plain > _MAX_PLAIN or (tag == b"M") != (number == 0):
                raise CorruptError("layer recipe", f"has a malformed block at byte {at:,}")
            where = (at, packed, plain)
            if tag == b"M":
                self._main.append(where)
            else:
                self.saved.setdefault(number, []).append(where)
            at += packed
            self._file.seek(at)

    def block(self, at: int, packed: int, plain: int) -> bytes:
        self._file.seek(at)
        try:
            data = self._decompressor.decompress(
                self._file.read(packed), max_output_size=max(plain, 1)
            )
        except self._error as error:
            raise CorruptError("layer recipe", f"is damaged at byte {at:,} ({error})") from None
        if len(data) != plain:
            raise CorruptError("layer recipe", f"is damaged at byte {at:,}")
        return data

    def __iter__(self) -> Iterator[bytes | _Payload]:
        number = 0
        for where in self._main:
            block = self.block(*where)
            at = 0
            try:
                while at < len(block):
                    tag = block[at : at + 1]
                    if tag == b"L":
                        length = _LITERAL.unpack_from(block, at)[1]
                        at += _LITERAL.size + length
                        yield block[at - length : at]
                        continue
                    number += 1
                    _, length, size, last = _FILE.unpack_from(block, at)
                    at += _FILE.size + length
                    path = block[at - length : at].decode("utf-8", "surrogateescape")
                    if tag == b"F":
                        runs: list[Checked] = [(0, size, last)]
                    elif tag == b"R":
                        end = at + last * _RUN.size
                        runs = cast("list[Checked]", list(_RUN.iter_unpack(block[at:end])))
                        at = end
                    else:
                        raise struct.error(f"unknown record {tag!r}")
                    yield _Payload(number, path, size, runs)
            except struct.error as error:
                raise CorruptError("layer recipe", f"is damaged ({error})") from None
        if number != self._payloads:
            raise CorruptError("layer recipe", "is cut off")


def _open(recipe: BinaryIO) -> _Recipe:
    if recipe.seekable() and recipe.tell() == 0:
        return _Recipe(recipe)
    # Read twice, so a pipe is copied first; recipes are small.
    copy = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115 — lives as long as _Recipe
    shutil.copyfileobj(recipe, copy)
    copy.seek(0)
    return _Recipe(cast(BinaryIO, copy))


def replay(recipe: BinaryIO, tree: Tree, out: BinaryIO) -> str:
    """Write the tar that a layer came as, from its recipe and its tree; return its diff ID.

    Raises:
        CorruptError: a file is missing, has another size or content, or the recipe is damaged.
    """
    opened = _open(recipe)
    hasher = hashlib.sha256()
    for part in opened:
        for data in (part,) if isinstance(part, bytes) else _contents(opened, part, tree):
            hasher.update(data)
            out.write(data)
    return f"sha256:{hasher.hexdigest()}"


def _contents(recipe: _Recipe, payload: _Payload, tree: Tree) -> Iterator[bytes]:
    saved = recipe.saved.get(payload.number)
    if saved is not None:
        yield from (recipe.block(*where) for where in saved)
        return
    try:
        file = tree.open(payload.path)
    except OSError as error:
        raise CorruptError(payload.path, f"the layer's file is gone ({error.strerror})") from error
    with file:
        at = 0
        for start, length, expected in payload.runs:
            if start != at:
                file.seek(start)
            at = start + length
            checksum = 0
            while length:
                data = file.read(min(length, CHUNK))
                if not data:
                    raise CorruptError(payload.path, "the layer's file is too short")
                checksum = crc32(data, checksum)
                length -= len(data)
                yield data
            if checksum != expected:
                raise CorruptError(payload.path, "the layer's file has another content")
        if at < payload.size:
            file.seek(payload.size - 1)
            if not file.read(1):
                raise CorruptError(payload.path, "the layer's file is too short")
        if file.read(1):
            raise CorruptError(payload.path, "the layer's file is too long")


def read_recipe_summary(recipe: BinaryIO) -> Iterator[RecipeItem]:
    """Yield what the layer's tar contained, in its order, without reading any file's content."""
    from .limits import Limits
    from .reader import Reader

    feed = Feed(_skeleton(_open(recipe)), lambda size: None)
    try:
        for member in Reader(feed, lambda data: None, Limits()):
            yield RecipeItem(
                member.name,
                member.kind,
                member.size,
                member.mode,
                member.uid,
                member.gid,
                member.mtime_ns,
                member.target,
            )
    except ArchiveError as error:
        raise CorruptError("layer recipe", f"doesn't make a tar ({error})") from error


def _skeleton(parts: Iterable[bytes | _Payload]) -> Iterator[bytes]:
    """The tar with zeros for content: one shared chunk, given out again and again."""
    zeros = bytes(CHUNK)
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        for _, length, _ in part.runs:
            for _ in range(length // CHUNK):
                yield zeros
            if length % CHUNK:
                yield zeros[: length % CHUNK]
