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
from collections.abc import Callable, Iterator
from typing import cast

from ..entry import Entry, Kind, join
from ..errors import ArchiveError
from ..tree import MAX_SYMLINKS, Tree
from .directories import UNKNOWN, Directory, Node, Scratch
from .limits import Limits

_MAX_NAME = 255
_MEMO = 4096
#: Characters of them.
_MEMO_TEXT = 1 << 20


class View:
    """The merged tree, as far as one layer has got."""

    def __init__(
        self,
        parent: Tree | None,
        limits: Limits,
        make: Callable[[str], None],
        scratch: str | None = None,
    ) -> None:
        """``scratch``: the directory for what takes too much memory."""
        self._parent = parent
        self._limits = limits
        self._make = make
        self.scratch = Scratch(scratch)
        self.root = Directory(self.scratch, "", own=False, lower=parent is not None)
        self._memo: dict[str, Directory] = {}
        self._links: set[str] = set()
        self._memo_text = 0

    def settle(self) -> None:
        """To be called between two entries: no ``Directory`` but the root counts behind it."""
        if self.scratch.is_due:
            self._forget()
            self.scratch.spill(self.root)

    def close(self) -> None:
        """Let go of what is on disk. Closing twice is fine."""
        self.scratch.close()

    # -- looking ------------------------------------------------------------------------------

    def look(self, directory: Directory, name: str) -> Node:
        """Say what has this name; None: nothing."""
        known = directory.get(name, UNKNOWN)
        if known is not UNKNOWN:
            return cast("Node", known)
        entry = self._stat_lower(directory, name)
        if entry is None:
            return None
        if entry.kind is Kind.DIRECTORY:
            node = Directory(self.scratch, entry.path, own=False, lower=True)
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
            self._memo_text += len(path)
            if node.startswith("/"):
                del trail[1:]
            todo.extend(node.split("/")[::-1])
        if len(self._memo) >= _MEMO or self._memo_text >= _MEMO_TEXT:
            self._forget()
        self._memo[name] = trail[-1]
        self._memo_text += len(name)
        return trail[-1]

    def _make_directory(self, above: Directory, name: str) -> Directory:
        path = self.path(above, name)
        self._make(path)
        node = Directory(self.scratch, path, own=True, lower=False)
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

    def put_directory(self, directory: Directory, name: str, path: str) -> None:
        """Note that this layer has a directory at ``path``; one over another keeps its content."""
        old = directory.get(name, UNKNOWN)
        if isinstance(old, Directory):
            old.own = True
            return
        if path in self._links:
            self._forget()
        lower = None if old is UNKNOWN and directory.lower is not False else False
        directory.put(name, Directory(self.scratch, path, own=True, lower=lower))

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
                for child, node in below.items():
                    if isinstance(node, Directory):
                        todo.append(node)
                    elif isinstance(node, int) and node:
                        yield join(below.path, child), node

    def _forget(self) -> None:
        self._memo.clear()
        self._links.clear()
        self._memo_text = 0

    # -- whiteouts ----------------------------------------------------------------------------

    def whiteout(self, directory: Directory, name: str) -> Iterator[Entry]:
        """Remove what the parent layers have at one name; nothing if they have nothing."""
        old = directory.get(name, UNKNOWN)
        if old is UNKNOWN:
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
                for name in self._parent.listdir(directory.path):
                    old = directory.get(name, UNKNOWN)
                    if old is UNKNOWN:
                        # There may be a million: that nothing shows through any more says it all.
                        yield Entry(path=join(directory.path, name), kind=Kind.WHITEOUT)
                    elif isinstance(old, Directory):
                        if self._is_ours(old):
                            todo.append(old)
                        else:
                            yield self._remove(directory, name)
                directory.lower = False
                self._forget()

    def _is_ours(self, directory: Directory) -> bool:
        return directory.own or self._has_content(directory)

    def _has_content(self, top: Directory) -> bool:
        todo = [top]
        while todo:
            for _, node in todo.pop().items():  # noqa: PERF102  # no dictionary
                if isinstance(node, Directory) and not node.own:
                    todo.append(node)
                elif node is not None:
                    return True
        return False
