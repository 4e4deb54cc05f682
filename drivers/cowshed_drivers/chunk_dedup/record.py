"""Record: one object of a file system as the store holds it, a plain tuple for speed.

    (kind, flags, mode, uid, gid, mtime_ns, size, tail)

Everything but ``tail`` has a fixed width on disk. The tail's last part is the *payload*, whose
meaning depends on kind and form: a directory's node digest, a symbolic link's target, a device
number, a file's bytes, chunk digest or list digest. Extras stand before it and are rare, so that
the common record is read without looking into its tail:

    [inode u64, links u32]  [mtime, 16 bytes]  [length u32, xattrs]  payload

A record of a file with several names is written in full at each of them, with its inode number;
``links.py`` keeps the names of each number. So reading, comparing and hashing never need a table.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

from cowshed.entry import NO_XATTRS, Entry, Kind

Record: TypeAlias = tuple[int, int, int, int, int, int, int, bytes]

FILE, DIRECTORY, SYMLINK, FIFO, CHAR, BLOCK = range(6)
KINDS = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO, Kind.CHAR, Kind.BLOCK)
NUMBERS = {kind: number for number, kind in enumerate(KINDS)}

#: How a file's content is held. HOLE: nothing but zeros, and the form of an empty file.
FORM = 0x07
HOLE, INLINE, CHUNK, LIST = range(4)

LINKED = 0x08
XATTRS = 0x10
#: The modification time is outside of what 64 bits of nanoseconds hold (1677 to 2262).
WIDE = 0x20
EXTRAS = LINKED | XATTRS | WIDE

#: kind, flags, mode, uid, gid, mtime_ns, size, length of the tail
FIXED = struct.Struct("<BBHIIqQI")
_IDENTITY = struct.Struct("<QI")
_LENGTH = struct.Struct("<I")
_XATTR = struct.Struct("<HI")
_WIDE_BYTES = 16

#: Labels belong to the host that runs a container, so an image never brings one.
DROPPED_XATTRS = frozenset({"security.selinux"})


#: Bytes of a tail that count as much as everything else.
_LONG = 256


def weight(record: Record) -> int:
    """Return how much memory a record takes, in units of some 300 bytes."""
    return 1 + len(record[7]) // _LONG


def split(record: Record) -> tuple[int, int, int, Mapping[str, bytes], bytes]:
    """Return a record's (inode, links, mtime_ns, xattrs, payload)."""
    flags, mtime, tail = record[1], record[5], record[7]
    inode, links, at = 0, 1, 0
    xattrs: Mapping[str, bytes] = NO_XATTRS
    if flags & LINKED:
        inode, links = _IDENTITY.unpack_from(tail, 0)
        at = _IDENTITY.size
    if flags & WIDE:
        mtime = int.from_bytes(tail[at : at + _WIDE_BYTES], "little", signed=True)
        at += _WIDE_BYTES
    if flags & XATTRS:
        (length,) = _LENGTH.unpack_from(tail, at)
        at += _LENGTH.size
        xattrs = _unpack_xattrs(tail[at : at + length])
        at += length
    return inode, links, mtime, xattrs, tail[at:]


def payload(record: Record) -> bytes:
    """Return what the record's kind and form say it holds."""
    return split(record)[4] if record[1] & EXTRAS else record[7]


def inode_of(record: Record) -> int:
    """Return the number that all names of one file share; 0 for a file with one name."""
    if not record[1] & LINKED:
        return 0
    inode: int = _IDENTITY.unpack_from(record[7])[0]
    return inode


def make(
    kind: int,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    size: int = 0,
    form: int = 0,
    payload: bytes = b"",
    xattrs: Mapping[str, bytes] = NO_XATTRS,
    inode: int = 0,
    links: int = 1,
) -> Record:
    """Put a record together. ``inode`` is ignored unless there are several ``links``."""
    flags, tail = form, payload
    if xattrs:
        block = _pack_xattrs(xattrs)
        if block:
            flags |= XATTRS
            tail = _LENGTH.pack(len(block)) + block + tail
    if not -(1 << 63) <= mtime_ns < 1 << 63:
        flags |= WIDE
        tail = mtime_ns.to_bytes(_WIDE_BYTES, "little", signed=True) + tail
        mtime_ns = 0
    if links > 1:
        flags |= LINKED
        tail = _IDENTITY.pack(inode, links) + tail
    return (kind, flags, mode, uid, gid, mtime_ns, size, tail)


