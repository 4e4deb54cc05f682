"""Tar-split: what a tar holds besides file contents, as lines of JSON (vbatts/tar-split).

A line is a segment of literal bytes (type 2, base64) or stands for a file's content (type 1, with
its name, size and CRC-64, ISO 3309's). zstd:chunked layers carry it so that their tar can be put
together again from files; it is to other tools what a recipe is here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, cast

from ...errors import ArchiveError
from ..limits import Limits

_FILE, _SEGMENT = 1, 2
#: Bytes of a line: writers make segments of at most 1 MiB and one extended header.
_MAX_LINE = 4 << 20
_READ = 256 << 10


def read_tar_split(lines: BinaryIO, limits: Limits) -> Iterator[bytes | int]:
    """Yield literal bytes, and for every file that has content its size.

    Raises:
        ArchiveError: it is no tar-split data.
    """
    most = _MAX_LINE + 2 * limits.header
    rest = b""
    while data := lines.read(_READ):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield from _read_line(line)
        if len(rest) > most:
            raise limits.exceeded("header", "a line of tar-split data")
    yield from _read_line(rest)


def _read_line(line: bytes) -> Iterator[bytes | int]:
    if not line:
        return
    try:
        fields: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(str(error)[:80]) from None
    if not isinstance(fields, dict):
        raise _wrong("a line that is no object")
    entry = cast("dict[str, Any]", fields)
    kind, payload, size = entry.get("type"), entry.get("payload"), entry.get("size") or 0
    if kind == _SEGMENT and isinstance(payload, str):
        try:
            yield binascii.a2b_base64(payload)
        except ValueError as error:
            raise _wrong(str(error)) from None
    elif kind == _FILE and isinstance(size, int) and size >= 0:
        if size:
            yield size
    else:
        raise _wrong("an entry of unknown type")


def _wrong(what: str) -> ArchiveError:
    return ArchiveError(f"the layer's tar-split data is malformed ({what})")


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class TarSplitWriter:
    """Writes the lines."""

    def __init__(self, out: _Writable) -> None:
        self._out = out
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Note bytes that stand in the tar as they are: no more than one member's headers."""
        if data:
            self._line({"type": _SEGMENT, "payload": base64.b64encode(data).decode()})

    def file(self, name: str, size: int, checksum: bytes | None) -> None:
        """Note a member, with content or without; ``checksum`` is of the content."""
        payload = None if checksum is None else base64.b64encode(checksum).decode()
        entry: dict[str, object] = {"type": _FILE, "name": name, "payload": payload}
        if size:
            entry["size"] = size
        self._line(entry)

    def _line(self, entry: dict[str, object]) -> None:
        entry["position"] = self._position
        self._position += 1
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        self._out.write(text.encode() + b"\n")
