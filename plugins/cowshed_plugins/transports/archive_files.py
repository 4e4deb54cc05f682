"""ArchiveFiles: a layout or archive in a tar, read in place.

Headers are walked once, contents are read from their offsets. Nothing is ever extracted, so a
member's name is only a key here, never a path.
"""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

import attrs

from cowshed.archive.header import BLOCK, ZERO_BLOCK, read_header
from cowshed.archive.pax import read_decimal, read_records
from cowshed.errors import ArchiveError, LimitExceededError, UnsupportedError

from .compression import decompressed, sniff
from .files import Files, Slice, open_file, spool

#: Members of one archive: 1,000 images of 100 layers with three files each, and room to spare.
MAX_MEMBERS = 500_000
#: Bytes of one long name or extended header.
MAX_EXTENDED = 1 << 20
MAX_LINKS = 40
#: Documents that decide what an archive means: there must be no choice between two of them.
_UNIQUE = frozenset({"oci-layout", "index.json", "manifest.json"})


@attrs.frozen
class _Member:
    offset: int
    size: int


class ArchiveFiles(Files):
    """Files in a plain, seekable tar, which is closed together with this."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self.where = where
        self._members: dict[str, _Member] = {}
        self._links: dict[str, str] = {}
        try:
            self._index()
        except BaseException:
            file.close()
            raise

    def size(self, name: str) -> int | None:
        member = self._find(name)
        return None if member is None else member.size

    def open(self, name: str) -> BinaryIO:
        member = self._find(name)
        if member is None:
            raise self.missing(name)
        return io.BufferedReader(Slice(self._file, member.offset, member.size), 1 << 18)

    def close(self) -> None:
        self._file.close()

    def _find(self, name: str) -> _Member | None:
        """Look a member up through links inside the archive, as old ``docker save`` made them."""
        name = self._key(name)
        for _ in range(MAX_LINKS):
            if name in self._members:
                return self._members[name]
            if name not in self._links:
                return None
            name = self._links[name]
        raise ArchiveError(f"{self.where}: links lead in a circle")

    def _key(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ArchiveError(f"{self.where}: name {name!r} leads outside")
        return "/".join(parts)

    def _index(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        offset = 0
        count = 0
        long_name: bytes | None = None
        long_link: bytes | None = None
        pax: dict[bytes, bytes] = {}
        while offset < end:
            block = self._at(offset, BLOCK)
            if block == ZERO_BLOCK:
                break
            header = read_header(block, offset)
            offset += BLOCK
            count += 1
            if count > MAX_MEMBERS:
                raise LimitExceededError(f"the number of members of {self.where}", MAX_MEMBERS)
            size = header.size
            if header.flag in b"LKxg":
                if not 0 <= size <= MAX_EXTENDED:
                    raise LimitExceededError(f"an extended header in {self.where}", MAX_EXTENDED)
                data = self._at(offset, size)
                if header.flag == b"L":
                    long_name = data.split(b"\0", 1)[0]
                elif header.flag == b"K":
                    long_link = data.split(b"\0", 1)[0]
                elif header.flag == b"x":
                    pax = read_records(data, offset)
                offset += _padded(size)
                continue
            if header.flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
                raise UnsupportedError(f"{self.where} has sparse members")
            if b"size" in pax:
                try:
                    size = read_decimal(pax[b"size"])
                except ValueError:
                    raise ArchiveError(f"{self.where} has a member of invalid size") from None
            if header.flag not in b"0\0" + b"7":
                size = 0
            name = os.fsdecode(pax.get(b"path", header.name if long_name is None else long_name))
            link = os.fsdecode(
                pax.get(b"linkpath", header.link if long_link is None else long_link)
            )
            long_name = long_link = None
            pax = {}
            if size < 0 or offset + size > end:
                raise ArchiveError(f"{self.where} is truncated in {name!r}")
            self._add(header.flag, name, link, offset, size)
            offset += _padded(size)
        if not count:
            raise ArchiveError(f"{self.where} is empty or not a tar")

    def _add(self, flag: bytes, name: str, link: str, offset: int, size: int) -> None:
        key = self._key(name)
        if key in _UNIQUE and (key in self._members or key in self._links):
            raise ArchiveError(f"{self.where} is ambiguous: it has two files {key!r}")
        # Of two members with one name the later counts, as for who would extract them.
        self._members.pop(key, None)
        self._links.pop(key, None)
        if flag == b"2":
            target = _resolve(key, link)
            if target is None:
                raise ArchiveError(f"{self.where}: link {name!r} leads outside")
            self._links[key] = target
        elif flag == b"1":
            self._links[key] = self._key(link)
        elif flag in b"0\0" + b"7" and not name.endswith("/"):
            self._members[key] = _Member(offset, size)

    def _at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise ArchiveError(f"{self.where} is truncated")
        return data


def open_archive(path: str) -> ArchiveFiles:
    """Open a tar, compressed or not; ``-`` is standard input.

    What can't be read in place is first unpacked to a temporary file without a name.
    """
    where = "standard input" if path == "-" else path
    if path == "-":
        file: BinaryIO = spool(sys.stdin.buffer, where)
    else:
        file = open_file(path)
    compression = sniff(os.pread(file.fileno(), BLOCK, 0))
    if compression != "none":
        size = os.fstat(file.fileno()).st_size
        with file, decompressed(file, compression) as plain:
            return ArchiveFiles(spool(plain, where, size), where)
    return ArchiveFiles(file, where)


def _resolve(link: str, target: str) -> str | None:
    """Return what a symbolic link in an archive points at; None if that is outside."""
    if target.startswith("/"):
        return None
    parts = link.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
