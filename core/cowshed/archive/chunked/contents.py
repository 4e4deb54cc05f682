"""Contents: what a table of contents says of a layer's blob: which bytes of it hold which file.

zstd:chunked and eStargz have the same table in JSON, with ``entries`` in the order of the tar: one
for every member and, for files in several chunks, a further one of type ``chunk`` for each but the
first. Only what says where the content of regular files lies is kept of it. Names, modes and
owners are read from the tar's own headers, as with every layer, so a table can't say otherwise.

A table is a claim by a stranger. Here it is bounded and has to be consistent in itself; whether it
is true shows when every content taken or fetched is hashed, and at last in the layer's diff ID.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import attrs

from ...errors import ArchiveError
from ..limits import Limits

#: Bytes of a table's JSON. 20,000 entries make 5 MB of ours, and 10 MB of Podman's.
MAX_TABLE = 32 << 20
#: Bytes of it for each object or list; entries as short as can be have 40. What is parsed takes 26
#: times the memory of a table of empty lists, and 15 times that of anything else.
_DENSEST = 16
#: One at a time is parsed, so that several can't take that much at once.
_PARSING = threading.Lock()
_TYPES = frozenset({"reg", "dir", "symlink", "hardlink", "char", "block", "fifo", "chunk"})
_NO_DIGEST = b""


@attrs.frozen
class Piece:
    """A part of a file's content, and where it lies in the blob, compressed for itself."""

    #: Where in the file it begins.
    offset: int
    size: int
    #: SHA-256 of the content; empty for zeros.
    digest: bytes
    #: Bytes of the blob that unpack to it.
    start: int
    end: int
    #: Zeros, which nobody needs to fetch.
    hole: bool = False
    #: What unpacks goes on with headers of the tar behind the content.
    tail: bool = False


@attrs.frozen
class FileContent:
    """One regular file that has content."""

    #: As the tar has it; never a path to follow.
    name: str
    size: int
    #: SHA-256 of all of it; empty where the table has none.
    digest: bytes
    pieces: Sequence[Piece]


@attrs.frozen
class Contents:
    """Every content in a blob, in the order of the tar."""

    files: Sequence[FileContent]
    #: Where the blob holds nothing of the tar any more.
    end: int

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces of all files, which is the order of the blob, too."""
        for file in self.files:
            yield from file.pieces

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the blob between pieces: headers, padding, the end of the tar."""
        at = 0
        for piece in self.pieces():
            if at < piece.start:
                yield at, piece.start
            at = piece.end
        if at < self.end:
            yield at, self.end


#: (type, name, size, digest, offset, end, chunk offset, chunk size, chunk digest, chunk type)
_Row = tuple[str, str, int, bytes, int, int, int, int, bytes, str]


def read_contents(raw: bytes, files_end: int, end: int, limits: Limits, *, tails: bool) -> Contents:
    """Read a table's JSON.

    ``files_end``: where in the blob no file lies any more; ``end``: nor anything else of the tar.
    ``tails``: a compressed piece goes on with what lies behind it in the tar, as in eStargz.

    Raises:
        ArchiveError: it isn't a table, or not one that can be true.
        LimitExceededError: it has more entries than a layer may have.
    """
    with _PARSING:
        rows = _rows(raw, limits)
    return Contents(_files(rows, files_end, limits, tails), end)


def _rows(raw: bytes, limits: Limits) -> list[_Row]:
    rows: list[_Row] = []
    if (raw.count(b"[") + raw.count(b"{")) * _DENSEST > len(raw) + 1024:
        raise _wrong("consists of brackets")
    try:
        top: object = json.loads(raw, object_hook=_hook(rows, limits))
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is no JSON ({str(error)[:80]})") from None
    if not isinstance(top, dict) or cast("dict[str, Any]", top).get("version") != 1:
        raise _wrong("isn't of version 1")
    entries = cast("dict[str, Any]", top).get("entries")
    if not isinstance(entries, list) or len(cast("list[object]", entries)) != len(rows):
        raise _wrong("has no list of entries")
    return rows


