"""Resolve: where in the merged tree each member of a layer lands.

This is the hard part of unpacking, and where image tools were broken again and again. What can go
wrong is always the same: a name is looked up in one state of the tree and used in another, or by
something that resolves it differently (CVE-2018-15664, CVE-2021-21272, CVE-2021-32760,
CVE-2025-47290, CVE-2025-4517). So here:

1. There is one model of the merged tree, and it is ours alone. It knows what this layer brought
   (``View``); for all else it asks the sealed parent, which can't change. No file system is asked
   where a link leads, so there is nothing to race with.
2. Each name's parent directory is walked inside the root for each entry anew: links are followed,
   absolute ones and ``..`` stop at the root as after chroot(2). Images need that: on a usr-merged
   system ``bin`` is a link and layers hold ``bin/sh``. The leaf is never followed: it is replaced.
3. The walk's result is remembered by the text of the directory's name, because files come
   directory by directory. It is forgotten as soon as an entry replaces a directory, or touches a
   link that any remembered walk went through. Nothing else can change where a walk leads, as
   missing directories are made during the walk.
4. What comes out are paths without links on the way. A driver that uses them needs no look-up of
   its own, so it can't get one wrong.

Whiteouts (OCI image-spec, layer.md, "Whiteouts") are about the parent layers only and take effect
before the layer's own entries, wherever they stand in the tar. A driver applies a stream in order;
so what a late whiteout means is worked out here, and told as removals of just what came from below.
"""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import cast

from ..entry import Entry, Kind, join
from ..errors import ArchiveError
from ..tree import MAX_SYMLINKS, Tree
from .limits import Limits

_MAX_NAME = 255
_MEMO = 4096
#: Entries after which a directory that nothing was put into is packed, and one that all are.
_QUIET = 16_384
_CROWDED = 32_768
#: Packs of one directory; names in one up to which it is searched from its beginning.
_MOST_PACKS = 32
_SEARCHED = 256


class _Pack:
    """Names and numbers in a fifth of the memory, to be looked up without being unpacked."""

    __slots__ = ("_hashes", "_names", "_numbers", "_starts", "_whose")

    def __init__(self, nodes: dict[str, int]) -> None:
        encoded = [_encoded(name) for name in nodes]
        #: With a NUL before and after each.
        self._names = b"\0".join([b"", *encoded, b""])
        self._numbers = _smallest(nodes.values())
        # Hashes of the names in their order, whose they are, and where each name begins; a pack
        # that is searched as fast as that has none.
        self._hashes = array("q")
        if len(nodes) > _SEARCHED:
            hashes = [hash(name) for name in nodes]
            whose = sorted(range(len(hashes)), key=hashes.__getitem__)
            self._hashes = array("q", [hashes[index] for index in whose])
            self._whose = _smallest(whose)
            self._starts = _smallest(accumulate((len(name) + 1 for name in encoded), initial=0))

    def get(self, name: str) -> int | None:
        wanted = b"\0%b\0" % _encoded(name)
        if not self._hashes:
            at = self._names.find(wanted)
            return None if at < 0 else self._numbers[self._names.count(b"\0", 0, at)]
        hashed = hash(name)
        at = bisect_left(self._hashes, hashed)
        while at < len(self._hashes) and self._hashes[at] == hashed:
            index = self._whose[at]
            if self._names.startswith(wanted, self._starts[index]):
                return self._numbers[index]
            at += 1
        return None

    def unpacked(self) -> dict[str, Node]:
        names = self._names[1:-1].decode("utf-8", "surrogateescape").split("\0")
        return dict(zip(names, self._numbers, strict=True))


def _smallest(numbers: Iterable[int]) -> array[int]:
    """Return an array of the smallest type that holds such numbers."""
    found = list(numbers)
    most = max(found, default=0)
    return array("H" if most < 1 << 16 else "I" if most < 1 << 32 else "Q", found)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


