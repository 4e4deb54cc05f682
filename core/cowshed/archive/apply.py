"""Apply: a layer's tar becomes entries on a driver's stage, and a recipe beside them.

For each member in this order: find where it goes (which may make missing directories), refuse what
can't go there, put aside the content that it hides (the recipe will need it, and only now is it
still there), hand it to the stage, note it in the view and in the recipe. An error leaves the
stage half full; the caller discards it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from posixpath import normpath
from typing import BinaryIO, cast

import attrs

from ..driver import Stage
from ..entry import Entry, Kind, join
from ..errors import ArchiveError, StoreError, UnsafeEntryError
from ..tree import Tree
from .directories import Directory
from .feed import Feed, Payload, ReadAhead
from .header import damaged
from .limits import DEFAULT_LIMITS, Limits
from .reader import Member, Reader
from .recipe_writer import RecipeWriter
from .resolve import View

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
#: Other metadata of aufs, which Docker never meant to be in layers and skips.
_AUFS = ".wh..wh."
#: PATH_MAX less its NUL: no Linux file system holds a longer link.
_MAX_TARGET = 4095
_MAX_MAJOR = 0xFFF
_MAX_MINOR = 0xFFFFF


@attrs.frozen(kw_only=True)
class LayerStats:
    """What a layer's tar came to."""

    #: Members of the tar.
    entries: int
    #: Bytes of regular files' content, with holes.
    size: int
    #: Bytes of the uncompressed tar, to its very end.
    tar_size: int
    #: Digest of the uncompressed tar: ``sha256:…``.
    diff_id: str


def apply_layer(
    tar: BinaryIO,
    stage: Stage,
    parent: Tree | None,
    *,
    recipe: BinaryIO | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
    below: str | None = None,
    scratch: str | None = None,
) -> LayerStats:
    """Read an uncompressed layer tar to its very end and put it on the stage. Never seals.

    ``parent`` is the tree that the layer stands on; None: a base layer. ``progress`` is called with
    the bytes of tar done so far.

    ``below`` makes it a plain tar, unpacked in that directory of ``parent``: names stop there as at
    a root, while links lead where they lead in the whole tree, and no name means a deletion.

    ``scratch`` is a directory for what takes too much memory; None: where temporary files are.

    Raises:
        ArchiveError: the tar is malformed, unsafe or beyond ``limits``.
    """
    hasher = hashlib.sha256()
    with ReadAhead(tar, hasher) as chunks:
        applied = _Layer(stage, parent, recipe, limits, progress, below, scratch)
        try:
            applied.run(Feed(iter(chunks), applied.on_chunk))
        finally:
            applied.close()
    return LayerStats(
        entries=applied.entries,
        size=applied.size,
        tar_size=applied.tar_size,
        diff_id=f"sha256:{hasher.hexdigest()}",
    )


