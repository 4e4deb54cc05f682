"""Directories: what the model of the merged tree knows of each.

It is in dictionaries as long as it is little. A layer may have ten million entries, though, so
what is more goes to a nameless SQLite file, all at once, and is asked for there: the file takes
8 MiB of memory whatever it holds, and an entry some 10 µs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..entry import join
from .feed import Run

if TYPE_CHECKING:
    from ..sqlite import Connection

#: Names in dictionaries, of some 200 bytes each; long paths and links' targets weigh more.
_NEAR = 32_768
_LONG = 256
#: Bits of the filter that knows most names which aren't in the file (Bloom, 1970).
_FILTER = 1 << 25
_SCHEMA = (
    "CREATE TABLE names (directory INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,"
    " value, PRIMARY KEY (directory, name)) WITHOUT ROWID",
    "CREATE TABLE runs (payload INTEGER PRIMARY KEY, runs BLOB NOT NULL)",
)
#: Rows that are read at a time.
_ROWS = 1024
_NOTHING, _PAYLOAD, _LINK, _DIRECTORY = range(4)
_RUN = struct.Struct("<QQ")
_LOWER = (None, False, True)

UNKNOWN = object()


class Directory:
    """A directory of the merged view that this layer brought or wrote into."""

    __slots__ = ("_scratch", "lower", "near", "number", "own", "path")

    def __init__(
        self, scratch: Scratch, path: str, *, own: bool, lower: bool | None, number: int = 0
    ) -> None:
        self._scratch = scratch
        self.path = path
        #: What of it is in memory.
        self.near: dict[str, Node] = {}
        #: Under which the rest is in the file; 0: there is no more.
        self.number = number
        #: This layer has an entry for it.
        self.own = own
        #: What the parent has at this path shows through. None: nobody had to know yet.
        self.lower = lower

    def get(self, name: str, default: object = None) -> object:
        """Return what has this name here, or ``default``."""
        found: object = self.near.get(name, UNKNOWN)
        if found is UNKNOWN and self.number:
            found = self._scratch.get(self, name)
            if isinstance(found, Directory):
                self.put(name, found)  # one directory is one object
        return default if found is UNKNOWN else found

    def put(self, name: str, node: Node) -> None:
        """Give a name another meaning."""
        self.near[name] = node
        self._scratch.weight += 1 + _length(node) // _LONG

    def clear(self) -> None:
        """Forget all names."""
        self.near = {}
        if self.number:
            self._scratch.forget(self)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield all names, in no certain order, and what has them. Nothing is to be changed
        meanwhile."""
        if self.number:
            for name, node in self._scratch.items(self):
                if name not in self.near:
                    yield name, node
        yield from self.near.items()


#: What is known of a name. A string is a link's target; a number the payload that is the file's
#: content, 0 for objects without one; None: the layer removed what the parent has. Kept this
#: small because a layer may have very many of them.
Node: TypeAlias = "Directory | str | int | None"


def _length(node: Node) -> int:
    if isinstance(node, Directory):
        return len(node.path)
    return len(node) if isinstance(node, str) else 0