class Directory:
    """A directory of the merged view that this layer brought or wrote into."""

    __slots__ = ("_children", "_packs", "filled", "left", "lower", "own", "path")

    def __init__(self, path: str, *, own: bool, lower: bool | None) -> None:
        self.path = path
        self._children: dict[str, Node] = {}
        #: What isn't among those, later packs first.
        self._packs: list[_Pack] = []
        #: When it was left for another directory, in entries of the layer, and when it began to
        #: fill since it was packed.
        self.left = 0
        self.filled = 0
        #: This layer has an entry for it.
        self.own = own
        #: What the parent has at this path shows through. None: nobody had to know yet.
        self.lower = lower

    @property
    def children(self) -> dict[str, Node]:
        """What it holds, by name, for who wants all of it."""
        if self._packs:
            found: dict[str, Node] = {}
            for pack in reversed(self._packs):
                found.update(pack.unpacked())
            found.update(self._children)
            self._children = found
            self._packs = []
        return self._children

    def get(self, name: str, default: object = None) -> object:
        """Return what has this name here, or ``default``."""
        found: object = self._children.get(name, _UNKNOWN)
        if found is not _UNKNOWN:
            return found
        for pack in self._packs:
            number = pack.get(name)
            if number is not None:
                return number
        return default

    def put(self, name: str, node: Node) -> None:
        """Give a name another meaning."""
        self._children[name] = node

    def clear(self) -> None:
        """Forget all names."""
        self._children = {}
        self._packs = []

    def pack(self) -> None:
        """Keep what it holds in a quarter of the memory."""
        children = self.children if len(self._packs) >= _MOST_PACKS else self._children
        numbers = {name: node for name, node in children.items() if isinstance(node, int)}
        if numbers:
            self._packs.insert(0, _Pack(numbers))
            self._children = {
                name: node for name, node in children.items() if not isinstance(node, int)
            }


#: What is known of a name. A string is a link's target; a number the payload that is the file's
#: content, 0 for objects without one; None: the layer removed what the parent has. Kept this
#: small because a layer may have a million of them.
Node = Directory | str | int | None

_UNKNOWN = object()