class _Layer:
    def __init__(
        self,
        stage: Stage,
        parent: Tree | None,
        recipe: BinaryIO | None,
        limits: Limits,
        progress: Callable[[int], None] | None,
        below: str | None,
        scratch: str | None,
    ) -> None:
        self._below = below
        self._stage = stage
        self._recipe = RecipeWriter(recipe)
        self._limits = limits
        self._progress = progress
        self._view = View(parent, limits, self._make_directory, scratch)
        self.entries = 0
        self.size = 0
        self.tar_size = 0

    def close(self) -> None:
        self._view.close()

    def on_chunk(self, size: int) -> None:
        self.tar_size += size
        if self.tar_size > self._limits.bytes:
            raise self._limits.exceeded("bytes", "layer tar")
        if self._progress is not None:
            self._progress(self.tar_size)

    def run(self, feed: Feed) -> None:
        reader = Reader(feed, self._recipe.literal, self._limits)
        max_entries = self._limits.entries
        for member in reader:
            self.entries += 1
            if self.entries > max_entries:
                raise self._limits.exceeded("entries", "number of members in layer tar")
            self._add(member)
        reader.drain()
        self._recipe.finish()

    def _make_directory(self, path: str) -> None:
        self._stage.add(Entry(path=path, kind=Kind.DIRECTORY, mode=0o755))

    # -- one member ---------------------------------------------------------------------------

    def _add(self, member: Member) -> None:
        self._view.settle()
        path = clean(member.name)
        if not path and self._below:
            return  # the directory that it is unpacked in keeps its attributes
        if self._below:
            path = join(self._below, path)
        if not path:
            if member.kind is not Kind.DIRECTORY:
                raise UnsafeEntryError(member.name, "it would replace the root by something else")
            self._view.root.own = True
            self._stage.add(self._entry(member, ""))
            return
        above, _, name = path.rpartition("/")
        if self._below is None and (name.startswith(WHITEOUT) or path.startswith(_AUFS)):
            self._add_whiteout(member, path, above, name)
            return
        directory = self._view.directory(above, make=True)
        assert directory is not None
        path = self._view.path(directory, name)
        if member.kind is Kind.HARDLINK:
            self._add_hardlink(member, directory, name, path)
            return
        entry = self._entry(member, path)
        self._put_aside(directory, name, path, member.kind)
        if member.kind is Kind.DIRECTORY:
            self._stage.add(entry)
            self._view.put_directory(directory, name, path)
        elif member.payload is None:
            self._stage.add(entry)
            self._view.put(directory, name, path, entry.target or 0)
        else:
            number = self._add_file(member, entry, member.payload)
            self._view.put(directory, name, path, number)

    def _add_file(self, member: Member, entry: Entry, payload: Payload) -> int:
        """Returns the payload's number, 0 for a file without content."""
        self.size += entry.size
        if self.size > self._limits.bytes:
            raise self._limits.exceeded("bytes", "content of layer")
        self._stage.add(entry, cast(BinaryIO, payload))
        if payload.left:
            raise StoreError(f"the driver didn't take all of {entry.path!r}; its stage is at fault")
        if member.runs is not None and any(length for _, length in member.runs):
            runs = [
                (start, length, checksum)
                for (start, length), checksum in zip(member.runs, payload.checksums, strict=True)
            ]
            number = self._recipe.runs(entry.path, entry.size, runs)
            if self._recipe.keeps:
                self._view.scratch.put_runs(number, member.runs)
            return number
        if member.runs is not None or not entry.size:
            return 0
        return self._recipe.file(entry.path, entry.size, payload.checksums[0])

    def _add_hardlink(self, member: Member, directory: Directory, name: str, path: str) -> None:
        # The header's mode, owner and times are the target's business (CVE-2021-32760).
        target = join(self._below or "", clean_target(member.target, member.name))
        above, _, leaf = target.rpartition("/")
        holder = self._view.directory(above, make=False) if leaf else None
        node = self._view.look(holder, leaf) if holder is not None else None
        if holder is None or node is None:
            raise ArchiveError(
                f"layer tar links {member.name!r} to {member.target!r}, which doesn't exist"
            )
        if isinstance(node, Directory):
            raise ArchiveError(
                f"layer tar links {member.name!r} to {member.target!r}, which is a directory"
            )
        target = self._view.path(holder, leaf)
        if target == path:
            return
        if target.startswith(f"{path}/"):
            raise UnsafeEntryError(member.name, "it would replace the directory of its own target")
        self._put_aside(directory, name, path, Kind.HARDLINK)
        self._stage.add(Entry(path=path, kind=Kind.HARDLINK, target=target))
        self._view.put(directory, name, path, node if isinstance(node, str) else 0)

    def _add_whiteout(self, member: Member, path: str, above: str, name: str) -> None:
        if name == OPAQUE:
            directory = self._view.directory(above, make=False)
            if directory is not None:
                for entry in self._view.opaque(directory):
                    self._stage.add(entry)
            return
        if name.startswith(_AUFS) or path.startswith(_AUFS):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise UnsafeEntryError(member.name, "it is a whiteout of no name")
        directory = self._view.directory(above, make=False)
        if directory is not None:
            for entry in self._view.whiteout(directory, hidden):
                self._stage.add(entry)

    def _put_aside(self, directory: Directory, name: str, path: str, kind: Kind) -> None:
        """Save content that the tar holds and the tree soon won't.

        A file that has another name left (a hard link) is saved too: rare, and simple to get right.
        """
        if not self._recipe.keeps or directory.get(name) is None:
            return
        for hidden, number in self._view.replaced(directory, name, path, kind):
            with self._stage.open(hidden) as content:
                self._recipe.save(number, content, self._view.scratch.runs(number))

    def _entry(self, member: Member, path: str) -> Entry:
        kind = member.kind
        mode, target, rdev = member.mode, "", 0
        if kind is Kind.SYMLINK:
            mode, target = 0o777, member.target
            if not target or len(target.encode(errors="surrogateescape")) > _MAX_TARGET:
                raise ArchiveError(f"layer tar has a link with an unusable target: {member.name!r}")
        elif kind is Kind.CHAR or kind is Kind.BLOCK:
            if not (0 <= member.major <= _MAX_MAJOR and 0 <= member.minor <= _MAX_MINOR):
                raise damaged("a device number out of range", member.offset)
            rdev = os.makedev(member.major, member.minor)
        return Entry(
            path=path,
            kind=kind,
            mode=mode,
            uid=member.uid,
            gid=member.gid,
            mtime_ns=member.mtime_ns,
            size=member.size,
            target=target,
            rdev=rdev,
            xattrs=member.xattrs,
        )


def clean(name: str) -> str:
    """Return a member's name as a path inside the root, lexically; the root is "".

    Absolute names are anchored in the root. ``..`` is taken off with the component before it, as
    Go's ``filepath.Clean`` does and thus every image tool.

    Raises:
        UnsafeEntryError: the name is empty or leads out of the root.
    """
    if not name:
        raise UnsafeEntryError(name, "it has no name")
    if name.startswith("/"):
        return normpath("/" + name.lstrip("/"))[1:]
    path = normpath(name)
    if path == ".." or path.startswith("../"):
        raise UnsafeEntryError(name, "it leads out of the root")
    return "" if path == "." else path


def clean_target(target: str, name: str) -> str:
    """Return the path that a hard link's target names; ``..`` stops at the root."""
    if not target:
        raise UnsafeEntryError(name, "it is a hard link to nothing")
    return normpath("/" + target.lstrip("/"))[1:]
