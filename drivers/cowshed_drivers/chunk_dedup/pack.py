"""Pack files: groups of objects end to end, each describing itself.

    pack   "CWPACK01"  then groups and notes, in any order
    group  "CWGR"  count u32, frame length u32, raw length u32, CRC-32 of the table
           table: (length u32, SHA-256) × count
           one zstd frame of the objects end to end
    note   "CWNT"  0, length u32, 0, CRC-32 of the body
           body: which layer or container stood on which root when the pack was written

Nothing in a pack changes after it is published. Scanning headers rebuilds the index: objects from
groups, layers and containers from notes. A damaged byte costs the objects of one group.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from zlib import crc32

import attrs

MAGIC = b"CWPACK01"
_GROUP = b"CWGR"
_NOTE = b"CWNT"
_HEAD = struct.Struct("<4sIIII")
_ROW = struct.Struct("<I32s")
_NOTE_BODY = struct.Struct("<BQ32sHH")

#: Longest header that a scan believes; a group of nothing but one-byte files stays below it.
_LONGEST_TABLE = 64 << 20

HEAD_BYTES = _HEAD.size
ROW_BYTES = _ROW.size


class DamagedError(Exception):
    """Stored bytes are missing or aren't what was stored; callers add whose they are."""


@attrs.frozen
class Slot:
    """Where one object of a group lies: offset and length in the raw bytes."""

    digest: bytes
    offset: int
    length: int


@attrs.frozen
class Group:
    """One group of a pack, as its header describes it."""

    #: Where the zstd frame begins in the pack, and its length.
    offset: int
    length: int
    raw_length: int
    slots: tuple[Slot, ...]

    def share(self, slot: Slot) -> int:
        """Return the bytes on disk that ``slot`` stands for."""
        return share_of(slot.offset, slot.length, self.length, self.raw_length)


@attrs.frozen
class Note:
    """Who stood on which root; the later ``serial`` counts."""

    held: int
    serial: int
    root: bytes
    id: str
    parent: str | None


def share_of(offset: int, length: int, frame: int, raw: int) -> int:
    """Return an object's share of its frame and header; a group's shares add up to its size."""
    end = offset + length
    header = ROW_BYTES if offset else ROW_BYTES + HEAD_BYTES
    return end * frame // raw - offset * frame // raw + header


def group_header(objects: list[tuple[bytes, int]], frame: int) -> bytes:
    """Return what stands before a frame that holds ``objects`` (digest, length)."""
    table = b"".join([_ROW.pack(length, digest) for digest, length in objects])
    raw = sum(length for _, length in objects)
    return _HEAD.pack(_GROUP, len(objects), frame, raw, crc32(table)) + table


def encode_note(note: Note) -> bytes:
    """Return a note as a pack holds it."""
    name = note.id.encode("utf-8", "surrogateescape")
    parent = b"" if note.parent is None else note.parent.encode("utf-8", "surrogateescape")
    body = _NOTE_BODY.pack(note.held, note.serial, note.root, len(name), len(parent))
    body += name + parent
    return _HEAD.pack(_NOTE, 0, len(body), 0, crc32(body)) + body


def _decode_note(body: bytes) -> Note:
    held, serial, root, name_length, parent_length = _NOTE_BODY.unpack_from(body)
    at = _NOTE_BODY.size
    name = body[at : at + name_length].decode("utf-8", "surrogateescape")
    parent = body[at + name_length : at + name_length + parent_length]
    return Note(held, serial, root, name, parent.decode("utf-8", "surrogateescape") or None)


def scan(path: str) -> Iterator[Group | Note]:
    """Yield what a pack holds, reading headers only.

    Raises:
        DamagedError: a header is damaged. What came before it was good; what comes after is found
            by looking for the next header that is whole.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    damaged = ""
    try:
        size = os.fstat(descriptor).st_size
        at = len(MAGIC)
        if os.pread(descriptor, at, 0) != MAGIC:
            damaged = "not a pack of a format this version reads"
        while at < size:
            found = _read_header(descriptor, at, size)
            if found is None:
                damaged = damaged or f"header at {at} is damaged"
                following = _resynchronise(descriptor, at + 1, size)
                if following is None:
                    break
                at = following
                continue
            part, at = found
            yield part
    finally:
        os.close(descriptor)
    if damaged:
        raise DamagedError(damaged)


def _read_header(descriptor: int, at: int, size: int) -> tuple[Group | Note, int] | None:
    head = os.pread(descriptor, _HEAD.size, at)
    if len(head) < _HEAD.size:
        return None
    magic, count, length, raw, check = _HEAD.unpack(head)
    at += _HEAD.size
    if magic == _NOTE:
        body = os.pread(descriptor, length, at) if at + length <= size else b""
        if crc32(body) != check or len(body) < _NOTE_BODY.size:
            return None
        return _decode_note(body), at + length
    span = count * _ROW.size
    if magic != _GROUP or span > _LONGEST_TABLE or at + span + length > size:
        return None
    table = os.pread(descriptor, span, at)
    if len(table) != span or crc32(table) != check:
        return None
    slots: list[Slot] = []
    offset = 0
    for item, digest in _ROW.iter_unpack(table):
        slots.append(Slot(digest, offset, item))
        offset += item
    return Group(at + span, length, raw, tuple(slots)), at + span + length


def _resynchronise(descriptor: int, at: int, size: int) -> int | None:
    step = 1 << 20
    while at < size:
        window = os.pread(descriptor, step + len(_GROUP) - 1, at)
        start = 0
        while True:
            hits = [
                hit for hit in (window.find(_GROUP, start), window.find(_NOTE, start)) if hit >= 0
            ]
            if not hits:
                break
            if _read_header(descriptor, at + min(hits), size) is not None:
                return at + min(hits)
            start = min(hits) + 1
        at += step
    return None
