"""Entry: one file-system object, the one language between core and drivers.

Tar becomes a stream of entries on import, a driver's changes become a stream of
entries on commit. An ``Entry`` is the field-for-field truth: what a driver
can't hold natively (ownership without privilege, device nodes, xattrs on a file
system without them) it holds beside the data and gives back unchanged.
"""

from __future__ import annotations

import enum
import stat as stat_module
from collections.abc import Mapping
from types import MappingProxyType

import attrs

NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


class Kind(enum.Enum):
    """What an entry is. The last two occur only in streams, never in a tree."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    CHAR = "char"
    BLOCK = "block"
    #: Another name for the file at ``target`` (tar's type 1). Only in streams: in a tree both
    #: names are FILE (or SYMLINK, FIFO …) and share their ``inode`` number.
    HARDLINK = "hardlink"
    #: ``path`` and everything below it go away.
    WHITEOUT = "whiteout"
    #: Everything that directory ``path`` holds at this moment goes away; the directory stays.
    OPAQUE = "opaque"


_FORMATS = {
    Kind.FILE: stat_module.S_IFREG,
    Kind.DIRECTORY: stat_module.S_IFDIR,
    Kind.SYMLINK: stat_module.S_IFLNK,
    Kind.FIFO: stat_module.S_IFIFO,
    Kind.CHAR: stat_module.S_IFCHR,
    Kind.BLOCK: stat_module.S_IFBLK,
}
_KINDS = {bits: kind for kind, bits in _FORMATS.items()}


@attrs.frozen(kw_only=True)
class Entry:
    """One file-system object at one path.

    ``inode`` and ``links`` describe identity inside one tree and take no part in equality:
    two entries of a tree with the same non-zero ``inode`` are names of one file.
    """

    #: POSIX, relative to the root, without leading, trailing or double slashes, never ``.`` or
    #: ``..``; undecodable bytes by surrogateescape. The root itself is the empty string.
    path: str
    kind: Kind
    #: Permission bits with setuid, setgid and sticky: ``0o7777`` at most. Symlinks: ``0o777``.
    mode: int = 0
    uid: int = 0
    gid: int = 0
    #: Modification time in nanoseconds since the epoch; may be negative.
    mtime_ns: int = 0
    #: Bytes of content of a FILE, otherwise 0.
    size: int = 0
    #: Where a SYMLINK points (verbatim) or the path that a HARDLINK is another name of.
    target: str = ""
    #: Device number of CHAR and BLOCK, as ``os.makedev`` composes it.
    rdev: int = 0
    #: Extended attributes by full name (``user.mime_type``, ``security.capability``).
    xattrs: Mapping[str, bytes] = NO_XATTRS
    inode: int = attrs.field(default=0, eq=False)
    links: int = attrs.field(default=1, eq=False)

    @property
    def name(self) -> str:
        """Last component of the path; empty for the root."""
        return self.path.rpartition("/")[2]

    @property
    def st_mode(self) -> int:
        """File type and permission bits as ``os.stat`` gives them. ValueError for stream kinds."""
        return file_format(self.kind) | self.mode


def file_format(kind: Kind) -> int:
    """Return the ``S_IFMT`` bits of a kind that exists in trees."""
    try:
        return _FORMATS[kind]
    except KeyError:
        raise ValueError(f"{kind.value} has no file type bits") from None


def kind_of(st_mode: int) -> Kind | None:
    """Return the kind for ``st_mode``'s type bits; None for sockets and other strangers."""
    return _KINDS.get(stat_module.S_IFMT(st_mode))


def parent_of(path: str) -> str:
    """Return the path of the directory that holds ``path``; the root holds itself."""
    return path.rpartition("/")[0]


def join(directory: str, name: str) -> str:
    """Return the path of ``name`` in ``directory``, where the root is the empty string."""
    return f"{directory}/{name}" if directory else name


def normalise(path: str) -> str:
    """Return a user's path ("/", "./etc//passwd", "/etc/") in Entry form, lexically.

    Raises:
        ValueError: the path contains ``..`` or a NUL byte.
    """
    if "\0" in path:
        raise ValueError(f"path {path!r} contains a NUL byte")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"path {path!r} contains '..'")
    return "/".join(parts)


class ChangeKind(enum.Enum):
    """The letter that ``diff`` prints."""

    ADDED = "A"
    MODIFIED = "C"
    DELETED = "D"


@attrs.frozen
class Change:
    """One difference between a container and the layer it stands on.

    ``entry`` is the object as the container has it now; for DELETED it is a WHITEOUT entry.
    """

    kind: ChangeKind
    entry: Entry

    @property
    def path(self) -> str:
        return self.entry.path
