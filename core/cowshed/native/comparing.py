"""Comparing two native trees: exact, and cheap where both share an inode.

Metadata first; content only where all metadata is equal. So an mtime that was put back hides
nothing, and a farm's tree, where what nobody touched is still the same inode, costs two stats a
file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..entry import Change, ChangeKind, Entry, Kind
from .view import Found, NativeView

#: What a container without a parent starts as; ``prepare`` makes its root exactly so.
EMPTY_ROOT = Entry(path="", kind=Kind.DIRECTORY, mode=0o755)


class _Level:
    def __init__(
        self, found: Found | None, pairs: list[tuple[Found | None, Found | None]], listed: bool
    ) -> None:
        self.found = found
        self.pairs = pairs
        self.listed = listed


def compare(old: NativeView | None, new: NativeView) -> Iterator[Change]:
    """Yield what ``Driver.changes`` promises; ``old`` None stands for an empty root."""
    return Comparison(old, new).changes()


class Comparison:
    """Compares everything. A driver that knows where to look overrides ``pairs`` and ``links``."""

    def __init__(self, old: NativeView | None, new: NativeView) -> None:
        self.old = old
        self.new = new
        self._judged: dict[str, bool] = {}
        self._relinked: set[str] = set()

    def changes(self) -> Iterator[Change]:
        """Yield what differs, in path order."""
        self._relinked = self._find_relinked()
        new = self.new
        root = new.describe(new.find(""))
        before = EMPTY_ROOT if self.old is None else self.old.describe(self.old.find(""))
        if root != before:
            yield Change(ChangeKind.MODIFIED, root)
        levels = [_Level(None, self.pairs("", beside=True), True)]
        while levels:
            level = levels[-1]
            if not level.pairs:
                levels.pop()
                continue
            was, now = level.pairs.pop()
            try:
                kind = self._judge(was, now)
                entry = None if kind is None or now is None else new.describe(now)
            except OSError as error:
                if now is None:
                    raise
                again = new.find_again(now, error)
                if was is not None or again is not None:
                    level.pairs.append((was, again))
                continue
            if kind is not None:
                yield from self._above(levels)
                if entry is None:
                    assert was is not None
                    entry = Entry(path=was.path, kind=Kind.WHITEOUT)
                yield Change(kind, entry)
            if now is not None and now.kind is Kind.DIRECTORY:
                beside = was is not None and was.kind is Kind.DIRECTORY
                try:
                    pairs = self.pairs(now.path, beside=beside)
                except OSError as error:
                    if not new.is_gone(error):
                        raise
                    continue
                levels.append(_Level(now, pairs, kind is not None))

    def _above(self, levels: list[_Level]) -> Iterator[Change]:
        """Yield the directories above a change that weren't yielded yet."""
        for above in levels:
            if not above.listed and above.found is not None:
                try:
                    entry = self.new.describe(above.found)
                except OSError as error:
                    if not self.new.is_gone(error):
                        raise
                    continue
                yield Change(ChangeKind.MODIFIED, entry)
                above.listed = True

    def pairs(self, path: str, *, beside: bool) -> list[tuple[Found | None, Found | None]]:
        """Return what both hold in directory ``path``, matched by name, last name first.

        ``beside``: the old tree has a directory there as well.
        """
        before = (
            {found.name: found for found in self.old.scan(path)}
            if beside and self.old is not None
            else {}
        )
        result: list[tuple[Found | None, Found | None]] = [
            (before.pop(found.name, None), found) for found in self.new.scan(path)
        ]
        if before:
            result.extend((found, None) for found in before.values())
            result.sort(key=_name)
        result.reverse()
        return result

    def links(self, old: NativeView) -> tuple[dict[str, int], dict[str, int]]:
        """Return every name of files that have several, with the inode they share, before and now;
        at least of those files that have other names now."""
        return old.hard_links(), self.new.hard_links()

    def _judge(self, was: Found | None, now: Found | None) -> ChangeKind | None:
        if now is None:
            return ChangeKind.DELETED
        if was is None:
            return ChangeKind.ADDED
        if now.path in self._relinked or not self._equal(was, now):
            return ChangeKind.MODIFIED
        return None

    def _equal(self, was: Found, now: Found) -> bool:
        assert self.old is not None
        one, other = was.status, now.status
        same_inode = self.new.same_inode(was, now)
        if same_inode and was.record is None and now.record is None:
            return True
        if one.st_size != other.st_size and was.kind is now.kind is Kind.FILE:
            return False
        known = self._judged.get(now.path)
        if known is not None:
            return known
        if self.old.describe(was) != self.new.describe(now):
            return False
        return same_inode or now.kind is not Kind.FILE or self._same_content(was, now)

    def _same_content(self, was: Found, now: Found) -> bool:
        assert self.old is not None
        one = self.old.open_found(was, os.O_RDONLY)
        try:
            other = self.new.open_found(now, os.O_RDONLY)
            try:
                if self.new.same_data(one, other):
                    return True
                while True:
                    data = os.read(one, 1 << 20)
                    if data != os.read(other, 1 << 20):
                        return False
                    if not data:
                        return True
            finally:
                os.close(other)
        finally:
            os.close(one)

    def _find_relinked(self) -> set[str]:
        """Return the paths whose object is as it was, yet has other names than it had.

        Names that changed anyway don't count: they will be written anew with all their links.
        """
        if self.old is None:
            return set()
        before, after = self.links(self.old)
        equal: set[str] = set()
        for path in before.keys() | after.keys():
            try:
                was, now = self.old.find(path), self.new.find(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                self._judged[path] = self._equal(was, now)
            except OSError as error:
                if not self.new.is_gone(error):
                    raise
                continue
            if self._judged[path]:
                equal.add(path)
        had, have = _names(before), _names(after)
        relinked: set[str] = set()
        for path in equal:
            old_names = had.get(before.get(path, 0), {path}) & equal
            if have.get(after.get(path, 0), {path}) != old_names:
                relinked.add(path)
        return relinked


def _name(pair: tuple[Found | None, Found | None]) -> bytes:
    found = pair[1] or pair[0]
    assert found is not None
    return os.fsencode(found.name)


def _names(inodes: dict[str, int]) -> dict[int, set[str]]:
    groups: dict[int, set[str]] = {}
    for path, inode in inodes.items():
        groups.setdefault(inode, set()).add(path)
    return groups
