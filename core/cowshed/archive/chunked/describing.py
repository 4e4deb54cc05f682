"""Describing: a member of a tar as an entry of a zstd:chunked table has it.

Other tools compare the entry with the tar's own header, as Go's archive/tar reads it, field for
field, and refuse the whole image where they differ. So what they may read otherwise than we do is
not described at all: a layer with such a member is written without a table.
"""

from __future__ import annotations

import base64
import time

from ...entry import Kind
from ..pax import XATTR
from ..reader import Member

_TYPES = {
    Kind.FILE: "reg",
    Kind.DIRECTORY: "dir",
    Kind.SYMLINK: "symlink",
    Kind.HARDLINK: "hardlink",
    Kind.CHAR: "char",
    Kind.BLOCK: "block",
    Kind.FIFO: "fifo",
}
_FLAGS = b"0123456"
_MAX_YEARS = 253_402_300_800 * 10**9


def describe(member: Member) -> dict[str, object] | None:
    """Return the entry, without what it says of content; None: better none."""
    header, pax = member.header, member.pax
    block = header.block
    if (
        header.flag not in _FLAGS
        or member.runs is not None
        or any(key.startswith(b"GNU.") for key in pax)
        or (member.kind is not Kind.FILE and (header.size or b"size" in pax))
        or (header.gnu and block[345:500].strip(b"\0"))  # access and change times, sparse maps
        or block[257:262] != b"ustar"
        or (header.flag not in b"34" and block[329:345].strip(b"\0 0"))
        or not 0 <= member.mtime_ns < _MAX_YEARS
    ):
        return None
    try:
        for text in (member.name, member.target):
            text.encode()
        entry: dict[str, object] = {"type": _TYPES[member.kind], "name": member.name}
        link = member.target or header.link.decode()
        if link:
            entry["linkName"] = link
        xattrs = {
            key[len(XATTR) :].decode(): base64.b64encode(value).decode()
            for key, value in pax.items()
            if key.startswith(XATTR)
        }
        times = {
            key: _time(pax[name])
            for key, name in (("accesstime", b"atime"), ("changetime", b"ctime"))
            if name in pax
        }
    except ValueError:  # what is no UTF-8 is no JSON, and no time is no time
        return None
    numbers: dict[str, object] = {
        "mode": header.mode,
        "size": member.size,
        "uid": member.uid,
        "gid": member.gid,
        "devMajor": member.major,
        "devMinor": member.minor,
    }
    entry |= {key: value for key, value in numbers.items() if value}
    if member.mtime_ns:
        entry["modtime"] = _text(member.mtime_ns)
    entry |= {key: _text(value) for key, value in times.items() if value}
    if xattrs:
        entry["xattrs"] = xattrs
    return entry


def _time(value: bytes) -> int:
    from ..pax import read_time

    found = read_time(value)
    if not 0 <= found < _MAX_YEARS:
        raise ValueError("a time out of range")
    return found


def _text(nanoseconds: int) -> str:
    """Return a time in RFC 3339 with as many digits as it takes."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{rest:09}".rstrip("0") + "Z" if rest else f"{text}Z"
