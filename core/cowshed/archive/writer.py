"""Writer: entries and trees become a tar that is the same bytes every time.

The format is POSIX pax: plain ustar as long as everything fits, and an extended header for what
doesn't (long or non-ASCII names, nanoseconds, large numbers, xattrs). No user names, no atime or
ctime, no process IDs: nothing that differs between two runs. Names that aren't UTF-8 get
``hdrcharset=BINARY`` (POSIX pax, "pax Header Keywords"), which GNU tar and bsdtar read; Go takes
the bytes as they are anyway.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import BinaryIO

import attrs

from ..entry import Entry, Kind, join
from ..errors import BusyError, UnsupportedError
from ..tree import Tree
from .apply import OPAQUE, WHITEOUT, LayerStats
from .feed import CHUNK
from .header import BLOCK, write_header
from .inflate import crc32
from .pax import XATTR, write_records, write_time
from .recipe_writer import RecipeWriter

#: tar pads its archives to 20 blocks; readers only want two zero blocks, and so do digests.
_END = bytes(2 * BLOCK)
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_FLAGS = {
    Kind.FILE: b"0",
    Kind.WHITEOUT: b"0",
    Kind.OPAQUE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHAR: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}


def write_layer(
    entries: Iterable[Entry],
    open_file: Callable[[str], BinaryIO],
    out: BinaryIO,
    *,
    recipe: BinaryIO | None = None,
    clamp_mtime_ns: int | None = None,
) -> LayerStats:
    """Write a layer's tar, whiteouts included (OCI image-spec, layer.md).

    ``open_file`` opens the content of a FILE by its path. ``clamp_mtime_ns`` is the latest mtime to
    be written (SOURCE_DATE_EPOCH).

    Of a file that somebody writes to meanwhile it holds what was there when it was opened, or for
    what is overwritten in place, a little later; one that is gone by then is left out.

    Raises:
        BusyError: a file was cut off while it was read, or one of several names went.
        UnsupportedError: an entry that a layer can't hold.
    """
    writer = _Writer(out, recipe, clamp_mtime_ns)
    for entry in entries:
        if entry.kind is Kind.WHITEOUT:
            above, _, name = entry.path.rpartition("/")
            writer.header(entry, join(above, WHITEOUT + name))
        elif entry.kind is Kind.OPAQUE:
            writer.header(entry, join(entry.path, OPAQUE))
        elif entry.name.startswith(WHITEOUT):
            raise UnsupportedError(
                f"{entry.path!r} can't be in a layer: a name that begins with {WHITEOUT!r} means a "
                "deletion there; rename or remove it"
            )
        else:
            writer.entry(entry, entry.path, open_file)
    return writer.finish()


def write_tree(tree: Tree, out: BinaryIO, path: str = "", *, hidden: Collection[str] = ()) -> None:
    """Write a tree, or ``path`` and what is below it, as a plain tar, without paths in ``hidden``.

    As ``docker export`` and ``docker cp``: the root has no member of its own, and members below
    another path are named from its last component on.
    """
    writer = _Writer(out, None, None)
    cut = len(path.rpartition("/")[0]) + 1 if "/" in path else 0
    for entry in tree_entries(tree, path):
        if entry.kind is Kind.HARDLINK:
            entry = attrs.evolve(entry, target=entry.target[cut:])
        if entry.path and entry.path not in hidden:
            writer.entry(entry, entry.path[cut:], tree.open)
    writer.finish()


def tree_entries(tree: Tree, path: str = "") -> Iterator[Entry]:
    """Walk ``path``; every further name of an inode becomes a HARDLINK to its first."""
    first_names: dict[int, str] = {}
    for entry in tree.walk(path):
        if entry.inode and entry.links > 1 and entry.kind is not Kind.DIRECTORY:
            first = first_names.setdefault(entry.inode, entry.path)
            if first != entry.path:
                yield Entry(path=entry.path, kind=Kind.HARDLINK, target=first)
                continue
        yield entry


def _changed(path: str) -> BusyError:
    return BusyError(f"{path!r} changed while it was read; stop what writes to it and try again")


class _Writer:
    def __init__(self, out: BinaryIO, recipe: BinaryIO | None, clamp: int | None) -> None:
        self._out = out
        self._recipe = RecipeWriter(recipe)
        self._clamp = clamp
        self._hasher = hashlib.sha256()
        self._entries = 0
        self._size = 0
        self._tar_size = 0
        #: Names of files that were gone when they were to be opened.
        self._gone: set[str] = set()

    def entry(self, entry: Entry, name: str, open_file: Callable[[str], BinaryIO]) -> None:
        if entry.kind is Kind.HARDLINK and entry.target in self._gone:
            raise _changed(entry.target)
        if entry.kind is not Kind.FILE or not entry.size:
            self.header(entry, name)
            return
        try:
            content = open_file(entry.path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._gone.add(name)
            return
        with content:
            # It may have grown since it was listed, or be another one.
            entry = attrs.evolve(entry, size=content.seek(0, os.SEEK_END))
            content.seek(0)
            self.header(entry, name)
            checksum = self._content(entry, content)
        if entry.size:
            self._recipe.file(entry.path, entry.size, checksum)
            self._literal(bytes(-entry.size % BLOCK))
            self._size += entry.size

    def header(self, entry: Entry, name: str) -> None:
        if entry.kind is Kind.DIRECTORY:
            name = f"{name}/" if name else "./"
        self._entries += 1
        self._literal(self._encode(entry, name.encode("utf-8", "surrogateescape")))

    def finish(self) -> LayerStats:
        self._literal(_END)
        self._recipe.finish()
        return LayerStats(
            entries=self._entries,
            size=self._size,
            tar_size=self._tar_size,
            diff_id=f"sha256:{self._hasher.hexdigest()}",
        )

    def _literal(self, data: bytes) -> None:
        self._recipe.literal(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._hasher.update(data)
        self._tar_size += len(data)
        self._out.write(data)

    def _content(self, entry: Entry, content: BinaryIO) -> int:
        checksum = 0
        left = entry.size
        while left:
            data = content.read(min(left, CHUNK))
            if not data:
                break
            checksum = crc32(data, checksum)
            left -= len(data)
            self._put(data)
        if left:
            raise _changed(entry.path)
        return checksum

    def _encode(self, entry: Entry, name: bytes) -> bytes:
        mtime_ns = entry.mtime_ns
        if self._clamp is not None:
            mtime_ns = min(mtime_ns, self._clamp)
        target = entry.target.encode("utf-8", "surrogateescape")
        size = entry.size if entry.kind is Kind.FILE else 0
        pax: dict[bytes, bytes] = {}
        if any(_is_binary(text) for text in (name, target)):
            pax[b"hdrcharset"] = b"BINARY"
        prefix, short = _split(name)
        if not name.isascii() or short is None:
            pax[b"path"] = name
        if len(target) > 100 or not target.isascii():
            pax[b"linkpath"] = target
        if size > _MAX_OCTAL_11:
            pax[b"size"] = b"%d" % size
        if entry.uid > _MAX_OCTAL_7:
            pax[b"uid"] = b"%d" % entry.uid
        if entry.gid > _MAX_OCTAL_7:
            pax[b"gid"] = b"%d" % entry.gid
        seconds, fraction = divmod(mtime_ns, 10**9)
        if fraction or not 0 <= seconds <= _MAX_OCTAL_11:
            pax[b"mtime"] = write_time(mtime_ns)
        for key in sorted(entry.xattrs):
            raw = key.encode("utf-8", "surrogateescape")
            if b"=" in raw:
                raise UnsupportedError(
                    f"{entry.path!r} has extended attribute {key!r}; a tar can't name it"
                )
            pax[XATTR + raw] = entry.xattrs[key]
        extended = b""
        if pax:
            records = write_records(pax)
            extended = (
                write_header(name=_pax_name(name), flag=b"x", mode=0o644, size=len(records))
                + records
                + bytes(-len(records) % BLOCK)
            )
        return extended + write_header(
            name=_cut(name) if short is None else short,
            prefix=prefix,
            flag=_FLAGS[entry.kind],
            mode=entry.mode,
            uid=entry.uid if entry.uid <= _MAX_OCTAL_7 else 0,
            gid=entry.gid if entry.gid <= _MAX_OCTAL_7 else 0,
            size=size if size <= _MAX_OCTAL_11 else 0,
            mtime=min(max(seconds, 0), _MAX_OCTAL_11),
            link=target[:100],
            major=os.major(entry.rdev),
            minor=os.minor(entry.rdev),
        )


def _is_binary(text: bytes) -> bool:
    if text.isascii():
        return False
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Divide a name into ustar's prefix and name; None if it doesn't fit."""
    if len(name) <= 100:
        return b"", name
    at = name.find(b"/", len(name) - 101, len(name) - 1)
    if at <= 0 or at > 155:
        return b"", None
    return name[:at], name[at + 1 :]


def _cut(name: bytes) -> bytes:
    """The name for readers that don't know pax; it keeps the slash of a directory."""
    return name[:99] + b"/" if name.endswith(b"/") else name[:100]


def _pax_name(name: bytes) -> bytes:
    base = name.rstrip(b"/").rpartition(b"/")[2]
    return b"PaxHeaders.0/" + base[:80]
