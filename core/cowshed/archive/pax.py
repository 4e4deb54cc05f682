"""Pax: extended header records ⇄ a mapping, and the values they hold.

POSIX pax, "pax Extended Header": each record is ``LENGTH KEYWORD=VALUE\\n``. Everything stays bytes
here: with ``hdrcharset=BINARY`` and with xattrs, values are no text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .header import damaged

XATTR = b"SCHILY.xattr."
_SPARSE_OFFSET = b"GNU.sparse.offset"
_SPARSE_LENGTH = b"GNU.sparse.numbytes"
#: Where the runs of sparse format 0.0, which repeats keywords, are gathered, as format 0.1 does.
SPARSE_MAP = b"GNU.sparse.map"

_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_INT64 = 2**63


def read_records(data: bytes, offset: int) -> dict[bytes, bytes]:
    """Read the content of an extended header; an empty value leaves the ustar field in force.

    An empty extended attribute is one, though: GNU tar writes them so.

    Raises:
        ArchiveError: a length doesn't fit, or a record isn't one.
    """
    records: dict[bytes, bytes] = {}
    runs: list[bytes] = []
    at = 0
    end_of_data = len(data)
    while at < end_of_data:
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space + 1, end)
        if end > end_of_data or equals <= space + 1 or data[end - 1] != 0x0A:
            raise damaged("a malformed extended header", offset + at)
        key = data[space + 1 : equals]
        value = data[equals + 1 : end - 1]
        if key in (_SPARSE_OFFSET, _SPARSE_LENGTH):
            if (len(runs) % 2 == 0) != (key == _SPARSE_OFFSET) or not value.isdigit():
                raise damaged("a malformed sparse map", offset + at)
            runs.append(value)
        elif value or key.startswith(XATTR):
            if b"\0" in value and not key.startswith(XATTR):
                raise damaged(f"a NUL byte in {key.decode(errors='replace')!r}", offset + at)
            records[key] = value
        else:
            records.pop(key, None)
        at = end
    if runs:
        records[SPARSE_MAP] = b",".join(runs)
    return records


def write_records(records: Mapping[bytes, bytes]) -> bytes:
    """Compose the content of an extended header, in the mapping's order."""
    lines: list[bytes] = []
    for key, value in records.items():
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        if len(str(length)) > len(str(rest)):
            length = rest + len(str(length))
        lines.append(b"%d %b=%b\n" % (length, key, value))
    return b"".join(lines)


def read_time(value: bytes) -> int:
    """Read decimal seconds as nanoseconds, digits beyond them cut; ValueError if it is none."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError("not a time")
    sign, seconds, fraction = match.groups()
    nanoseconds = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    return bound_time(-nanoseconds if sign else nanoseconds)


def write_time(mtime_ns: int) -> bytes:
    """Write nanoseconds as decimal seconds, exactly."""
    sign = b"-" if mtime_ns < 0 else b""
    seconds, nanoseconds = divmod(abs(mtime_ns), 10**9)
    if not nanoseconds:
        return b"%b%d" % (sign, seconds)
    return b"%b%d.%b" % (sign, seconds, (b"%09d" % nanoseconds).rstrip(b"0"))


def bound_time(mtime_ns: int) -> int:
    """Bring a time into what 64 bits of nanoseconds hold: the years 1677 to 2262."""
    return max(-_INT64, min(_INT64 - 1, mtime_ns))


def read_decimal(value: bytes) -> int:
    """Read an unsigned decimal of up to 19 digits; ValueError for anything else."""
    if not value.isdigit() or len(value) > 19:
        raise ValueError("not a number")
    return int(value)
