"""Reader: the members of a tar, one after the other, and every byte between their contents.

A member is what its header, its extended headers and its GNU long names say together, still
unchecked as to where it would go: that is ``resolve``'s part. What isn't a member's content goes
to ``keep`` as it was, for the recipe.

As Go's archive/tar reads it, and hence every image tool: global extended headers are skipped, a
GNU long name beats a pax path, links, directories and devices have no content whatever their size
field says, and a file may end after any member, with one zero block, or with two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..entry import NO_XATTRS, Kind
from ..errors import ArchiveError, UnsupportedError
from .feed import Feed, Payload, Run, SparsePayload, truncated
from .header import BLOCK, MAX_ID, ZERO_BLOCK, Header, damaged, read_header
from .limits import Limits
from .pax import XATTR, bound_time, read_decimal, read_records, read_time
from .sparse import check_runs, is_sparse, read_old, read_pax

_NO_PAX: dict[bytes, bytes] = {}
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_STRANGERS = {
    b"D": "a GNU directory dump",
    b"M": "a part of a multi-volume archive",
    b"N": "a GNU long-name list",
    b"V": "a volume label",
    b"X": "a Solaris extended header",
    b"A": "a Solaris access control list",
}
#: The label would be a security boundary of the machine that made the image, not of ours.
_DROPPED_XATTRS = frozenset({"security.selinux"})
_MAX_XATTR_NAME = 255
_MAX_XATTR_VALUE = 65_536


class Member:
    """One member: what ``Entry`` says, with its name and target not yet resolved."""

    __slots__ = (
        "gid",
        "header",
        "kind",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "offset",
        "pax",
        "payload",
        "runs",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: str
    major: int
    minor: int
    xattrs: Mapping[str, bytes]
    #: Where the header begins.
    offset: int
    #: The header itself and its extended one, for whoever describes members to others.
    header: Header
    pax: Mapping[bytes, bytes]
    #: Runs of data of a sparse file, otherwise None.
    runs: list[Run] | None
    #: Its content, to be read before the next member is asked for; None where there can't be any.
    payload: Payload | None


class Reader:
    """Iterate over members. Each payload must be read, or is kept as it is, before the next."""

    def __init__(self, feed: Feed, keep: Callable[[bytes], None], limits: Limits) -> None:
        self._feed = feed
        self._keep = keep
        self._limits = limits
        self._stored_end = 0
        #: Whether there was a global extended header, which is otherwise skipped.
        self.has_globals = False

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> Member:
        pax = _NO_PAX
        long_name = long_link = b""
        if not self._finish_content():
            raise StopIteration
        while True:
            offset = self._feed.offset
            block = self._feed.take(BLOCK)
            self._keep(block)
            if len(block) < BLOCK:
                if block:
                    raise truncated("a header")
                raise StopIteration
            if block == ZERO_BLOCK:
                self._check_second_zero_block(offset)
                raise StopIteration
            header = read_header(block, offset)
            flag = header.flag
            if flag in _KINDS:
                return self._member(header, pax, long_name, long_link, offset)
            if flag == b"x":
                pax = read_records(self._extension(header, offset), offset)
            elif flag == b"g":
                self.has_globals = True
                read_records(self._extension(header, offset), offset)
            elif flag == b"L":
                long_name = self._extension(header, offset).split(b"\0", 1)[0]
            elif flag == b"K":
                long_link = self._extension(header, offset).split(b"\0", 1)[0]
            else:
                what = _STRANGERS.get(flag, f"a member of unknown type {flag!r}"[:60])
                raise UnsupportedError(f"layer tar holds {what} at byte {offset:,}")

    def drain(self) -> None:
        """Keep everything up to the end of the stream: its digest covers that as well."""
        while data := self._feed.take_some(1 << 20):
            self._keep(data)

    # -- parts --------------------------------------------------------------------------------

    def _finish_content(self) -> bool:
        """Keep what nobody read of the last content, and its padding. False: the tar ends here."""
        left = self._stored_end - self._feed.offset
        while left > 0:
            data = self._feed.take_some(left)
            if not data:
                raise truncated("a member's content")
            self._keep(data)
            left -= len(data)
        padding = -self._stored_end % BLOCK
        if padding:
            data = self._feed.take(padding)
            self._keep(data)
            return len(data) == padding
        return True

    def _check_second_zero_block(self, offset: int) -> None:
        block = self._feed.take(BLOCK)
        self._keep(block)
        if block and block != ZERO_BLOCK:
            raise damaged("data after a single zero block", offset + BLOCK)

    def _take_block(self) -> bytes:
        block = self._feed.take(BLOCK)
        if len(block) < BLOCK:
            raise truncated("a sparse map")
        self._keep(block)
        return block

    def _extension(self, header: Header, offset: int) -> bytes:
        size = header.size
        if size < 0:
            raise damaged("a negative size", offset)
        if size > self._limits.header:
            raise self._limits.exceeded("header", f"extended header at byte {offset:,}")
        data = self._feed.take(size + -size % BLOCK)
        if len(data) < size:
            raise truncated("an extended header")
        self._keep(data)
        return data[:size]

    def _member(
        self,
        header: Header,
        pax: dict[bytes, bytes],
        long_name: bytes,
        long_link: bytes,
        offset: int,
    ) -> Member:
        member = Member()
        name, link = header.name, header.link
        member.offset = offset
        member.header, member.pax = header, pax
        member.mode = header.mode & 0o7777
        member.uid, member.gid = header.uid, header.gid
        member.major, member.minor = header.major, header.minor
        member.mtime_ns = bound_time(header.mtime * 10**9)
        member.xattrs = NO_XATTRS
        stored = header.size
        if pax:
            name = pax.get(b"GNU.sparse.name") or pax.get(b"path", name)
            link = pax.get(b"linkpath", link)
            stored = self._apply_pax(member, pax, stored, offset)
        name = long_name or name
        link = long_link or link
        # An old tar has no type for directories; a name that ends with a slash is one.
        member.kind = kind = (
            Kind.DIRECTORY if header.flag == b"\0" and name[-1:] == b"/" else _KINDS[header.flag]
        )
        if stored < 0:
            raise damaged("a negative size", offset)
        if not (0 <= member.uid <= MAX_ID and 0 <= member.gid <= MAX_ID):
            raise damaged("an owner out of range", offset)
        member.name = name.decode("utf-8", "surrogateescape")
        member.target = ""
        member.size = 0
        member.runs = None
        member.payload = None
        if kind is Kind.FILE:
            if header.flag == b"S" or (pax and is_sparse(pax)):
                stored = self._read_sparse(member, header, pax, stored, offset)
            else:
                member.size = stored
            self._stored_end = self._feed.offset + stored
            self._open(member)
        else:
            self._stored_end = self._feed.offset
            if kind is Kind.HARDLINK or kind is Kind.SYMLINK:
                member.target = link.decode("utf-8", "surrogateescape")
        return member

    def _open(self, member: Member) -> None:
        if member.runs is None:
            member.payload = Payload(self._feed, member.size, repr(member.name))
        else:
            member.payload = SparsePayload(self._feed, member.size, repr(member.name), member.runs)

    def _read_sparse(
        self, member: Member, header: Header, pax: dict[bytes, bytes], stored: int, offset: int
    ) -> int:
        limit = self._limits.header
        if header.flag == b"S":
            member.size, runs = read_old(header, self._take_block, limit, offset)
        else:
            member.size, runs, taken = read_pax(pax, self._take_block, limit, offset)
            stored -= taken
        check_runs(runs, member.size, stored, offset)
        member.runs = runs
        return stored

    def _apply_pax(self, member: Member, pax: dict[bytes, bytes], stored: int, offset: int) -> int:
        xattrs: dict[str, bytes] = {}
        xattr_bytes = 0
        try:
            for key, value in pax.items():
                if key == b"mtime":
                    member.mtime_ns = read_time(value)
                elif key == b"size":
                    stored = read_decimal(value)
                elif key == b"uid":
                    member.uid = read_decimal(value)
                elif key == b"gid":
                    member.gid = read_decimal(value)
                elif key.startswith(XATTR):
                    name = key[len(XATTR) :]
                    xattr_bytes += len(name) + len(value)
                    if not name or len(name) > _MAX_XATTR_NAME or b"\0" in name:
                        raise ArchiveError(
                            f"layer tar has an extended attribute with an unusable name "
                            f"at byte {offset:,}"
                        )
                    if len(value) > _MAX_XATTR_VALUE:
                        raise ValueError("an extended attribute beyond 64 KiB")
                    text = name.decode("utf-8", "surrogateescape")
                    if text not in _DROPPED_XATTRS:
                        xattrs[text] = value
        except ValueError as error:
            raise damaged(f"a malformed extended header ({error})", offset) from None
        if xattr_bytes > self._limits.xattrs:
            raise self._limits.exceeded("xattrs", f"extended attributes at byte {offset:,}")
        if xattrs:
            member.xattrs = xattrs
        return stored
