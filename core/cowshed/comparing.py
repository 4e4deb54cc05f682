"""Comparing: the exact changes between any two trees, for drivers that know no shorter way."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Set

from .entry import Change, ChangeKind, Entry, Kind, parent_of
from .tree import Tree

_PIECE = 1 << 20


def compare_trees(
    old: Tree, new: Tree, same_content: Callable[[str], bool] | None = None
) -> Iterator[Change]:
    """Yield what ``Driver.changes`` promises, for a container ``new`` on a layer ``old``.

    ``same_content`` says whether the files at a path, of one size and not empty, hold the same;
    without it they are read. Everything is described before the first change is yielded, because a
    link made at the end of a tree may change a file at its beginning.
    """
    before = {entry.path: entry for entry in old.walk()}
    after = {entry.path: entry for entry in new.walk()}
    same = same_content or functools.partial(_same_bytes, old, new)
    kinds: dict[str, ChangeKind] = {}
    for path, entry in after.items():
        was = before.get(path)
        if was is None:
            kinds[path] = ChangeKind.ADDED
        elif was != entry or (entry.size and not same(path)):
            kinds[path] = ChangeKind.MODIFIED
    for path in before.keys() - after.keys():
        above = after.get(parent_of(path))
        if above is not None and above.kind is Kind.DIRECTORY:
            kinds[path] = ChangeKind.DELETED
    for path in _linked_anew(before, after, kinds.keys()):
        kinds[path] = ChangeKind.MODIFIED
    for path in list(kinds):
        while path := parent_of(path):
            kinds.setdefault(path, ChangeKind.MODIFIED)
    for path in sorted(kinds, key=path_order):
        if kinds[path] is ChangeKind.DELETED:
            yield Change(kinds[path], Entry(path=path, kind=Kind.WHITEOUT))
        else:
            yield Change(kinds[path], after[path])


def path_order(path: str) -> list[bytes]:
    """Return the key of path order: parents first, names by their bytes."""
    return [os.fsencode(name) for name in path.split("/")] if path else []


def _linked_anew(
    before: Mapping[str, Entry], after: Mapping[str, Entry], changed: Set[str]
) -> list[str]:
    """Return the unchanged paths whose file has other names than it had, as far as those are
    unchanged too."""
    had, has = _names(before), _names(after)
    found: list[str] = []
    for path, entry in after.items():
        if path not in changed and entry.kind is not Kind.DIRECTORY:
            kept = {name for name in had.get(before[path].inode, {path}) if name not in changed}
            if has.get(entry.inode, {path}) != (kept & after.keys()):
                found.append(path)
    return found


def _names(entries: Mapping[str, Entry]) -> dict[int, set[str]]:
    """Return the names of each file that has several, by inode."""
    names: dict[int, set[str]] = {}
    for path, entry in entries.items():
        if entry.links > 1 and entry.kind is not Kind.DIRECTORY:
            names.setdefault(entry.inode, set()).add(path)
    return names


def _same_bytes(old: Tree, new: Tree, path: str) -> bool:
    with old.open(path) as one, new.open(path) as other:
        while True:
            piece = one.read(_PIECE)
            if piece != other.read(_PIECE):
                return False
            if not piece:
                return True
