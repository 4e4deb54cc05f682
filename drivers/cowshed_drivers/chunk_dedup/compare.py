"""Compare: what differs between two stored trees, in the time of the differences.

Two directories of equal digest are equal all the way down, so neither is opened. Of two large
directories only the pages that differ are.

Ownership is counted by *places*: how often an object occurs in a tree, over all paths. Counted so,
the difference between two trees is a signed sum that telescopes over any number of commits, and
the subtrees that two trees share cancel without being looked at. An object with a positive count
relative to a base occurs in the tree; one that occurs in the tree and not in the base has a
positive count. So to own what has a positive count is enough to keep a tree whole, as long as the
base stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, TypeAlias

from .chunks import list_rows, segment_rows
from .node import NO_DIGEST, Listing, Root, byte_order
from .nodes import Nodes
from .record import (
    CHUNK,
    DIRECTORY,
    FILE,
    FORM,
    LIST,
    Record,
    payload,
)
from .tally import Tally

if TYPE_CHECKING:
    from .relinks import Relinks

#: Path, or name in a directory, what was there, what is there.
Difference: TypeAlias = tuple[str, Record | None, Record | None]

_Named: TypeAlias = tuple[str, Record]

_NO_PAGES = set[bytes]()


class Comparison:
    """Walks two trees side by side. With ``counts``, also sums up objects, in both directions."""

    def __init__(
        self,
        nodes: Nodes,
        old: bytes,
        new: bytes,
        *,
        counts: Tally | None = None,
        also: Relinks | None = None,
    ) -> None:
        self._nodes = nodes
        self.old_digest = old
        self.new_digest = new
        self._counts = counts
        #: Files to yield even if nothing differs, with the directories on the way to them.
        self._also = None if also is None or also.are_none else also

    def __iter__(self) -> Iterator[Difference]:
        """Yield every difference but the root's own, parents first, in byte order of names.

        What goes with a removed directory is yielded only if objects are counted.
        """
        if self.old_digest == self.new_digest and self._also is None:
            return
        old = self._nodes.root(self.old_digest)
        new = self._nodes.root(self.new_digest)
        if self._counts is not None:
            self._count_roots(old, new)
        everything = self._counts is not None
        stack = [self._level(payload(old.record), payload(new.record), "")]
        while stack:
            for difference in stack[-1]:
                path, before, after = difference
                yield difference
                was = payload(before) if before is not None and before[0] == DIRECTORY else b""
                now = payload(after) if after is not None and after[0] == DIRECTORY else b""
                if (was != now and (now or everything or _is_directory(after))) or (
                    _is_directory(after) and self._leads_to(path)
                ):
                    stack.append(self._level(was, now, path))
                    break
            else:
                stack.pop()

    def _leads_to(self, path: str) -> bool:
        return self._also is not None and self._also.leads_to(path)

    def drain(self) -> None:
        """Walk for the counts alone."""
        for _ in self:
            pass

    def _level(self, old: bytes, new: bytes, path: str) -> Iterator[Difference]:
        return self._differing(old, new, path) if old else self._fresh(new, path)

    def _fresh(self, new: bytes, path: str) -> Iterator[Difference]:
        """Yield what is in a directory that wasn't, however large, page by page."""
        prefix = f"{path}/" if path else ""
        pages = self._nodes.pages(new)
        if self._counts is not None:
            self._count_pages(new, pages, 1)
        for page in pages:
            for name, record in self._nodes.page(page).items():
                if self._counts is not None:
                    self._count_content(None, record)
                yield prefix + name, None, record

    def _differing(self, old: bytes, new: bytes, path: str) -> Iterator[Difference]:
        prefix = f"{path}/" if path else ""
        counting = self._counts is not None
        also = self._also
        for name, one, other in self._pairs(old, new, path):
            if one == other and (also is None or not also.leads_to(prefix + name)):
                continue
            if counting:
                self._count_content(one, other)
            yield prefix + name, one, other

    def _pairs(self, old: bytes, new: bytes, path: str) -> Iterator[Difference]:
        """Yield the names in either of two directories, but for those of pages that both have."""
        nodes = self._nodes
        one, other = nodes.pages(old), nodes.pages(new)
        if self._counts is not None:
            self._count_pages(old, one, -1)
            self._count_pages(new, other, 1)
        if len(one) <= 1 and len(other) <= 1:
            return _joined(nodes.directory(old), nodes.directory(new))
        shared = _NO_PAGES if self._leads_to(path) else {*one} & {*other}
        return _merged(nodes.outside(one, shared), nodes.outside(other, shared))

    # -- counting -----------------------------------------------------------------------------

    def _add(self, digest: bytes, sign: int) -> None:
        counts = self._counts
        if counts is not None:
            counts.add(digest, sign)

    def _count_pages(self, digest: bytes, pages: tuple[bytes, ...], sign: int) -> None:
        for page in pages:
            self._add(page, sign)
        if digest and pages != (digest,):
            self._add(digest, sign)

    def _count_roots(self, old: Root, new: Root) -> None:
        self._add(self.old_digest, -1)
        self._add(self.new_digest, 1)
        if old.links != new.links:
            for digest, sign in ((old.links, -1), (new.links, 1)):
                if digest != NO_DIGEST:
                    self._count_pages(digest, self._nodes.pages(digest), sign)

    def _count_content(self, old: Record | None, new: Record | None) -> None:
        was = _stored(old)
        now = _stored(new)
        if was == now:
            return
        if was is not None and now is not None and was[0] == now[0] == LIST:
            self._add(was[1], -1)
            self._add(now[1], 1)
            before = Counter(list_rows(self._nodes.get(was[1])))
            after = Counter(list_rows(self._nodes.get(now[1])))
            self._count_segments(before - after, -1)
            self._count_segments(after - before, 1)
            return
        for stored, sign in ((was, -1), (now, 1)):
            if stored is not None:
                self._add(stored[1], sign)
                if stored[0] == LIST:
                    self._count_segments(Counter(list_rows(self._nodes.get(stored[1]))), sign)

    def _count_segments(self, segments: Counter[tuple[int, bytes]], sign: int) -> None:
        for (_, segment), times in segments.items():
            if segment == NO_DIGEST:
                continue
            self._add(segment, sign * times)
            for _, chunk in segment_rows(self._nodes.get(segment)):
                if chunk != NO_DIGEST:
                    self._add(chunk, sign * times)


