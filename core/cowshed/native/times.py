"""Times: the mtimes that a stage's directories are to have in the end, in little memory.

The last ones are in a dictionary. What is more goes to a nameless SQLite file in the stage's home.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sqlite import Connection

#: Times in the dictionary, of some 200 bytes each.
_RECENT = 32_768
_SCHEMA = "CREATE TABLE times (path BLOB PRIMARY KEY, mtime_ns INTEGER NOT NULL) WITHOUT ROWID"


class Times:
    """mtimes in nanoseconds by path."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "times.db")
        self._recent: dict[str, int] = {}
        self._database: Connection | None = None

    def __contains__(self, path: str) -> bool:
        if path in self._recent:
            return True
        if self._database is None:
            return False
        rows = self._database.rows(
            "SELECT mtime_ns FROM times WHERE path = ?", (os.fsencode(path),)
        )
        for (mtime_ns,) in rows:
            self.put(path, mtime_ns)  # it is asked for again with the next entry
        return bool(rows)

    def put(self, path: str, mtime_ns: int) -> None:
        """Note what ``path`` is to have."""
        if len(self._recent) >= _RECENT:
            self._spill()
        self._recent[path] = mtime_ns

    def drop(self, path: str) -> None:
        """Note that ``path`` was removed."""
        self._recent.pop(path, None)
        if self._database is not None:
            self._database.execute("DELETE FROM times WHERE path = ?", (os.fsencode(path),))

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield all; nothing is to be changed meanwhile."""
        if self._database is not None:
            from ..sqlite import translated

            self._spill()
            with translated(self._path):
                for path, mtime_ns in self._database.execute("SELECT path, mtime_ns FROM times"):
                    yield os.fsdecode(path), mtime_ns
        yield from self._recent.items()

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _spill(self) -> None:
        if self._database is None:
            from ..sqlite import nameless

            self._database = nameless(self._path, _SCHEMA)
        self._database.executemany(
            "INSERT OR REPLACE INTO times VALUES (?, ?)",
            ((os.fsencode(path), time) for path, time in self._recent.items()),
        )
        self._recent.clear()
