"""Changes: what ``Driver.changes`` promises, from a comparison of two stored trees.

Records can differ and still describe equal files: in their inode numbers, or in where their
content is cut. And they can be equal where a name was moved from one file to another. So each
difference is judged, a directory is announced when something below it really differs, and the
rows of the two link tables that differ are looked at name by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cowshed.entry import Change, ChangeKind, Entry, Kind

from .compare import Comparison
from .content import Content
from .links import Seen
from .node import Root
from .nodes import Nodes
from .record import (
    CHUNK,
    DIRECTORY,
    FILE,
    FORM,
    LIST,
    Record,
    payload,
    same_object,
    to_entry,
    with_payload,
)

if TYPE_CHECKING:
    from .relinks import Relinks


def changes(
    nodes: Nodes, old_digest: bytes, new_digest: bytes, spilling: Path | None = None
) -> Iterator[Change]:
    """Yield the differences between two trees, as a container's to its parent. ``spilling``: where
    to write what else would take memory."""
    if old_digest == new_digest:
        return
    old, new = nodes.root(old_digest), nodes.root(new_digest)
    if with_payload(old.record, b"") != with_payload(new.record, b""):
        yield Change(ChangeKind.MODIFIED, to_entry("", new.record))
    with ExitStack() as stack:
        relinks: Relinks | None = None
        if old.links != new.links:
            from .relinks import Relinks  # with SQLite, which few need

            relinks = stack.enter_context(closing(Relinks(spilling)))
            relinks.find(nodes, old.links, new.links, partial(_is_equal, nodes, old, new))
        yield from _judged(nodes, Comparison(nodes, old_digest, new_digest, also=relinks), relinks)


def _judged(nodes: Nodes, found: Comparison, relinks: Relinks | None) -> Iterator[Change]:
    waiting: list[Change] = []
    for path, before, after in found:
        while waiting and not path.startswith(waiting[-1].entry.path + "/"):
            waiting.pop()
        change = _judge(nodes, path, before, after, relinks is not None and path in relinks)
        if change is None:
            if after is not None and after[0] == DIRECTORY:
                waiting.append(Change(ChangeKind.MODIFIED, to_entry(path, after)))
            continue
        yield from waiting
        waiting.clear()
        yield change


def brought(found: Iterable[Change]) -> int:
    """Return the content of the files in changes, in bytes, a file of several names once."""
    total = 0
    seen = Seen()
    for change in found:
        entry = change.entry
        if entry.kind is Kind.FILE and (not entry.inode or seen.add(entry.inode)):
            total += entry.size
    return total


def equal_objects(nodes: Nodes, one: Record, other: Record) -> bool:
    """Say whether two records describe equal objects; of directories, attributes alone."""
    if one[0] == other[0] == DIRECTORY:
        return with_payload(one, b"") == with_payload(other, b"")
    return same_object(one, other) or _equal_files(nodes, one, other)


def _judge(
    nodes: Nodes, path: str, before: Record | None, after: Record | None, forced: bool
) -> Change | None:
    if after is None:
        return Change(ChangeKind.DELETED, Entry(path=path, kind=Kind.WHITEOUT))
    if before is None:
        return Change(ChangeKind.ADDED, to_entry(path, after))
    if not forced and equal_objects(nodes, before, after):
        return None
    return Change(ChangeKind.MODIFIED, to_entry(path, after))


def _equal_files(nodes: Nodes, one: Record, other: Record) -> bool:
    """Say whether two files are equal though their contents are cut differently."""
    if one[0] != FILE or other[0] != FILE or one[6] != other[6]:
        return False
    if to_entry("", one) != to_entry("", other):
        return False
    if not {one[1] & FORM, other[1] & FORM} & {LIST, CHUNK}:
        return one[1] & FORM == other[1] & FORM and payload(one) == payload(other)
    left = Content(nodes.get, _refuse, 0, one)
    right = Content(nodes.get, _refuse, 0, other)
    step = 1 << 20
    return all(left.read(at, step) == right.read(at, step) for at in range(0, one[6], step))


def _refuse(data: bytes) -> bytes:
    raise AssertionError("reading stores nothing")


def _is_equal(nodes: Nodes, old: Root, new: Root, path: str) -> bool:
    """Say whether two trees have equal objects at ``path``, but directories."""
    one, other = nodes.find(old.record, path), nodes.find(new.record, path)
    return (
        one is not None
        and other is not None
        and one[0] != DIRECTORY != other[0]
        and equal_objects(nodes, one, other)
    )