def _hook(rows: list[_Row], limits: Limits) -> Callable[[dict[str, Any]], object]:
    """Return what turns an entry into a row as soon as it is parsed: a tenth of the memory."""

    def hook(fields: dict[str, Any]) -> object:
        kind = fields.get("type")
        if not isinstance(kind, str):
            return fields
        if kind not in _TYPES:
            raise _wrong(f"has an entry of unknown type {kind[:40]!r}")
        name = fields.get("name")
        if not isinstance(name, str):
            raise _wrong("has an entry without a name")
        if fields.get("innerOffset"):
            raise _wrong("puts several files into one compressed stream, which isn't read in part")
        rows.append(
            (
                kind,
                name,
                _number(fields, "size"),
                _digest(fields, "digest"),
                _number(fields, "offset"),
                _number(fields, "endOffset"),
                _number(fields, "chunkOffset"),
                _number(fields, "chunkSize"),
                _digest(fields, "chunkDigest"),
                str(fields.get("chunkType") or ""),
            )
        )
        if len(rows) > limits.entries:
            raise limits.exceeded("entries", "number of entries in a table of contents")
        return None

    return hook


def _number(fields: dict[str, Any], key: str) -> int:
    value = fields.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise _wrong(f"has a malformed {key}")
    return value


def _digest(fields: dict[str, Any], key: str) -> bytes:
    value = fields.get(key)
    if not value:
        return _NO_DIGEST
    if isinstance(value, str) and len(value) == 71 and value.startswith("sha256:"):
        try:
            return bytes.fromhex(value[7:])
        except ValueError:
            pass
    raise _wrong(f"has a {key} that is no SHA-256")


def _files(rows: list[_Row], end: int, limits: Limits, tails: bool) -> list[FileContent]:
    files: list[FileContent] = []
    #: Files with their rows: the first one's, then those of its further chunks.
    group: list[_Row] = []
    groups: list[list[_Row]] = []
    for row in rows:
        if row[0] == "chunk":
            if not group or group[0][1] != row[1]:
                raise _wrong("has a chunk of no file")
            group.append(row)
            continue
        group = []
        if row[0] == "reg" and row[2]:
            group.append(row)
            groups.append(group)
    total = at = 0
    for number, group in enumerate(groups):
        following = groups[number + 1][0][4] if number + 1 < len(groups) else end
        made = _file(group, following, tails)
        total += made.size
        if total > limits.bytes:
            raise limits.exceeded("bytes", "content of layer, as its table of contents has it,")
        for piece in made.pieces:
            if not at <= piece.start < piece.end <= end:
                raise _wrong(f"has overlapping or impossible places ({piece.start:,})")
            at = piece.end
        files.append(made)
    return files


def _file(group: list[_Row], following: int, tails: bool) -> FileContent:
    _, name, size, digest, _, end, *_ = group[0]
    pieces: list[Piece] = []
    at = 0
    for number, row in enumerate(group):
        last = number + 1 == len(group)
        length = row[7] or (size - row[6] if last else 0)
        own = row[8] or (digest if len(group) == 1 else _NO_DIGEST)
        hole = row[9] == "zeros"
        if row[6] != at or not 0 < length <= size - at:
            raise _wrong("has chunks that don't make up their file")
        if row[9] not in ("", "zeros") or not own:
            raise _wrong("has a file without a digest")
        behind = (following if tails or not end else end) if last else group[number + 1][4]
        pieces.append(Piece(at, length, own, row[4], behind, hole, tails and last))
        at += length
    if at != size:
        raise _wrong("has chunks that don't make up their file")
    if not digest and len(pieces) == 1:
        digest = pieces[0].digest
    return FileContent(name, size, digest, tuple(pieces))


def _wrong(what: str) -> ArchiveError:
    return ArchiveError(f"the layer's table of contents {what}")
