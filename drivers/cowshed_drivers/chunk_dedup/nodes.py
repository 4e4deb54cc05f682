"""Nodes: decoded directories and roots by digest, kept as long as there is room.

Objects are named by their digest, so a decoded one is right whoever fetched it: a view ``through``
an unfinished writer shares the cache with everybody else.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from .node import (
    Entries,
    Listing,
    MalformedError,
    Root,
    byte_order,
    decode_page,
    page_digests,
    page_extent,
)
from .pack import DamagedError
from .record import DIRECTORY, Record, payload, weight

#: Entries kept decoded, about 400 bytes each.
ENTRIES = 40_000
_ROOTS = 1_000
#: Digests of pages, about 75 bytes each.
_DIGESTS = 100_000
#: Pages, of some 128 entries each, up to which a directory is kept as a whole.
_MANY = 128
#: First names of pages of larger directories, about 100 bytes each.
_FIRSTS = 100_000

_EMPTY: Entries = {}

T = TypeVar("T")


class Recent(Generic[T]):
    """What was found last under digests, up to a weight, and the last in any case."""

    def __init__(self, most: int, weigh: Callable[[T], int]) -> None:
        self.most = most
        self._weigh = weigh
        self._guard = threading.Lock()
        self._found: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._total = 0

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._found

    def get(self, digest: bytes) -> T | None:
        """Return what was found."""
        found = self._found.get(digest)
        return None if found is None else found[0]

    def use(self, digest: bytes) -> T | None:
        """Return it, and keep it longer than what isn't used."""
        with self._guard:
            if digest in self._found:
                self._found.move_to_end(digest)
        return self.get(digest)

    def keep(self, digest: bytes, found: T) -> None:
        """Keep what was found; of what came first, no more than there is room for."""
        weight = self._weigh(found)
        with self._guard:
            if digest not in self._found:
                self._total += weight
                self._found[digest] = found, weight
            while self._total > self.most and len(self._found) > 1:
                self._total -= self._found.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._found.clear()
            self._total = 0


def _weight(entries: Entries) -> int:
    return sum(map(weight, entries.values()))


class _Cache:
    def __init__(self) -> None:
        self.pages: Recent[Entries] = Recent(ENTRIES, _weight)
        self.lists: Recent[tuple[bytes, ...]] = Recent(_DIGESTS, len)
        self.roots: Recent[Root] = Recent(_ROOTS, lambda root: 1)
        self.extents: Recent[tuple[list[bytes], int]] = Recent(_FIRSTS, lambda found: len(found[0]))


class Pages(Mapping[str, Record]):
    """A directory of very many entries, of which only the pages that are looked at are decoded."""

    def __init__(self, nodes: Nodes, digest: bytes, pages: tuple[bytes, ...]) -> None:
        self._nodes = nodes
        self._digest = digest
        self._pages = pages
        self._known: tuple[list[bytes], int] | None = None

    def _extents(self) -> tuple[list[bytes], int]:
        if self._known is None:
            self._known = self._nodes.extents(self._digest, self._pages)
        return self._known

    def __getitem__(self, name: str) -> Record:
        firsts, _ = self._extents()
        at = bisect_right(firsts, byte_order(name)) - 1
        if at < 0:
            raise KeyError(name)
        return self._nodes.page(self._pages[at])[name]

    def __iter__(self) -> Iterator[str]:
        for page in self._pages:
            yield from self._nodes.page(page)

    def __len__(self) -> int:
        return self._extents()[1]

    def items(self) -> ItemsView[str, Record]:
        return _Items(self)

    def pairs(self) -> Iterator[tuple[str, Record]]:
        """Yield names and records."""
        return self._nodes.outside(self._pages, ())


class _Items(ItemsView[str, Record]):
    _mapping: Pages

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return self._mapping.pairs()


