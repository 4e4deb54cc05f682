"""Absorbing: what processes wrote into an upper directory becomes the driver's container's.

The container always is the layer and what was absorbed so far. So only what is in the upper
directory now, or was when we looked last (``memo``), can differ, and one walk of that directory
finds what to do. It is planned first, on the container as others see it, and done only if there is
anything to do.

Processes may go on writing. A file's ctime says that it changed, except for what is written through
memory: that sets it when a page is first written to after it went to the disk. So what changed is
written out before it is read, and a file whose ctime moved meanwhile is looked at again next time.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..driver import Driver
from ..entry import Entry, Kind, join
from ..native.directories import Directories
from ..native.syscalls import list_directory, syncfs
from ..tree import Tree
from .bringing import Bringer, Step
from .filling import sign_of
from .format import Format, below, is_whiteout
from .memo import Memo, Sign
from .siblings import Siblings

#: In the directory of a mount.
UPPER = "upper"


def absorb(
    home: Path, format: Format, driver: Driver, container: str, layer: str, *, last: bool
) -> bool:
    """Make ``container`` of ``driver`` what its mount shows; return whether anything was to do.

    ``layer``: what the container stands on, or nothing. ``last``: nobody writes any more.
    """
    memo = Memo.read(home)
    upper = str(home / UPPER)
    below_it = driver.tree(layer) if layer else None
    try:
        hidden = memo.hidden
        with driver.tree(container) as tree:
            try:
                plan = _Planner(upper, format, tree, below_it, memo, hidden)
            except FileNotFoundError:
                return False  # nothing was mounted yet
            try:
                if not memo.known:
                    plan.suspects = {change.path for change in driver.changes(container)}
                steps = list(plan.steps())
                signs = plan.signs
                if not steps:
                    if signs != memo.signs:
                        Memo(signs, hidden).write(home)
                    return False
                memo.expecting(step.path for step in steps).write(home)
                if not last:
                    syncfs(plan.directories.root)
                with driver.tree(container, writable=True) as target:
                    siblings = None
                    if below_it is not None:
                        siblings = Siblings(below_it, signs, memo.signs)
                    bringer = Bringer(plan.directories, format, target, below_it, siblings)
                    for step in steps:
                        bringer.do(step)
                signs |= bringer.signs
            finally:
                plan.close()
        Memo(signs, hidden).write(home)
        return True
    finally:
        if below_it is not None:
            below_it.close()


class _Level(NamedTuple):
    path: str
    #: The path below it, if it is merged with something.
    lower: str | None
    #: Whether what the layer has there isn't what the container has there.
    moved: bool
    #: What the container has there.
    was: Entry | None


class _Planner:
    """Compares. ``signs`` is what to remember, once ``steps`` were all made and done."""

    def __init__(
        self,
        upper: str,
        format: Format,
        tree: Tree,
        layer: Tree | None,
        memo: Memo,
        hidden: set[str],
    ) -> None:
        self.directories = Directories(upper)
        self.signs: dict[str, Sign] = {}
        #: Paths that may differ from the layer although ``memo`` doesn't know them.
        self.suspects: set[str] = set()
        self._format = format
        self._tree = tree
        self._layer = layer
        self._memo = memo
        self._hidden = hidden
        #: Files with several names, by inode.
        self._linked: dict[int, list[tuple[str, Sign, str | None, bool]]] = {}

    def close(self) -> None:
        """Let go of descriptors."""
        self.directories.close()

    def steps(self) -> Iterator[Step]:
        """Yield what is to be done, in order."""
        root = self._tree.stat("")
        yield from self._directory(_Level("", "" if self._layer is not None else None, False, root))
        yield from self._links()

    def _directory(self, top: _Level) -> Iterator[Step]:
        # A stack of our own: images hold trees deeper than Python recurses.
        stack: list[tuple[_Level, Iterator[Step | _Level], bool]] = [
            (top, self._inside(top), False)
        ]
        while stack:
            level, rest, touched = stack[-1]
            found = next(rest, None)
            if isinstance(found, Step):
                stack[-1] = (level, rest, True)
                yield found
            elif found is not None:
                stack.append((found, self._inside(found), False))
            else:
                stack.pop()
                yield from self._attributes(level, touched)

    def _attributes(self, level: _Level, touched: bool) -> Iterator[Step]:
        fd, name = self.directories.at(level.path)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            entry = self._format.describe(level.path, fd, name, status)
        except FileNotFoundError:
            return
        if entry is not None and entry.kind is Kind.DIRECTORY:
            entry = self._format.meant(entry, level.was)
            if touched or entry != level.was:
                yield Step("attributes", level.path, entry=entry)

    def _inside(self, level: _Level) -> Iterator[Step | _Level]:
        path, lower = level.path, level.lower
        self.signs[path] = [lower]
        fresh = _is_new(level.was)
        try:
            fd = self.directories.fd(path)
            names = list_directory(fd)
            found = {name: os.stat(name, dir_fd=fd, follow_symlinks=False) for name in names}
        except (FileNotFoundError, NotADirectoryError):
            return  # a process removed it just now; the next look sees the whole of it
        here = {} if fresh else {entry.name: entry for entry in self._tree.scandir(path)}
        shows: dict[str, Entry] = {}
        if lower is not None and self._layer is not None:
            shows = {entry.name: entry for entry in self._layer.scandir(lower)}
        for name in here:
            at = join(path, name)
            status = found.get(name)
            gone = name not in shows if status is None else not _is_shown(status)
            if gone and at not in self._hidden:
                yield Step("remove", at)
        for name, entry in shows.items():
            at = join(path, name)
            if name not in found and at not in self._hidden and (
                level.moved or name not in here or at in self._memo.signs or at in self.suspects
            ):  # fmt: skip
                yield Step("restore", at, below=entry.path)
        for name in sorted(found):
            if _is_shown(found[name]):
                yield from self._object(level, name, found[name], here.get(name), shows.get(name))

    def _object(
        self,
        level: _Level,
        name: str,
        status: os.stat_result,
        was: Entry | None,
        shown: Entry | None,
    ) -> Iterator[Step | _Level]:
        path = join(level.path, name)
        fd = self.directories.fd(level.path)
        if stat_module.S_ISDIR(status.st_mode):
            if _is_new(was):
                yield Step("directory", path)
            marks = self._format.marks(fd, name)
            lower: str | None = None
            if marks.get("opaque") != b"y" and level.lower is not None:
                if "redirect" in marks:
                    lower = below(marks["redirect"], level.lower)
                elif shown is not None and shown.kind is Kind.DIRECTORY:
                    lower = shown.path
            elif marks.get("opaque") != b"y" and marks.get("redirect", b"").startswith(b"/"):
                lower = below(marks["redirect"], None)
            known = self._memo.signs.get(path)
            usual = path if not level.moved else None
            before = known[0] if known and len(known) == 1 else usual
            yield _Level(path, lower, level.moved or lower != before, was)
            return
        sign = sign_of(status)
        moved = level.moved or was is None
        if status.st_nlink > 1:
            self._linked.setdefault(status.st_ino, []).append((path, sign, level.lower, moved))
        elif moved or (known := self._memo.signs.get(path)) is None or known[:2] != sign:
            self.signs[path] = []
            yield Step("put", path, below=level.lower, intact=self._intact(path, level))
        else:
            self.signs[path] = known

    def _intact(self, path: str, level: _Level) -> bool:
        """Say whether the container has the layer's content there, if that has the file there."""
        sign = self._memo.signs.get(path)
        if sign is None:
            return self._memo.known and not level.moved and path not in self._hidden
        return len(sign) > 2

    def _links(self) -> Iterator[Step]:
        """Bring a file of several names whole if anything about any of them is new."""
        for group in self._linked.values():
            if not any(
                moved or self._memo.signs.get(path, [])[:2] != sign
                for path, sign, _, moved in group
            ):
                self.signs.update((path, self._memo.signs[path]) for path, _, _, _ in group)
                continue
            self.signs.update((path, []) for path, _, _, _ in group)
            first, _, lower, _ = group[0]
            yield Step("put", first, below=lower)
            for path, _, _, _ in group[1:]:
                yield Step("link", path, target=first)


def _is_new(was: Entry | None) -> bool:
    """Say whether a directory is none in the container yet."""
    return was is None or was.kind is not Kind.DIRECTORY


def _is_shown(status: os.stat_result) -> bool:
    """Say whether an image has what the upper directory has there."""
    return not is_whiteout(status) and not stat_module.S_ISSOCK(status.st_mode)