def _is_directory(record: Record | None) -> bool:
    return record is not None and record[0] == DIRECTORY


def _stored(record: Record | None) -> tuple[int, bytes] | None:
    """Return a file's form and digest, or None if no object holds its content."""
    if record is None or record[0] != FILE:
        return None
    form = record[1] & FORM
    return (form, payload(record)) if form in (CHUNK, LIST) else None


def _joined(before: Listing, after: Listing) -> Iterator[Difference]:
    names: Collection[str] = before or after
    if before and after and before.keys() != after.keys():
        names = sorted(before.keys() | after.keys(), key=byte_order)
    return ((name, before.get(name), after.get(name)) for name in names)


def _merged(before: Iterator[_Named], after: Iterator[_Named]) -> Iterator[Difference]:
    """Yield what is in either of two directories that may be too large to have in memory."""
    one, other = next(before, None), next(after, None)
    while one is not None and other is not None:
        if one[0] == other[0]:
            yield one[0], one[1], other[1]
            one, other = next(before, None), next(after, None)
        elif byte_order(one[0]) < byte_order(other[0]):
            yield *one, None
            one = next(before, None)
        else:
            yield other[0], None, other[1]
            other = next(after, None)
    while one is not None:
        yield *one, None
        one = next(before, None)
    while other is not None:
        yield other[0], None, other[1]
        other = next(after, None)