class Nodes:
    """Reads directories and roots through ``get``, which returns an object's verified bytes."""

    def __init__(self, get: Callable[[bytes], bytes], cache: _Cache | None = None) -> None:
        self.get = get
        self._cache = cache or _Cache()

    def through(self, get: Callable[[bytes], bytes | None]) -> Nodes:
        """Return a view that asks ``get`` first."""
        behind = self.get

        def both(digest: bytes) -> bytes:
            data = get(digest)
            return behind(digest) if data is None else data

        return Nodes(both, self._cache)

    def root(self, digest: bytes) -> Root:
        """Return a root object, decoded.

        Raises:
            DamagedError: it is missing or isn't what was stored; so do all methods here.
        """
        cache = self._cache
        root = cache.roots.get(digest)
        if root is None:
            try:
                root = Root.decode(self.get(digest))
            except MalformedError as error:
                raise DamagedError(str(error)) from error
            cache.roots.keep(digest, root)
        return root

    def pages(self, digest: bytes) -> tuple[bytes, ...]:
        """Return the digests of a directory's pages: its own, if it is but one; none if empty."""
        if not digest:
            return ()
        cache = self._cache
        found = cache.lists.get(digest)
        if found is not None:
            return found
        if digest in cache.pages:
            return (digest,)
        data = self.get(digest)
        try:
            found = page_digests(data)
        except MalformedError as error:
            raise DamagedError(str(error)) from error
        if found is None:
            cache.pages.keep(digest, _decode(data))
            return (digest,)
        cache.lists.keep(digest, found)
        return found

    def page(self, digest: bytes) -> Entries:
        """Return a page's entries; not to be changed."""
        entries = self._cache.pages.get(digest)
        if entries is None:
            entries = _decode(self.get(digest))
            self._cache.pages.keep(digest, entries)
        return entries

    def outside(
        self, pages: Iterable[bytes], shared: Collection[bytes]
    ) -> Iterator[tuple[str, Record]]:
        """Yield what is in these pages, but for those that are ``shared``."""
        for page in pages:
            if page not in shared:
                yield from self.page(page).items()

    def extents(self, digest: bytes, pages: tuple[bytes, ...]) -> tuple[list[bytes], int]:
        """Return the first name of each of a directory's pages, and how many entries there are."""
        found = self._cache.extents.use(digest)
        if found is None:
            firsts: list[bytes] = []
            total = 0
            for page in pages:
                try:
                    first, count = page_extent(self.get(page))
                except MalformedError as error:
                    raise DamagedError(str(error)) from error
                firsts.append(first)
                total += count
            found = firsts, total
            self._cache.extents.keep(digest, found)
        return found

    def directory(self, digest: bytes) -> Listing:
        """Return all entries of a directory, in byte order; not to be changed."""
        if not digest:
            return _EMPTY
        entries = self._cache.pages.get(digest)
        if entries is not None:
            return entries
        pages = self.pages(digest)
        if pages == (digest,):
            return self.page(digest)
        if len(pages) > _MANY:
            return Pages(self, digest, pages)
        whole: Entries = {}
        for page in pages:
            whole.update(self._cache.pages.get(page) or _decode(self.get(page)))
        # Under the list's own digest: a look-up in a large directory shall not join pages again.
        self._cache.pages.keep(digest, whole)
        return whole

    def by_pages(self, digest: bytes) -> Listing:
        """Return all entries of a directory; only those that are looked at are read."""
        pages = self.pages(digest)
        return self.page(digest) if pages == (digest,) else Pages(self, digest, pages)

    def find(self, root: Record, path: str) -> Record | None:
        """Return what is at ``path`` below the root record, or None."""
        record = root
        for part in path.split("/") if path else ():
            if record[0] != DIRECTORY:
                return None
            below = self.directory(payload(record)).get(part)
            if below is None:
                return None
            record = below
        return record

    def keep(self, entries: int) -> None:
        """Keep that many entries decoded from now on."""
        self._cache.pages.most = entries

    def clear(self) -> None:
        """Forget everything."""
        cache = self._cache
        for recent in (cache.pages, cache.lists, cache.roots, cache.extents):
            recent.clear()


def _decode(data: bytes) -> Entries:
    try:
        return decode_page(data)
    except MalformedError as error:
        raise DamagedError(str(error)) from error
