"""Links: which names each file with several names has.

The table is a directory in form: each inode number, in hex, is a name whose record's payload lists
the paths, so it is shared, split and compared by the same code. Reading never needs it. Writing
does, because what one name sees all names shall see: each name's record is a full copy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from .node import NO_DIGEST, SPLIT_ABOVE, Listing, put_directory, put_large_directory
from .nodes import Nodes
from .record import FILE, Record
from .runs import Runs

#: Names in memory, of some 200 bytes each, before rows are better written to a file.
_NEAR = 32_768
#: Name, how old, record.
_Aged = tuple[str, int, Record]


class Table:
    """The rows of a stored table, and those changed since; of very many, few are in memory."""

    def __init__(self, nodes: Nodes, digest: bytes, spilling: Path | None) -> None:
        """``spilling``: where to write rows meanwhile; None: they stay in memory."""
        self._digest = digest
        self._stored: Listing = {} if digest == NO_DIGEST else nodes.directory(digest)
        self._spilling = spilling
        #: Rows that were changed; an empty one isn't there any more.
        self._near: dict[int, set[str]] = {}
        self._weight = 0
        self._runs: Runs | None = None
        self._changed = False

    def names(self, number: int) -> set[str]:
        """Return every path of a file with several names, not to be changed; KeyError: it has
        but one."""
        names = self._near.get(number)
        if names is None:
            key = f"{number:x}"
            record = None if self._runs is None else self._runs.get(key)
            names = _decode((record or self._stored[key])[7])
        if not names:
            raise KeyError(number)
        return names

    def put(self, number: int, names: Iterable[str]) -> None:
        """Say which names a file has; one that has but one has no row."""
        found = set(names)
        self._note(number, found if len(found) > 1 else set(), len(found))

    def add(self, number: int, path: str) -> set[str]:
        """Give a file another name, and return all."""
        names = self.names(number)
        names.add(path)
        self._note(number, names, 1)
        return names

    def _note(self, number: int, names: set[str], weight: int) -> None:
        self._changed = True
        self._near[number] = names
        self._weight += 1 + weight
        if self._weight > _NEAR and self._spilling is not None:
            if self._runs is None:
                self._runs = Runs(self._spilling)
            self._runs.add(self._newer())
            self._near = {}
            self._weight = 0

    def _newer(self) -> dict[str, Record]:
        return {
            f"{number:x}": (FILE, 0, 0, 0, 0, 0, 0, _encode(names))
            for number, names in self._near.items()
        }

    def below(self, prefix: str) -> list[tuple[int, set[str]]]:
        """Return number and names of each file that has a name beginning so."""
        begin = prefix.encode("utf-8", "surrogateescape")
        later = b"\0" + begin
        return [
            (int(key, 16), _decode(record[7]))
            for key, record in self._rows()
            if record[7].startswith(begin) or later in record[7]
        ]

    def _rows(self) -> Iterator[tuple[str, Record]]:
        newer = self._newer()
        if self._runs is None:
            ours: Iterable[tuple[str, Record]] = sorted(newer.items())
        else:
            ours = self._runs.merged(newer)
        lots: tuple[Iterator[_Aged], Iterator[_Aged]] = (
            _aged(ours, 0),
            _aged(self._stored.items(), 1),
        )
        last = ""
        for key, _, record in heapq.merge(*lots):
            if key != last:
                last = key
                if record[7]:
                    yield key, record

    def store(self, put: Callable[[bytes], bytes]) -> bytes:
        """Hand the objects that hold the table to ``put``; return what names it."""
        if not self._changed:
            return self._digest
        rows = self._rows()
        first = list(islice(rows, SPLIT_ABOVE + 1))
        if len(first) <= SPLIT_ABOVE:
            return put_directory(dict(first), put) or NO_DIGEST
        return put_large_directory(chain(first, rows), put)

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        runs, self._runs = self._runs, None
        if runs is not None:
            runs.close()


class Seen:
    """Which numbers were met: a bit for each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> bool:
        """Say whether a number is new."""
        at, bit = number >> 3, 1 << (number & 7)
        if at >= len(self._bits):
            self._bits += bytes(at + 1 - len(self._bits))
        if self._bits[at] & bit:
            return False
        self._bits[at] |= bit
        return True


def differing(nodes: Nodes, old: bytes, new: bytes) -> Iterator[tuple[set[str], set[str]]]:
    """Yield the names of each file in one table and in the other, where they differ."""
    one, other = _pages(nodes, old), _pages(nodes, new)
    shared = {*one} & {*other}
    lots = (_aged(_outside(nodes, one, shared), 0), _aged(_outside(nodes, other, shared), 1))
    waiting: _Aged | None = None
    for row in heapq.merge(*lots):
        if waiting is None:
            waiting = row
        elif waiting[0] != row[0]:
            yield _pair(waiting)
            waiting = row
        else:
            if waiting[2][7] != row[2][7]:
                yield _decode(waiting[2][7]), _decode(row[2][7])
            waiting = None
    if waiting is not None:
        yield _pair(waiting)


def _pair(row: _Aged) -> tuple[set[str], set[str]]:
    names = _decode(row[2][7])
    return (set(), names) if row[1] else (names, set())


def _pages(nodes: Nodes, digest: bytes) -> tuple[bytes, ...]:
    return () if digest == NO_DIGEST else nodes.pages(digest)


def _outside(
    nodes: Nodes, pages: Iterable[bytes], shared: set[bytes]
) -> Iterator[tuple[str, Record]]:
    for page in pages:
        if page not in shared:
            yield from nodes.page(page).items()


def _aged(rows: Iterable[tuple[str, Record]], age: int) -> Iterator[_Aged]:
    return ((key, age, record) for key, record in rows)


def _decode(payload: bytes) -> set[str]:
    return set(payload.decode("utf-8", "surrogateescape").split("\0")) if payload else set()


def _encode(paths: Iterable[str]) -> bytes:
    return "\0".join(sorted(paths)).encode("utf-8", "surrogateescape")
