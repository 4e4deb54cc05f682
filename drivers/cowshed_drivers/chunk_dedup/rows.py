"""Rows: which names files with several have, in a nameless SQLite file.

There may be millions of them, each wanted for a moment only. Of each file there is a row that
says how many names it has, with none itself, and behind it a row for each name. What SQLite sorts
goes to files of its own, wherever they are; so everything has its index from the beginning.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cowshed.entry import parent_of
from cowshed.sqlite import nameless

from .node import byte_order

_SCHEMA = (
    "CREATE TABLE names (key TEXT NOT NULL, name BLOB NOT NULL, count INTEGER, changed INTEGER,"
    " PRIMARY KEY (key, name)) WITHOUT ROWID",
    "CREATE INDEX by_name ON names (name) WHERE name > x''",
    "CREATE TABLE parents (path BLOB PRIMARY KEY) WITHOUT ROWID",
)
_COUNT = "SELECT count FROM names WHERE key = ? AND name = x''"
#: Rows that are read at a time.
_ROWS = 1024


class Rows:
    """The names of files by their keys. A file that is here may have none: it was removed."""

    def __init__(self, directory: Path) -> None:
        self._database = nameless(os.path.join(directory, f"links-{os.urandom(8).hex()}"), *_SCHEMA)

    def close(self) -> None:
        """Let go of the file, which has no name. Closing twice is fine."""
        self._database.close()

    def put(self, files: Mapping[str, Iterable[str]]) -> None:
        """Say of each of these files which names it has."""
        self._database.executemany("DELETE FROM names WHERE key = ?", ((key,) for key in files))
        self._insert(files.items(), changed=True)

    def fill(self, files: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Put those that aren't here, as files that nobody has changed."""
        new = ((key, names) for key, names in files if self.count(key) is None)
        self._insert(new, changed=False)

    def _insert(self, files: Iterable[tuple[str, Iterable[str]]], *, changed: bool) -> None:
        def rows() -> Iterator[tuple[str, bytes, int | None, bool | None]]:
            for key, names in files:
                found = {*names}
                yield key, b"", len(found), changed
                for name in found:
                    yield key, byte_order(name), None, None

        self._database.executemany("INSERT INTO names VALUES (?, ?, ?, ?)", rows())

    def count(self, key: str) -> int | None:
        """Return how many names a file has; None: it isn't here."""
        found = self._database.rows(_COUNT, (key,))
        return found[0][0] if found else None

    def changed_count(self, key: str) -> int:
        """Return how many names a file has that somebody has changed; 0: it isn't one."""
        found = self._database.rows(_COUNT + " AND changed", (key,))
        return found[0][0] if found else 0

    def names(self, key: str) -> set[str] | None:
        """Return a file's names; None: it isn't here."""
        found = self._database.rows("SELECT name FROM names WHERE key = ?", (key,))
        return {_text(name) for (name,) in found if name} if found else None

    def size(self, key: str) -> int:
        """Return how long the names of a file that is here are, together."""
        found = "SELECT coalesce(sum(length(name)), 0) FROM names WHERE key = ?"
        total: int = self._database.rows(found, (key,))[0][0]
        return total

    def has(self, key: str, name: str) -> bool:
        """Say whether a file has this name."""
        found = "SELECT 1 FROM names WHERE key = ? AND name = ?"
        return bool(self._database.rows(found, (key, byte_order(name))))

    def add(self, key: str, name: str) -> None:
        """Give a file that is here a name that it hasn't."""
        self._database.execute(
            "INSERT INTO names VALUES (?, ?, NULL, NULL)", (key, byte_order(name))
        )
        self._counted(key, 1)

    def drop(self, key: str, name: str) -> None:
        """Take a name away from a file that is here."""
        gone = self._database.execute(
            "DELETE FROM names WHERE key = ? AND name = ?", (key, byte_order(name))
        )
        self._counted(key, -gone.rowcount)

    def drop_below(self, key: str, prefix: bytes) -> None:
        """Take away all names that begin with ``prefix``, a path with its slash."""
        gone = self._database.execute(
            "DELETE FROM names WHERE key = ? AND name >= ? AND name < ?",
            (key, prefix or b"\x01", _behind(prefix)),
        )
        self._counted(key, -gone.rowcount)

    def _counted(self, key: str, more: int) -> None:
        self._database.execute(
            "UPDATE names SET count = count + ?, changed = 1 WHERE key = ? AND name = x''",
            (more, key),
        )

    def below(self, prefix: bytes) -> Iterator[str]:
        """Yield the keys of files that have a name beginning with ``prefix``, some twice. Names may
        be dropped meanwhile."""
        last = prefix or b"\x01"
        while True:
            found = self._database.rows(
                "SELECT name, key FROM names WHERE name >= ? AND name < ? AND name > x''"
                " ORDER BY name LIMIT ?",
                (last, _behind(prefix), _ROWS),
            )
            yield from (key for _, key in found)
            if len(found) < _ROWS:
                return
            last = found[-1][0] + b"\0"

    def files(self) -> Iterator[tuple[str, list[str]]]:
        """Yield all files in the order of their keys, with their names in no certain one."""
        last, after = "", b""
        key, names = "", list[str]()
        while True:
            found = self._database.rows(
                "SELECT key, name FROM names WHERE (key, name) > (?, ?) ORDER BY key, name LIMIT ?",
                (last, after, _ROWS),
            )
            for last, after in found:
                if after:
                    names.append(_text(after))
                    continue
                if key:
                    yield key, names
                key, names = last, []
            if len(found) < _ROWS:
                break
        if key:
            yield key, names

    def parents(self, least: int) -> Iterator[str]:
        """Yield each directory in which a file of ``least`` names or more has one, if somebody has
        changed it."""
        self._database.execute("DELETE FROM parents")
        for key in self._many(least):
            paths = {(byte_order(parent_of(name)),) for name in self.names(key) or ()}
            self._database.executemany("INSERT OR IGNORE INTO parents VALUES (?)", paths)
        last = b""
        while True:
            found = self._database.rows(
                "SELECT path FROM parents WHERE path >= ? ORDER BY path LIMIT ?", (last, _ROWS)
            )
            yield from (_text(path) for (path,) in found)
            if len(found) < _ROWS:
                return
            last = found[-1][0] + b"\0"

    def _many(self, least: int) -> Iterator[str]:
        last = ""
        while True:
            found = self._database.rows(
                "SELECT key FROM names WHERE key > ? AND name = x'' AND changed AND count >= ?"
                " ORDER BY key LIMIT ?",
                (last, least, _ROWS),
            )
            for (last,) in found:
                yield last
            if len(found) < _ROWS:
                return


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _behind(prefix: bytes) -> bytes:
    """Return what is greater than all that begins with ``prefix``, which ends with a slash."""
    return prefix[:-1] + b"0" if prefix else b"\xff" * 256
