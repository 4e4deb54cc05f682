"""Brought: the files that a stage made, whatever their number in little memory.

The last ones are in dictionaries. What is more goes to a nameless SQLite file in the stage's home,
which takes 4 MiB of memory and 20 µs a file: an image of a million files would take half a gigabyte
else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sqlite import Connection

#: Files in dictionaries, of some 500 bytes each.
_RECENT = 32_768
_SCHEMA = (
    "CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, key BLOB) WITHOUT ROWID",
    "CREATE TABLE keys (key BLOB PRIMARY KEY, path BLOB NOT NULL) WITHOUT ROWID",
)


class Brought:
    """Sizes by path, and for drivers that have a key for a file, paths by key."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "brought.db")
        self._files: dict[str, tuple[int, str]] = {}
        self._paths: dict[str, str] = {}
        self._database: Connection | None = None

    def add(self, path: str, size: int, key: str = "") -> None:
        """Note a file, or a further name of one, which is of size 0. ``key``, in hex, is from now
        on this file's, whoever had it."""
        if len(self._files) >= _RECENT:
            self._spill()
        self._files[path] = size, key
        if key:
            self._paths[key] = path

    def drop(self, path: str) -> None:
        """Note that ``path`` was removed, if it was one."""
        found = self._files.pop(path, None)
        if found is not None:
            self._drop_key(found[1], path)
        elif self._database is not None:
            self._drop_key(self._known_key(path), path)
            self._database.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    def unkey(self, path: str) -> None:
        """Note that the file at ``path`` isn't to be had by its key any more."""
        found = self._files.get(path)
        if found is not None:
            size, key = found
            self._files[path] = size, ""
            self._drop_key(key, path)
        elif self._database is not None:
            self._drop_key(self._known_key(path), path)
            self._database.execute(
                "UPDATE files SET key = NULL WHERE path = ?", (os.fsencode(path),)
            )

    def _known_key(self, path: str) -> str:
        assert self._database is not None
        rows = self._database.rows("SELECT key FROM files WHERE path = ?", (os.fsencode(path),))
        return rows[0][0].hex() if rows and rows[0][0] is not None else ""

    def _drop_key(self, key: str, path: str) -> None:
        if not key:
            return
        if self._paths.get(key) == path:
            del self._paths[key]
        if self._database is not None:
            self._database.execute(
                "DELETE FROM keys WHERE key = ? AND path = ?",
                (bytes.fromhex(key), os.fsencode(path)),
            )

    def __contains__(self, path: str) -> bool:
        if path in self._files:
            return True
        return self._database is not None and bool(
            self._database.rows("SELECT 1 FROM files WHERE path = ?", (os.fsencode(path),))
        )

    def path_of(self, key: str) -> str | None:
        """Return the file that has ``key``, if one has it."""
        path = self._paths.get(key)
        if path is None and self._database is not None:
            rows = self._database.rows("SELECT path FROM keys WHERE key = ?", (bytes.fromhex(key),))
            if rows:
                path = os.fsdecode(rows[0][0])
        return path

    def keyed(self) -> Iterator[tuple[str, str]]:
        """Yield path and key of each file that has one; nothing is to be changed meanwhile."""
        if self._database is not None:
            from ..sqlite import translated

            with translated(self._path):
                for path, key in self._database.execute(
                    "SELECT path, key FROM files WHERE key IS NOT NULL"
                ):
                    yield os.fsdecode(path), key.hex()
        for name, (_, known) in self._files.items():
            if known:
                yield name, known

    @property
    def bytes(self) -> int:
        """The sizes together."""
        total = sum(size for size, _ in self._files.values())
        if self._database is not None:
            total += self._database.rows("SELECT coalesce(sum(size), 0) FROM files")[0][0]
        return total

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _spill(self) -> None:
        database = self._database or self._open()
        database.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
            (
                (os.fsencode(path), size, bytes.fromhex(key) if key else None)
                for path, (size, key) in self._files.items()
            ),
        )
        database.executemany(
            "INSERT OR REPLACE INTO keys VALUES (?, ?)",
            ((bytes.fromhex(key), os.fsencode(path)) for key, path in self._paths.items()),
        )
        self._files.clear()
        self._paths.clear()

    def _open(self) -> Connection:
        from ..sqlite import nameless

        self._database = nameless(self._path, *_SCHEMA)
        return self._database