class Scratch:
    """What is known of all directories of one layer, beyond what they have in memory."""

    def __init__(self, directory: str | None = None) -> None:
        """``directory``: where the file is to be; None: where temporary files are."""
        self._directory = directory
        self._database: Connection | None = None
        self._numbers = 0
        self._filter = bytearray()
        self._runs: dict[int, bytes] = {}
        #: Of what is in memory.
        self.weight = 0

    @property
    def is_due(self) -> bool:
        """Whether so much is in memory that ``spill`` is better called."""
        return self.weight >= _NEAR

    def spill(self, root: Directory) -> None:
        """Write down what is in memory below ``root``. No ``Directory`` but this one counts any
        more: each is to be asked for again, by its name."""
        database = self._open()
        database.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", self._rows(root))
        database.executemany("INSERT INTO runs VALUES (?, ?)", self._runs.items())
        self._runs.clear()
        self.weight = 0

    def _rows(self, root: Directory) -> Iterator[tuple[int, bytes, int, int | bytes | None]]:
        self._number(root)
        todo = [root]
        while todo:
            directory = todo.pop()
            for name, node in directory.near.items():
                if isinstance(node, Directory):
                    self._number(node)
                    todo.append(node)
                for bit in _bits(directory.number, name):
                    self._filter[bit >> 3] |= 1 << (bit & 7)
                yield directory.number, _bytes(name), *_encoded(node)
            directory.near = {}

    def _number(self, directory: Directory) -> None:
        if not directory.number:
            self._numbers += 1
            directory.number = self._numbers

    def get(self, directory: Directory, name: str) -> Node | object:
        """Return what the file has at a name, or ``UNKNOWN``."""
        for bit in _bits(directory.number, name):
            if not self._filter[bit >> 3] & 1 << (bit & 7):
                return UNKNOWN
        rows = self._open().rows(
            "SELECT kind, value FROM names WHERE directory = ? AND name = ?",
            (directory.number, _bytes(name)),
        )
        return self._node(directory, name, *rows[0]) if rows else UNKNOWN

    def items(self, directory: Directory) -> Iterator[tuple[str, Node]]:
        """Yield what the file has of a directory."""
        last = b""
        while True:
            rows = self._open().rows(
                "SELECT name, kind, value FROM names WHERE directory = ? AND name > ?"
                " ORDER BY name LIMIT ?",
                (directory.number, last, _ROWS),
            )
            for last, kind, value in rows:
                name = last.decode("utf-8", "surrogateescape")
                yield name, self._node(directory, name, kind, value)
            if len(rows) < _ROWS:
                return

    def put_runs(self, payload: int, runs: Sequence[Run]) -> None:
        """Note which parts of a sparse file are in the tar."""
        self._runs[payload] = b"".join([_RUN.pack(*run) for run in runs])
        self.weight += 1 + len(self._runs[payload]) // _LONG

    def runs(self, payload: int) -> list[Run] | None:
        """Return which parts of a file are in the tar; None: all of it."""
        packed = self._runs.get(payload)
        if packed is None and self._database is not None:
            rows = self._database.rows("SELECT runs FROM runs WHERE payload = ?", (payload,))
            packed = rows[0][0] if rows else None
        return None if packed is None else list(_RUN.iter_unpack(packed))

    def forget(self, directory: Directory) -> None:
        """Take a directory's names out of the file. What was below them is never asked for."""
        self._open().execute("DELETE FROM names WHERE directory = ?", (directory.number,))

    def _node(self, above: Directory, name: str, kind: int, value: int | bytes | None) -> Node:
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if kind == _NOTHING or value is None:
            return None
        if kind == _PAYLOAD:
            return value
        lower = _LOWER[value >> 1 & 3]
        return Directory(
            self, join(above.path, name), own=bool(value & 1), lower=lower, number=value >> 3
        )

    def _open(self) -> Connection:
        if self._database is None:
            from ..sqlite import nameless

            directory = self._directory
            if directory is None:
                import tempfile  # with random: 3 ms

                directory = tempfile.gettempdir()
            self._database = nameless(
                os.path.join(directory, f"scratch-{os.urandom(8).hex()}"), *_SCHEMA
            )
            self._filter = bytearray(_FILTER >> 3)
        return self._database

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _encoded(node: Node) -> tuple[int, int | bytes | None]:
    if node is None:
        return _NOTHING, None
    if isinstance(node, str):
        return _LINK, _bytes(node)
    if isinstance(node, int):
        return _PAYLOAD, node
    return _DIRECTORY, node.number << 3 | _LOWER.index(node.lower) << 1 | node.own


def _bits(number: int, name: str) -> tuple[int, int]:
    key = hash((number, name))
    return key & (_FILTER - 1), key >> 25 & (_FILTER - 1)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
