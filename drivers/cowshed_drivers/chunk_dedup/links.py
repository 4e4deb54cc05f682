"""Links: which names each file with several names has.

The table is a directory in form: each inode number, in hex, is a name whose record's payload lists
the paths, so it is shared, split and compared by the same code. Reading never needs it. Writing
does, because what one name sees all names shall see: each name's record is a full copy.
"""

from __future__ import annotations

import errno
import heapq
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cowshed.entry import parent_of

from .node import NO_DIGEST, Listing, byte_order, put_sorted
from .nodes import Nodes
from .record import FILE, Record

if TYPE_CHECKING:
    from .rows import Rows

#: Names that a file may have, as on ext4, and about how many bytes: all of them are in memory when
#: its row is written.
LINK_MAX, LINK_BYTES = 65_000, 16 << 20
#: Names after which their bytes are added up.
_EVERY = 1024
#: Names in memory, of some 200 bytes each, before rows are better written to a file.
_NEAR = 32_768
_LONG = 256
#: Times that all rows are looked through for names in a directory, before they get an index.
_LOOKS = 8
#: Name, how old, record.
_Aged = tuple[str, int, Record]


class Table:
    """The rows of a stored table, and those changed since; of very many, few are in memory."""

    def __init__(self, nodes: Nodes, digest: bytes, spilling: Path | None) -> None:
        """``spilling``: where to write rows meanwhile; None: they stay in memory."""
        self._digest = digest
        self._stored: Listing = {} if digest == NO_DIGEST else nodes.by_pages(digest)
        self._spilling = spilling
        #: Rows that were changed; an empty one isn't there any more.
        self._near: dict[int, set[str]] = {}
        self._weight = 0
        #: Older rows that were changed.
        self._far: Rows | None = None
        self._looks = 0
        self._changed = False

    def names(self, number: int) -> set[str]:
        """Return every path of a file with several names, not to be changed; KeyError: it has
        but one."""
        names = self._near.get(number)
        if names is None and self._far is not None:
            names = self._far.names(_key(number))
        if names is None:
            names = _decode(self._stored[_key(number)][7])
        if not names:
            raise KeyError(number)
        return names

    def count(self, number: int) -> int:
        """Return how many names a file has; 0: it isn't here, for it has but one."""
        if number in self._near:
            return len(self._near[number])
        count = self._far_count(number)
        if count is None:
            payload = self._payload(number)
            count = payload.count(b"\0") + 1 if payload else 0
        return count

    def changed_count(self, number: int) -> int:
        """Return how many names a file has whose row was changed; 0: it wasn't."""
        if number in self._near:
            return len(self._near[number])
        return 0 if self._far is None else self._far.changed_count(_key(number))

    def has(self, number: int, path: str) -> bool:
        """Say whether a file has this among several names."""
        if number in self._near:
            return path in self._near[number]
        if self._far_count(number) is not None:
            assert self._far is not None
            return self._far.has(_key(number), path)
        return b"\0" + byte_order(path) + b"\0" in b"\0" + self._payload(number) + b"\0"

    def _payload(self, number: int) -> bytes:
        """Return what a stored row holds; nothing if there is none."""
        record = self._stored.get(_key(number))
        return b"" if record is None else record[7]

    def _far_count(self, number: int) -> int | None:
        """Return how many names a file has whose row is in the file; None: it isn't."""
        if self._far is None or number in self._near:
            return None
        return self._far.count(_key(number))

    def put(self, number: int, names: Iterable[str]) -> None:
        """Say which names a file has; one that has but one has no row."""
        found = set(names)
        self._note(number, found if len(found) > 1 else set())

    def add(self, number: int, path: str) -> int:
        """Give a file another name; return how many it has.

        Raises:
            OSError: EMLINK, these would be too many.
        """
        count = self.count(number)
        if count >= LINK_MAX or (count % _EVERY == 0 and self._size(number) > LINK_BYTES):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), path)
        if self._far_count(number):
            assert self._far is not None
            self._changed = True
            self._far.add(_key(number), path)
        elif number in self._near:
            self._changed = True
            self._near[number].add(path)
            self._weigh(1 + len(path) // _LONG)
        else:
            self._note(number, self.names(number) | {path})
        return count + 1

    def _size(self, number: int) -> int:
        if self._far_count(number) is not None:
            assert self._far is not None
            return self._far.size(_key(number))
        return sum(map(len, self.names(number)))

    def drop(self, number: int, path: str) -> int:
        """Take a name away; return how many the file has left. Who leaves one or none ``put``s."""
        if self._far_count(number):
            assert self._far is not None
            self._far.drop(_key(number), path)
            self._changed = True
        else:
            self._note(number, self.names(number) - {path})
        return self.count(number)

    def drop_below(self, number: int, prefix: str) -> int:
        """Do so with all names that begin with ``prefix``, a path with its slash."""
        if self._far_count(number):
            assert self._far is not None
            self._far.drop_below(_key(number), byte_order(prefix))
            self._changed = True
        else:
            left = {name for name in self.names(number) if not name.startswith(prefix)}
            self._note(number, left)
        return self.count(number)

    def _note(self, number: int, names: set[str]) -> None:
        self._changed = True
        self._near[number] = names
        self._weigh(1 + sum(1 + len(name) // _LONG for name in names))

    def _weigh(self, more: int) -> None:
        self._weight += more
        if self._weight > _NEAR and self._spilling is not None:
            self._spill()

    def _spill(self) -> Rows:
        if self._far is None:
            from .rows import Rows  # with SQLite, which few need

            assert self._spilling is not None
            self._far = Rows(self._spilling)
        self._far.put({_key(number): names for number, names in self._near.items()})
        self._near = {}
        self._weight = 0
        return self._far

    def below(self, prefix: str) -> Iterator[int]:
        """Yield the number of each file that has a name beginning so, a path with its slash; some
        come twice. Rows may be changed meanwhile."""
        self._looks += 1
        if self._spilling is None or (self._far is None and self._looks <= _LOOKS):
            yield from self._looked_through(byte_order(prefix))
            return
        far = self._spill()
        far.fill((key, _decode(record[7])) for key, record in self._stored.items())
        self._stored = {}
        for key in far.below(byte_order(prefix)):
            number = int(key, 16)
            if self.count(number):  # it may have lost them all when it came the first time
                yield number

    def _looked_through(self, begin: bytes) -> array[int]:
        later = b"\0" + begin
        return array(
            "Q",
            [
                int(key, 16)
                for key, record in self._rows()
                if record[7].startswith(begin) or later in record[7]
            ],
        )

    def parents(self, least: int) -> Iterator[str]:
        """Yield each directory in which a file of ``least`` names or more, whose row was changed,
        has one. Nothing is to be changed here meanwhile."""
        if self._far is None:
            many = [names for names in self._near.values() if len(names) >= least]
            return iter(sorted({parent_of(name) for names in many for name in names}))
        return self._spill().parents(least)

    def _rows(self) -> Iterator[tuple[str, Record]]:
        newer = ((_key(number), _row(names)) for number, names in self._near.items())
        lots = [_aged(sorted(newer), 0), _aged(self._stored.items(), 2)]
        if self._far is not None:
            lots.append(_aged(((key, _row(names)) for key, names in self._far.files()), 1))
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
        return put_sorted(self._rows(), put) or NO_DIGEST

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        far, self._far = self._far, None
        if far is not None:
            far.close()


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
    lots = (_aged(nodes.outside(one, shared), 0), _aged(nodes.outside(other, shared), 1))
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


def _aged(rows: Iterable[tuple[str, Record]], age: int) -> Iterator[_Aged]:
    return ((key, age, record) for key, record in rows)


def _key(number: int) -> str:
    return f"{number:x}"


def _row(names: Iterable[str]) -> Record:
    return (FILE, 0, 0, 0, 0, 0, 0, _encode(names))


def _decode(payload: bytes) -> set[str]:
    return set(payload.decode("utf-8", "surrogateescape").split("\0")) if payload else set()


def _encode(paths: Iterable[str]) -> bytes:
    return byte_order("\0".join(sorted(paths)))
