"""Relinks: equal files whose names aren't those that they had, as far as those are equal files.

Nothing differs at such a name, and yet something has changed there. There may be millions, so they
are in an SQLite database, which is in memory only where there is no place for a file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from cowshed.sqlite import Connection, nameless

from .links import differing
from .node import byte_order
from .nodes import Nodes

#: Of each equal file the number of the row that it was in and of the one that it is in, or a
#: negative one that nothing else has, and how many names it has now.
_SCHEMA = (
    "CREATE TABLE equal (path BLOB PRIMARY KEY, before INTEGER NOT NULL, after INTEGER NOT NULL,"
    " names INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE together (before INTEGER, after INTEGER, names INTEGER NOT NULL,"
    " PRIMARY KEY (before, after)) WITHOUT ROWID",
    "CREATE TABLE wanted (path BLOB PRIMARY KEY, itself INTEGER NOT NULL) WITHOUT ROWID",
)
_WAS = (
    "INSERT INTO equal VALUES (?, ?, ?, 1) ON CONFLICT (path) DO UPDATE SET before=excluded.before"
)
_IS = (
    "INSERT INTO equal VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE"
    " SET after=excluded.after, names=excluded.names"
)
#: Counted one by one: what SQLite sorts goes to files of its own, wherever they are.
_TOGETHER = (
    "INSERT INTO together SELECT before, after, 1 FROM equal WHERE true"
    " ON CONFLICT (before, after) DO UPDATE SET names = names + 1"
)
_CHANGED = (
    "SELECT equal.path FROM equal JOIN together USING (before, after)"
    " WHERE equal.names != together.names"
    " OR EXISTS (SELECT 1 FROM together AS other"
    " WHERE other.before = equal.before AND other.after != equal.after)"
)


class Relinks:
    """The paths of such files, and of the directories above them."""

    def __init__(self, spilling: Path | None) -> None:
        if spilling is None:
            self._database = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False, factory=Connection
            )
            for statement in _SCHEMA:
                self._database.execute(statement)
        else:
            self._database = nameless(
                os.path.join(spilling, f"relinks-{os.urandom(8).hex()}"), *_SCHEMA
            )

    def close(self) -> None:
        """Let go of the database. Closing twice is fine."""
        self._database.close()

    def find(self, nodes: Nodes, old: bytes, new: bytes, is_equal: Callable[[str], bool]) -> None:
        """Look for them in two tables of links. ``is_equal`` says whether two trees have equal
        objects at a path, but directories."""
        single = count(-1, -1)
        for number, (before, after) in enumerate(differing(nodes, old, new), 1):
            was = [path for path in before if is_equal(path)]
            now = [path for path in after if is_equal(path)]
            self._database.executemany(
                _WAS, ((byte_order(path), number, next(single)) for path in was)
            )
            self._database.executemany(
                _IS, ((byte_order(path), next(single), number, len(after)) for path in now)
            )
        self._database.execute(_TOGETHER)
        self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?)", self._wanted())

    def _wanted(self) -> Iterator[tuple[bytes, int]]:
        for (path,) in self._database.execute(_CHANGED):
            yield path, 1
            while path:
                path = path.rpartition(b"/")[0]
                yield path, 0

    @property
    def are_none(self) -> bool:
        """Whether there is none."""
        return not self._database.rows("SELECT 1 FROM wanted LIMIT 1")

    def __contains__(self, path: str) -> bool:
        return self._itself(path) == 1

    def leads_to(self, path: str) -> bool:
        """Say whether one is at or below a path."""
        return self._itself(path) is not None

    def _itself(self, path: str) -> int | None:
        rows = self._database.rows("SELECT itself FROM wanted WHERE path = ?", (byte_order(path),))
        return rows[0][0] if rows else None
