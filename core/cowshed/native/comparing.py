"""Comparing two native trees: exact, and cheap where both share an inode.

Metadata first; content only where all metadata is equal. So an mtime that was put back hides
nothing, and a farm's tree, where what nobody touched is still the same inode, costs two stats a
file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs

from ..entry import Change, ChangeKind, Entry, Kind
from .view import Found, NativeView

#: What a container without a parent starts as; ``prepare`` makes its root exactly so.
EMPTY_ROOT = Entry(path="", kind=Kind.DIRECTORY, mode=0o755)


@attrs.define
class _Level:
    found: Found | None
    pairs: list[tuple[Found | None, Found | None]]
    listed: bool


def compare(old: NativeView | None, new: NativeView) -> Iterator[Change]:
    """Yield what ``Driver.changes`` promises; ``old`` None stands for an empty root."""
    comparison = _Comparison(old, new)
    root = new.describe(new.find(""))
    before = EMPTY_ROOT if old is None else old.describe(old.find(""))
    if root != before:
        yield Change(ChangeKind.MODIFIED, root)
    levels = [_Level(None, comparison.pairs("", beside=True), True)]
    while levels:
        level = levels[-1]
        if not level.pairs:
            levels.pop()
            continue
        was, now = level.pairs.pop()
        kind = comparison.judge(was, now)
        if kind is not None:
            for above in levels:
                if not above.listed and above.found is not None:
                    yield Change(ChangeKind.MODIFIED, new.describe(above.found))
                    above.listed = True
            if now is None:
                assert was is not None
                yield Change(kind, Entry(path=was.path, kind=Kind.WHITEOUT))
            else:
                yield Change(kind, new.describe(now))
        if now is not None and now.kind is Kind.DIRECTORY:
            beside = was is not None and was.kind is Kind.DIRECTORY
            pairs = comparison.pairs(now.path, beside=beside)
            levels.append(_Level(now, pairs, kind is not None))


class _Comparison:
    def __init__(self, old: NativeView | None, new: NativeView) -> None:
        self._old = old
        self._new = new
        self._judged: dict[str, bool] = {}
        self._relinked = self._find_relinked()

    def pairs(self, path: str, *, beside: bool) -> list[tuple[Found | None, Found | None]]:
        """Return what both hold in ``path``, matched by name, last name first."""
        before = (
            {found.name: found for found in self._old.scan(path)}
            if beside and self._old is not None
            else {}
        )
        result: list[tuple[Found | None, Found | None]] = [
            (before.pop(found.name, None), found) for found in self._new.scan(path)
        ]
        if before:
            result.extend((found, None) for found in before.values())
            result.sort(key=_name)
        result.reverse()
        return result

    def judge(self, was: Found | None, now: Found | None) -> ChangeKind | None:
        if now is None:
            return ChangeKind.DELETED
        if was is None:
            return ChangeKind.ADDED
        if now.path in self._relinked or not self._equal(was, now):
            return ChangeKind.MODIFIED
        return None

    def _equal(self, was: Found, now: Found) -> bool:
        assert self._old is not None
        one, other = was.status, now.status
        same_inode = self._new.same_inode(was, now)
        if same_inode and was.record is None and now.record is None:
            return True
        if one.st_size != other.st_size and was.kind is now.kind is Kind.FILE:
            return False
        known = self._judged.get(now.path)
        if known is not None:
            return known
        if self._old.describe(was) != self._new.describe(now):
            return False
        return same_inode or now.kind is not Kind.FILE or self._same_content(was, now)

    def _same_content(self, was: Found, now: Found) -> bool:
        assert self._old is not None
        one = self._old.open_found(was, os.O_RDONLY)
        try:
            other = self._new.open_found(now, os.O_RDONLY)
            try:
                if self._new.same_data(one, other):
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
        if self._old is None:
            return set()
        before, after = self._old.hard_links(), self._new.hard_links()
        equal: set[str] = set()
        for path in before.keys() | after.keys():
            try:
                was, now = self._old.find(path), self._new.find(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            self._judged[path] = self._equal(was, now)
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
