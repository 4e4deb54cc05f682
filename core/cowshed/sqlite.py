"""A SQLite connection whose failures are those of trees: OSError, CorruptError for damage."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import CorruptError

#: The low byte is the kind of failure (sqlite.org/rescode.html).
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}
_NAMELESS = (
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA cache_size=-4096",
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translated(path: str) -> Generator[None]:
    """Say in our terms what goes wrong with the database at ``path``, which lies in a tree's home.

    Raises:
        OSError: the disk is full or fails.
        CorruptError: what it holds isn't what was stored.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        kind = error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
        if kind in _DAMAGED:
            home, name = os.path.split(path)
            raise CorruptError(os.path.basename(home), f"{name} is damaged: {error}") from error
        number = _ERRNO.get(kind)
        if number is None:
            raise
        if number == errno.EIO and _is_full(os.path.dirname(path) or "."):
            number = errno.ENOSPC
        raise OSError(number, os.strerror(number), path) from error


def _is_full(directory: str) -> bool:
    """Say whether a WAL's index, 32 KiB, has no room: SQLite calls that an I/O error."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize < 32 << 10


class Connection(sqlite3.Connection):
    """Pass as ``factory`` to ``sqlite3.connect``."""

    def __init__(self, database: str, *arguments: Any, **options: Any) -> None:
        #: What errors name.
        self.path = database
        with translated(database):
            super().__init__(database, *arguments, **options)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement that returns no rows, or none that matter."""
        with translated(self.path):
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement for each of many parameters."""
        with translated(self.path):
            return super().executemany(*arguments)

    def rows(self, *arguments: Any) -> list[Any]:
        """Run one statement and return all its rows."""
        with translated(self.path):
            return super().execute(*arguments).fetchall()


def nameless(path: str, *schema: str) -> Connection:
    """Return a database of this process alone, in one transaction that never ends: it holds what
    would take too much memory. Its file is made at ``path`` and has no name any more."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Connection
        )
        try:
            for statement in (*_NAMELESS, *schema, "BEGIN"):
                database.execute(statement)
        except BaseException:
            database.close()
            raise
    finally:
        with suppress(FileNotFoundError):  # whoever swept it was faster
            os.unlink(path)
    return database
