"""Recipe: what a layer's tar held besides file contents, so that it can be written again exactly.

A diff ID is the digest of a tar, and a tar is more than the tree it describes: order, padding,
formats, duplicates, trailing zeros. The recipe keeps every byte that isn't a file's content and
refers to the layer's own files for the rest (as tar-split does for containers/storage and moby).

``RecipeWriter`` says how one is laid out.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

import attrs

from ..entry import Kind
from ..errors import ArchiveError, CorruptError, FormatTooNewError
from ..tree import Tree
from .feed import CHUNK, Feed
from .inflate import crc32
from .recipe_writer import BLOCK_HEAD, FILE, LITERAL, MAGIC, MAX_PLAIN, RUN, Checked


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
class StoredContent:
    """The whole content of a file that a layer's tree holds."""

    #: Its place among the layer's contents, from 1.
    number: int
    #: Where it is in the tree.
    path: str
    size: int
    #: CRC-32.
    checksum: int
    #: What the tar has between this content and the next one.
    after: bytes


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
            head = self._file.read(BLOCK_HEAD.size)
            if len(head) < BLOCK_HEAD.size:
                raise CorruptError("layer recipe", "is cut off")
            tag, number, packed, plain = BLOCK_HEAD.unpack(head)
            at += BLOCK_HEAD.size
            if tag == b"E":
                self._payloads = number
                return
            if tag not in b"MS" or plain > MAX_PLAIN or (tag == b"M") != (number == 0):
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
                        length = LITERAL.unpack_from(block, at)[1]
                        at += LITERAL.size + length
                        yield block[at - length : at]
                        continue
                    number += 1
                    _, length, size, last = FILE.unpack_from(block, at)
                    at += FILE.size + length
                    path = block[at - length : at].decode("utf-8", "surrogateescape")
                    if tag == b"F":
                        runs: list[Checked] = [(0, size, last)]
                    elif tag == b"R":
                        end = at + last * RUN.size
                        runs = cast("list[Checked]", list(RUN.iter_unpack(block[at:end])))
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
    import tempfile  # a slow import, for what is rare

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


def read_stored_contents(recipe: BinaryIO) -> Iterator[StoredContent]:
    """Yield the contents of a layer's tar that its tree still holds as whole files."""
    opened = _open(recipe)
    last: _Payload | None = None
    after: list[bytes] = []
    for part in _ended(opened):
        if isinstance(part, bytes):
            after.append(part)
            continue
        if last is not None and len(last.runs) == 1 and last.number not in opened.saved:
            _, length, checksum = last.runs[0]
            if length == last.size:
                yield StoredContent(last.number, last.path, length, checksum, b"".join(after))
        last = part
        after.clear()


def _ended(recipe: _Recipe) -> Iterator[bytes | _Payload | None]:
    yield from recipe
    yield None


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