class View:
    """The merged tree, as far as one layer has got."""

    def __init__(self, parent: Tree | None, limits: Limits, make: Callable[[str], None]) -> None:
        self._parent = parent
        self._limits = limits
        self._make = make
        self.root = Directory("", own=False, lower=parent is not None)
        self._memo: dict[str, Directory] = {}
        self._links: set[str] = set()
        self._puts = 0
        self._here = self.root
        #: Directories in the order in which they were left, and when.
        self._left: deque[tuple[int, Directory]] = deque()

    # -- looking ------------------------------------------------------------------------------

    def look(self, directory: Directory, name: str) -> Node:
        """Say what has this name; None: nothing."""
        known = directory.get(name, _UNKNOWN)
        if known is not _UNKNOWN:
            return cast("Node", known)
        entry = self._stat_lower(directory, name)
        if entry is None:
            return None
        if entry.kind is Kind.DIRECTORY:
            node = Directory(entry.path, own=False, lower=True)
            directory.put(name, node)
            return node
        return entry.target if entry.kind is Kind.SYMLINK else 0

    def _stat_lower(self, directory: Directory, name: str) -> Entry | None:
        if self._parent is None or not self._shows(directory):
            return None
        try:
            return self._parent.stat(join(directory.path, name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise

    def _shows(self, directory: Directory) -> bool:
        if directory.lower is None:
            try:
                assert self._parent is not None
                directory.lower = self._parent.stat(directory.path).kind is Kind.DIRECTORY
            except (FileNotFoundError, NotADirectoryError):
                directory.lower = False
        return directory.lower

    def directory(self, name: str, *, make: bool) -> Directory | None:
        """Walk to directory ``name`` inside the root, making what is missing if asked to.

        Raises:
            ArchiveError: something on the way is no directory, or the links go in circles.
        """
        found = self._memo.get(name)
        if found is not None:
            return found
        trail = [self.root]
        todo = name.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1]
            node = self.look(here, part)
            if node is None:
                if not make:
                    return None
                node = self._make_directory(here, part)
            if isinstance(node, Directory):
                trail.append(node)
                continue
            path = join(here.path, part)
            if not isinstance(node, str):
                if not make:
                    return None
                raise ArchiveError(
                    f"layer tar puts {name!r} below {path!r}: {os.strerror(errno.ENOTDIR)}"
                )
            links += 1
            if links > MAX_SYMLINKS:
                raise ArchiveError(f"layer tar goes through {name!r}: {os.strerror(errno.ELOOP)}")
            self._links.add(path)
            if node.startswith("/"):
                del trail[1:]
            todo.extend(node.split("/")[::-1])
        if len(self._memo) >= _MEMO:
            self._forget()
        self._memo[name] = trail[-1]
        return trail[-1]

    def _make_directory(self, above: Directory, name: str) -> Directory:
        path = self.path(above, name)
        self._make(path)
        node = Directory(path, own=True, lower=False)
        above.put(name, node)
        return node

    def path(self, directory: Directory, name: str) -> str:
        """Return the path of ``name``, within what file systems and the limits allow."""
        path = f"{directory.path}/{name}" if directory.path else name
        # A character takes up to four bytes in UTF-8: short names needn't be measured.
        if len(name) > _MAX_NAME // 4 and len(name.encode(errors="surrogateescape")) > _MAX_NAME:
            raise ArchiveError(
                f"layer tar has a name of more than {_MAX_NAME} bytes: {name[:40]!r}…"
            )
        if len(path) > 255 and len(path.encode(errors="surrogateescape")) > self._limits.path:
            raise self._limits.exceeded("path", f"length of path {path[:40]!r}…")
        if path.count("/") >= self._limits.depth:
            raise self._limits.exceeded("depth", f"depth of path {path[:40]!r}…")
        return path

    # -- changing -----------------------------------------------------------------------------

    def put(self, directory: Directory, name: str, path: str, node: str | int) -> None:
        """Note that this layer puts something other than a directory at ``path``."""
        if type(directory.get(name)) is Directory or path in self._links:
            self._forget()
        directory.put(name, node)
        self._puts += 1
        if directory is not self._here:
            self._leave(directory)
        elif self._puts - directory.filled > _CROWDED:
            directory.pack()
            directory.filled = self._puts

    def _leave(self, directory: Directory) -> None:
        """Go on in ``directory``; pack those that nobody came back to for long."""
        left = self._left
        self._here.left = self._puts
        left.append((self._puts, self._here))
        self._here = directory
        directory.filled = self._puts
        while left[0][0] < self._puts - _QUIET:
            when, old = left.popleft()
            if old.left == when and old is not directory:
                old.pack()

    def put_directory(self, directory: Directory, name: str, path: str) -> None:
        """Note that this layer has a directory at ``path``; one over another keeps its content."""
        old = directory.get(name, _UNKNOWN)
        if isinstance(old, Directory):
            old.own = True
            return
        if path in self._links:
            self._forget()
        lower = None if old is _UNKNOWN and directory.lower is not False else False
        directory.put(name, Directory(path, own=True, lower=lower))

    def replaced(
        self, directory: Directory, name: str, path: str, kind: Kind
    ) -> Iterator[tuple[str, int]]:
        """Yield path and payload of each file of this layer that an entry here would hide."""
        old = directory.get(name)
        if isinstance(old, int):
            if old:
                yield path, old
        elif isinstance(old, Directory) and kind is not Kind.DIRECTORY:
            todo = [old]
            while todo:
                below = todo.pop()
                for child, node in below.children.items():
                    if isinstance(node, Directory):
                        todo.append(node)
                    elif isinstance(node, int) and node:
                        yield join(below.path, child), node

    def _forget(self) -> None:
        self._memo.clear()
        self._links.clear()

    # -- whiteouts ----------------------------------------------------------------------------

    def whiteout(self, directory: Directory, name: str) -> Iterator[Entry]:
        """Remove what the parent layers have at one name; nothing if they have nothing."""
        old = directory.get(name, _UNKNOWN)
        if old is _UNKNOWN:
            if self._stat_lower(directory, name) is not None:
                yield self._remove(directory, name)
        elif isinstance(old, Directory):
            if self._is_ours(old):
                yield from self._remove_lower(old)
            else:
                yield self._remove(directory, name)

    def opaque(self, directory: Directory) -> Iterator[Entry]:
        """Remove all that the parent layers have in a directory."""
        if not self._shows(directory):
            return
        if self._has_content(directory):
            yield from self._remove_lower(directory)
        else:
            directory.clear()
            directory.lower = False
            self._forget()
            yield Entry(path=directory.path, kind=Kind.OPAQUE)

    def _remove(self, directory: Directory, name: str) -> Entry:
        directory.put(name, None)
        self._forget()
        return Entry(path=join(directory.path, name), kind=Kind.WHITEOUT)

    def _remove_lower(self, top: Directory) -> Iterator[Entry]:
        todo = [top]
        while todo:
            directory = todo.pop()
            if self._parent is not None and self._shows(directory):
                for entry in self._parent.scandir(directory.path):
                    old = directory.get(entry.name, _UNKNOWN)
                    if isinstance(old, Directory) and self._is_ours(old):
                        todo.append(old)
                    elif old is _UNKNOWN or isinstance(old, Directory):
                        yield self._remove(directory, entry.name)
                directory.lower = False

    def _is_ours(self, directory: Directory) -> bool:
        return directory.own or self._has_content(directory)

    def _has_content(self, top: Directory) -> bool:
        todo = [top]
        while todo:
            for node in todo.pop().children.values():
                if isinstance(node, Directory) and not node.own:
                    todo.append(node)
                elif node is not None:
                    return True
        return False
