"""Header: one 512-byte block of a tar as fields, and fields as a block.

Formats: V7, POSIX ustar (pax, "ustar Interchange Format"), GNU (GNU tar manual, "Basic Tar
Format") with numbers in base 256, and star's. Where readers disagree about a damaged or ambiguous
block we read it as Go's archive/tar does, because that is what every registry and runtime uses:
an image must unpack to the same tree everywhere (CVE-2025-62518 shows what comes of two readings).
"""

from __future__ import annotations

import functools
import struct

from ..errors import ArchiveError

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
#: Largest uid and gid; 2**32 - 1 means "leave it" to chown(2).
MAX_ID = 2**32 - 2

_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
_MAX_INT64 = 2**63 - 1


class Header:
    """The fields of one block. A plain class: a million of them are made."""

    __slots__ = (
        "block",
        "flag",
        "gid",
        "gnu",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "uid",
    )

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    flag: bytes
    link: bytes
    major: int
    minor: int
    gnu: bool
    block: bytes


def damaged(what: str, offset: int) -> ArchiveError:
    """Return the error for something unreadable at ``offset`` of the tar."""
    return ArchiveError(f"layer tar is damaged: {what} at byte {offset:,}")


def read_number(field: bytes) -> int:
    """Read an octal or base-256 number; ValueError for anything else.

    ``int(field, 8)`` alone would take signs, underscores and ``0o``.
    """
    if field[-1] in b" \0" and (digits := field[:-1]).isdigit():  # what nearly all writers write
        return int(digits, 8)
    first = field[0]
    if first & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        if first & 0x40:
            value -= 1 << bits
        if not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
            raise ValueError("number beyond 64 bits")
        return value
    digits = field.strip(b" \0")
    if b"\0" in digits:
        digits = digits[: digits.index(b"\0")]
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError("number with strange characters")
    return int(digits, 8)


#: Modes and owners repeat, so they are remembered by their bytes.
_read_repeated = functools.lru_cache(1024)(read_number)


def read_header(block: bytes, offset: int) -> Header:
    """Take one block apart after checking its checksum.

    Raises:
        ArchiveError: the block isn't a tar header.
    """
    (name, mode, uid, gid, size, mtime, checksum, flag, link, magic, _, _, major, minor, prefix,
     _) = _LAYOUT.unpack(block)  # fmt: skip
    header = Header()
    try:
        expected = read_number(checksum)
        if expected != sum(block) - sum(checksum) + 8 * 0x20:
            _check_signed(block, checksum, expected)
        header.mode = _read_repeated(mode)
        header.uid = _read_repeated(uid)
        header.gid = _read_repeated(gid)
        header.size = read_number(size)
        header.mtime = read_number(mtime)
        if flag in b"34":
            header.major = read_number(major)
            header.minor = read_number(minor)
        else:
            header.major = header.minor = 0
    except ValueError as error:
        raise damaged(f"no tar header ({error})", offset) from None
    header.name = name if name[-1] and b"\0" not in name else name[: name.index(b"\0")]
    header.link = link[: link.index(b"\0")] if b"\0" in link else link
    header.flag = flag
    header.block = block
    header.gnu = magic == _GNU
    if prefix[0]:
        before = _read_prefix(block, magic, prefix)
        if before:
            header.name = before + b"/" + header.name
    return header


def _check_signed(block: bytes, checksum: bytes, expected: int) -> None:
    # Some historic tars summed signed chars; GNU tar and Go accept both.
    high = sum(1 for byte in block if byte & 0x80) - sum(1 for byte in checksum if byte & 0x80)
    if expected != sum(block) - sum(checksum) + 8 * 0x20 - 256 * high:
        raise ValueError("the checksum is wrong")


def _read_prefix(block: bytes, magic: bytes, prefix: bytes) -> bytes:
    if magic == _USTAR:
        if block[508:512] == b"tar\0":  # star: times stand where the prefix would end
            prefix = prefix[:131]
        return prefix.split(b"\0", 1)[0]
    if magic == _GNU:
        # Go before 1.8 wrote a ustar prefix under GNU's magic, and images of that time are
        # around: it is one if it can't be the times that GNU keeps in its place.
        try:
            read_number(prefix[:12])
            if prefix[12]:
                read_number(prefix[12:24])
        except ValueError:
            before = prefix.split(b"\0", 1)[0]
            return before if before.isascii() else b""
    return b""


def write_header(
    *,
    name: bytes,
    flag: bytes,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
    prefix: bytes = b"",
) -> bytes:
    """Compose a ustar block from values that fit (the caller has put the others into pax)."""
    block = _LAYOUT.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,
        flag,
        link,
        _USTAR,
        b"",
        b"",
        b"%07o\0" % major,
        b"%07o\0" % minor,
        prefix,
        b"",
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])
