"""Tables: where the table of contents of a blob lies, and how it is read from there.

zstd:chunked (containers/storage): every file's content is in frames of its own, the table and the
tar-split data in skippable frames at the end; annotations of the layer say where, and the digest of
the compressed table. What is between the contents (headers, padding) lies in frames between them,
or all together in the tar-split data.

eStargz (containerd): every file's content begins a gzip member, which goes on with the padding and
the headers behind it; the last file of the tar is the table, and 51 bytes at the end of the blob
say where that begins. An annotation has the digest of the table's JSON.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Literal, Protocol, cast

import attrs

from ...errors import ArchiveError
from ..compression import decompressor
from ..limits import Limits
from .contents import MAX_TABLE, Contents, read_contents
from .tar_split import read_tar_split

ZSTD = "io.github.containers.zstd-chunked."
#: As Podman wrote them before version 4.4.
OLD_ZSTD = "io.containers.zstd-chunked."
STARGZ_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
#: A table or tar-split data as it lies in the blob.
_MAX_PACKED = 32 << 20
#: Ends a blob in eStargz: an empty gzip member whose extra field says where the table begins.
_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\0SG\x16\0([0-9a-f]{16})STARGZ\x01\0\0\xff\xff\0{8}", re.DOTALL
)
FOOTER_SIZE = 51
_STARGZ_NAME = b"stargz.index.json"
#: What is asked for in one go at the end of a blob: the footer and, of most layers, the table.
_TAIL = 64 << 10

#: Gives the bytes of the blob between two offsets, all of them.
Fetch = Callable[[int, int], bytes]


class Table(Protocol):
    """How a blob's table is read; made from its descriptor alone."""

    @property
    def packed(self) -> Literal["gzip", "zstd"]:
        """The blob's compression."""
        ...

    def read(self, fetch: Fetch, limits: Limits) -> Contents:
        """Read the table.

        Raises:
            ArchiveError: it isn't what the annotations promise, or can't be true.
        """
        ...

    def between(self, limits: Limits) -> Iterator[bytes | int] | None:
        """Yield what is between the contents (see ``read_tar_split``); None: nobody knows yet."""
        ...


def table_of(annotations: Mapping[str, str], size: int) -> Table | None:
    """Return how the table of a blob of ``size`` bytes is read; None: it has none that is trusted.

    A layer with annotations of both formats has none: whom should one believe?
    """
    stargz = annotations.get(STARGZ_DIGEST, "")
    for prefix in (ZSTD, OLD_ZSTD):
        digest = annotations.get(f"{prefix}manifest-checksum", "")
        if digest and not stargz:
            return _zstd_table(annotations, prefix, digest, size)
    if not stargz or any(key.startswith((ZSTD, OLD_ZSTD)) for key in annotations):
        return None
    hex = _sha256(stargz)
    return _Stargz(hex, size) if hex and size > FOOTER_SIZE else None


def _zstd_table(
    annotations: Mapping[str, str], prefix: str, digest: str, size: int
) -> _ZstdChunked | None:
    hex = _sha256(digest)
    place = _numbers(annotations.get(f"{prefix}manifest-position", ""), 4)
    if hex is None or place is None or place[3] != 1:
        return None
    split = _numbers(annotations.get(f"{prefix}tarsplit-position", ""), 3)
    for one in (place, split):
        if one is not None and (
            one[0] + one[1] > size or one[1] > _MAX_PACKED or not one[0] or not one[1]
        ):
            return None
    if place[2] > MAX_TABLE:
        return None
    return _ZstdChunked(
        hex,
        (place[0], place[0] + place[1]),
        place[2],
        None if split is None else (split[0], split[0] + split[1]),
    )


def _sha256(digest: str) -> str | None:
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", digest)
    return None if match is None else match[1]


def _numbers(text: str, count: int) -> list[int] | None:
    if re.fullmatch(rf"[0-9]{{1,18}}(:[0-9]{{1,18}}){{{count - 1}}}", text) is None:
        return None
    return [int(number) for number in text.split(":")]


@attrs.define
class _ZstdChunked:
    digest: str
    place: tuple[int, int]
    plain: int
    split: tuple[int, int] | None
    packed: Literal["gzip", "zstd"] = "zstd"
    _split_data: bytes = b""

    def read(self, fetch: Fetch, limits: Limits) -> Contents:
        start, end = self.place
        low, high = start, end
        if self.split is not None and self.split[0] - end in range(1 << 10):
            high = self.split[1]  # they follow each other: one request brings both
        data = fetch(low, high)
        table = data[: end - start]
        if hashlib.sha256(table).hexdigest() != self.digest:
            raise ArchiveError("the layer's table of contents isn't the one of its digest")
        if self.split is not None:
            split = (
                data[self.split[0] - low : self.split[1] - low]
                if high > end
                else fetch(*self.split)
            )
            self._split_data = split
        # A skippable frame's header stands before it.
        body = start - 8
        return read_contents(_unpacked(table, self.plain), body, body, limits, tails=False)

    def between(self, limits: Limits) -> Iterator[bytes | int] | None:
        if not self._split_data:
            return None
        return read_tar_split(
            decompressor(cast(BinaryIO, io.BytesIO(self._split_data)), "zstd", limits=limits),
            limits,
        )


def _unpacked(packed: bytes, size: int) -> bytes:
    with decompressor(cast(BinaryIO, io.BytesIO(packed)), "zstd") as plain:
        data = plain.read(size + 1)
    if len(data) != size:
        raise ArchiveError("the layer's table of contents hasn't the size that it should have")
    return data


@attrs.define
class _Stargz:
    digest: str
    size: int
    packed: Literal["gzip", "zstd"] = "gzip"

    def read(self, fetch: Fetch, limits: Limits) -> Contents:
        at = max(0, self.size - _TAIL)
        tail = fetch(at, self.size)
        match = _FOOTER.fullmatch(tail[-FOOTER_SIZE:])
        start = -1 if match is None else int(match[1], 16)
        if not 0 <= start < self.size - FOOTER_SIZE or self.size - start > _MAX_PACKED:
            raise ArchiveError("the layer doesn't end as eStargz does")
        if start < at:
            tail = fetch(start, at) + tail
            at = start
        packed = io.BytesIO(tail[start - at : -FOOTER_SIZE])
        with decompressor(cast(BinaryIO, packed), "gzip") as plain:
            raw = _first_file(plain)
        if hashlib.sha256(raw).hexdigest() != self.digest:
            raise ArchiveError("the layer's table of contents isn't the one of its digest")
        return read_contents(raw, start, self.size, limits, tails=True)

    def between(self, limits: Limits) -> Iterator[bytes | int] | None:
        return None


def _first_file(tar: BinaryIO) -> bytes:
    """Return the content of the table, which is the last file of the layer's tar."""
    from ..header import BLOCK, read_header

    block = tar.read(BLOCK)
    header = read_header(block, 0) if len(block) == BLOCK else None
    if header is None or header.name != _STARGZ_NAME or not 0 <= header.size <= MAX_TABLE:
        raise ArchiveError("the layer has no eStargz table of contents where it should be")
    return tar.read(header.size)