def change(record: Record, **changed: object) -> Record:
    """Return the record with some of ``make``'s arguments replaced."""
    inode, links, mtime_ns, xattrs, content = split(record)
    values: dict[str, object] = {
        "mode": record[2],
        "uid": record[3],
        "gid": record[4],
        "mtime_ns": mtime_ns,
        "size": record[6],
        "form": record[1] & FORM,
        "payload": content,
        "xattrs": xattrs,
        "inode": inode,
        "links": links,
    }
    values.update(changed)
    return make(record[0], **values)  # type: ignore[arg-type]  # the names are make's own


def with_payload(record: Record, content: bytes) -> Record:
    """Return the record with another payload; the quick way for directories' digests."""
    if record[1] & EXTRAS:
        return change(record, payload=content)
    return (*record[:7], content)


def from_entry(entry: Entry, *, size: int = 0, form: int = 0, content: bytes = b"") -> Record:
    """Return the record of a new object: for a FILE with the content given as form and payload."""
    kind = entry.kind
    if kind is Kind.SYMLINK:
        content = entry.target.encode("utf-8", "surrogateescape")
    elif kind is Kind.CHAR or kind is Kind.BLOCK:
        content = entry.rdev.to_bytes(8, "little")
    xattrs = entry.xattrs
    mtime = entry.mtime_ns
    mode = 0o777 if kind is Kind.SYMLINK else entry.mode
    if xattrs or not -(1 << 63) <= mtime < 1 << 63:
        return make(
            NUMBERS[kind],
            mode=mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=mtime,
            size=size,
            form=form,
            payload=content,
            xattrs=xattrs,
        )
    return (NUMBERS[kind], form, mode, entry.uid, entry.gid, mtime, size, content)


def to_entry(path: str, record: Record) -> Entry:
    """Describe the object at ``path``."""
    kind, flags, mode, uid, gid, mtime, size, content = record
    if not kind and not flags & EXTRAS:
        return Entry(
            path=path, kind=Kind.FILE, mode=mode, uid=uid, gid=gid, mtime_ns=mtime, size=size
        )
    inode, links, mtime, xattrs, content = split(record)
    return Entry(
        path=path,
        kind=KINDS[kind],
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=mtime,
        size=size,
        target=content.decode("utf-8", "surrogateescape") if kind == SYMLINK else "",
        rdev=int.from_bytes(content, "little") if kind in (CHAR, BLOCK) else 0,
        xattrs=xattrs,
        inode=inode,
        links=links,
    )


def same_object(one: Record, other: Record) -> bool:
    """Say whether two records differ in nothing but identity: their inode number and links."""
    if one == other:
        return True
    if not (one[1] | other[1]) & LINKED:
        return False
    return one[2:7] == other[2:7] and one[0] == other[0] and _bare(one) == _bare(other)


def _bare(record: Record) -> tuple[int, bytes]:
    flags, tail = record[1], record[7]
    return (flags & ~LINKED, tail[_IDENTITY.size :]) if flags & LINKED else (flags, tail)


def _pack_xattrs(xattrs: Mapping[str, bytes]) -> bytes:
    parts: list[bytes] = []
    for name, value in sorted(
        (name.encode("utf-8", "surrogateescape"), value)
        for name, value in xattrs.items()
        if name not in DROPPED_XATTRS
    ):
        parts += (_XATTR.pack(len(name), len(value)), name, value)
    return b"".join(parts)


def _unpack_xattrs(block: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    while at < len(block):
        name, value = _XATTR.unpack_from(block, at)
        at += _XATTR.size
        key = block[at : at + name].decode("utf-8", "surrogateescape")
        at += name
        found[key] = block[at : at + value]
        at += value
    return found
