"""A SQLite connection whose full or failing disk is an ``OSError``, as every tree's is."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any

#: The low byte is the kind of failure (sqlite.org/rescode.html).
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}


class Connection(sqlite3.Connection):
    """Pass as ``factory`` to ``sqlite3.connect``."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement."""
        try:
            return super().execute(*arguments)
        except sqlite3.OperationalError as error:
            number = _ERRNO.get(error.sqlite_errorcode & 0xFF)
            if number is None:
                raise
            raise OSError(number, os.strerror(number)) from error
