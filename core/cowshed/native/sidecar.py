"""Sidecar: one SQLite file per tree for what its directory can't hold.

    names(parent, name, record)                       hard links share a record
    records(id, kind, mode, uid, gid, rdev, xattrs)   NULL: ask the file

What a record says goes before what the file says. A tree that needs no record has no sidecar.
A container's sidecar is in WAL mode: a commit costs no sync (25 µs), a killed process loses
nothing, a power cut loses the end since the last ``sync`` but never the file. A stage's is one
unjournalled transaction, as the whole stage goes when it fails. A layer's is opened immutable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from .records import Record as Record
from .records import Records

if TYPE_CHECKING:
    from ..sqlite import Connection

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS names ("
    " parent BLOB NOT NULL, name BLOB NOT NULL, record INTEGER NOT NULL,"
    " PRIMARY KEY (parent, name)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS names_record ON names (record)",
    "CREATE TABLE IF NOT EXISTS records ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, mode INTEGER, uid INTEGER, gid INTEGER,"
    " rdev INTEGER, xattrs TEXT)",
)
_SELECT = (
    "SELECT r.id, kind, mode, uid, gid, rdev, xattrs,"
    " (SELECT count(*) FROM names c WHERE c.record = r.id), n.name"
    " FROM names n JOIN records r ON r.id = n.record WHERE n.parent = ?"
)

Use = Literal["sealed", "live", "bulk"]


class Sidecar(Records):
    """The records of one tree. The file is made by the first record.

    ``groups``: a record with several names stays even if it says nothing, because sharing it is
    what makes them names of one file.
    """

    def __init__(self, path: str, use: Use, *, groups: bool = False) -> None:
        self.path = path
        self._use: Use = use
        self._groups = groups
        self._database: Connection | None = None
        self._look()

    def _look(self) -> bool:
        if self._database is None and os.path.exists(self.path):
            self._connect()
        return self._database is not None

    def _connect(self) -> Connection:
        if self._database is not None:
            return self._database
        # 8 ms to import, and most trees of a privileged store need no sidecar.
        import sqlite3
        from urllib.parse import quote

        from ..sqlite import Connection

        database: Connection
        if self._use == "sealed" or _read_only(self.path):
            database = sqlite3.connect(
                f"file:{quote(os.fsencode(self.path))}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
            )
            database.path = self.path
        else:
            if not os.path.exists(self.path):
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                os.chmod(self.path, 0o600)
            database = sqlite3.connect(
                self.path,
                isolation_level=None,
                check_same_thread=False,
                timeout=60,
                factory=Connection,
            )
            try:
                self._set_up(database)
            except BaseException:
                database.close()
                raise
        self._database = database
        return database

    def _set_up(self, database: Connection) -> None:
        if self._use == "live":
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
        else:
            database.execute("PRAGMA journal_mode=OFF")
            database.execute("PRAGMA synchronous=OFF")
        for statement in _SCHEMA:
            database.execute(statement)
        if self._use == "bulk":
            database.execute("BEGIN")

    # -- asking ---------------------------------------------------------------------------------

    @property
    def version(self) -> int | None:
        """Another number after each ``move`` that counts; None: there is nothing to move."""
        if self._database is None:
            return None
        return int(self._database.rows("PRAGMA user_version")[0][0])

    def get(self, path: str) -> Record | None:
        """Return the record of ``path``."""
        if self._database is None and not (self._use == "live" and self._look()):
            return None
        assert self._database is not None
        parent, name = _split(path)
        rows = self._database.rows(f"{_SELECT} AND n.name = ?", (parent, name))
        return _record(rows[0]) if rows else None

    def below(self, path: str) -> dict[str, Record]:
        """Return the records of what directory ``path`` holds, by name."""
        if self._database is None and not (self._use == "live" and self._look()):
            return {}
        assert self._database is not None
        rows = self._database.rows(_SELECT, (os.fsencode(path),))
        return {os.fsdecode(row[8]): _record(row) for row in rows if row[8]}

    def names(self, record: int) -> list[str]:
        """Return all names that share ``record``, in byte order."""
        if self._database is None:
            return []
        rows = self._database.rows("SELECT parent, name FROM names WHERE record = ?", (record,))
        return [os.fsdecode(path) for path in sorted(_join(*row) for row in rows)]

    def groups(self) -> dict[str, int]:
        """Return every name of the files that have several, with the number they share."""
        if self._database is None:
            return {}
        rows = self._database.rows(
            "SELECT parent, name, record FROM names WHERE record IN"
            " (SELECT record FROM names GROUP BY record HAVING count(*) > 1)"
        )
        return {os.fsdecode(_join(parent, name)): record for parent, name, record in rows}

    def problems(self) -> list[str]:
        """Check the file's structure and return what SQLite complains of."""
        if self._database is None:
            return []
        rows = self._database.rows("PRAGMA quick_check")
        return [row[0] for row in rows if row[0] != "ok"]

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Let what is changed meanwhile count together, or not at all if anything is raised."""
        database = self._database
        if database is None or self._use != "live":
            yield
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    # -- changing -------------------------------------------------------------------------------

    def put(self, path: str, record: Record) -> None:
        """Store ``record`` for all names of ``path``; forget it where it says nothing."""
        if record.id == 0 and record.says_nothing:
            return
        database = self._connect()
        if record.says_nothing and not (self._groups and record.links > 1):
            if record.id:
                database.execute("DELETE FROM names WHERE record = ?", (record.id,))
                database.execute("DELETE FROM records WHERE id = ?", (record.id,))
                record.id = 0
            return
        values = (record.kind, record.mode, record.uid, record.gid, record.rdev)
        xattrs = _pack(record.xattrs)
        if record.id:
            database.execute(
                "UPDATE records SET kind=?, mode=?, uid=?, gid=?, rdev=?, xattrs=? WHERE id=?",
                (*values, xattrs, record.id),
            )
            return
        self._insert(database, path, record)

    def _insert(self, database: Connection, path: str, record: Record) -> None:
        cursor = database.execute(
            "INSERT INTO records (kind, mode, uid, gid, rdev, xattrs) VALUES (?,?,?,?,?,?)",
            (
                record.kind,
                record.mode,
                record.uid,
                record.gid,
                record.rdev,
                _pack(record.xattrs),
            ),
        )
        assert cursor.lastrowid is not None
        record.id = cursor.lastrowid
        database.execute("INSERT OR REPLACE INTO names VALUES (?,?,?)", (*_split(path), record.id))

    def will_share(self, existing: str) -> bool:
        """Say whether ``link`` has something to do for a further name of ``existing``."""
        return self._groups or self.get(existing) is not None

    def link(self, existing: str, path: str) -> None:
        """Let the new name ``path`` share the record of ``existing``."""
        self.drop(path)
        record = self.get(existing)
        if record is None:
            if not self._groups:
                return
            record = Record()
            self._insert(self._connect(), existing, record)
        self._connect().execute(
            "INSERT OR REPLACE INTO names VALUES (?,?,?)", (*_split(path), record.id)
        )

    def shared(self, path: str) -> bool:
        """Say whether ``path`` is one of several names that a record counts."""
        record = self.get(path)
        return record is not None and record.links > 1

    def drop(self, path: str) -> None:
        """Forget the name ``path``, and its record with the last name.

        For a new object too: a process killed when it had removed another one there may have left
        that one's record.
        """
        if self._database is None:
            return
        parent, name = _split(path)
        rows = self._database.rows(
            "DELETE FROM names WHERE parent = ? AND name = ? RETURNING record", (parent, name)
        )
        if not rows:
            return
        self._database.execute(
            "DELETE FROM records WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM names WHERE record = records.id)",
            rows[0],
        )

    def move(self, source: str, destination: str) -> None:
        """Follow a rename of ``source`` and everything below it; ``destination`` was replaced."""
        if self._database is None:
            return
        self._database.execute(f"PRAGMA user_version = {(self.version or 0) % (1 << 30) + 1}")
        self._drop_whole(destination)
        old, new = os.fsencode(source), os.fsencode(destination)
        self._database.execute(
            "UPDATE names SET parent = ?, name = ? WHERE parent = ? AND name = ?",
            (*_split(destination), *_split(source)),
        )
        self._database.execute(
            "UPDATE names SET parent = CAST(? || substr(parent, ?) AS BLOB)"
            " WHERE parent = ? OR (parent >= ? AND parent < ?)",
            (new, len(old) + 1, old, old + b"/", old + b"0"),
        )

    def _drop_whole(self, path: str) -> None:
        """Forget ``path`` and what was below it."""
        self.drop(path)
        assert self._database is not None
        top = os.fsencode(path)
        below = self._database.rows(
            "SELECT parent, name FROM names WHERE parent = ? OR (parent >= ? AND parent < ?)",
            (top, top + b"/", top + b"0"),
        )
        for row in below:
            self.drop(os.fsdecode(_join(*row)))

    def copy_to(self, path: str) -> None:
        """Write a consistent copy, without a WAL, for another tree's sidecar."""
        if not self._look():
            return
        import sqlite3

        from ..sqlite import Connection, translated

        assert self._database is not None
        target = sqlite3.connect(path, isolation_level=None, factory=Connection)
        try:
            os.chmod(path, 0o600)
            target.execute("PRAGMA synchronous=OFF")
            with translated(self.path):
                self._database.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()

    def sync(self) -> None:
        """Bring everything into the one file; the caller syncs the file system."""
        if self._database is None:
            return
        if self._use == "live" and not _read_only(self.path):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        elif self._use == "bulk":
            self._database.execute("COMMIT")
            self._database.execute("BEGIN")

    def close(self) -> None:
        """Commit and let go. Closing twice is fine."""
        if self._database is not None:
            if self._use == "bulk":
                self._database.execute("COMMIT")
            self._database.close()
            self._database = None


def _read_only(path: str) -> bool:
    """Say whether the disk can't be written: nobody has a WAL there, nobody changes the file."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except FileNotFoundError:
        return False


def _split(path: str) -> tuple[bytes, bytes]:
    # The root is the nameless child of the root; `below` leaves it out.
    parent, _, name = os.fsencode(path).rpartition(b"/")
    return parent, name


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _pack(xattrs: dict[str, bytes]) -> str | None:
    if not xattrs:
        return None
    return json.dumps({name: value.hex() for name, value in sorted(xattrs.items())})


def _record(row: tuple[int, str, int, int, int, int, str | None, int, bytes]) -> Record:
    id, kind, mode, uid, gid, rdev, xattrs, links, _ = row
    unpacked = (
        {name: bytes.fromhex(value) for name, value in json.loads(xattrs).items()} if xattrs else {}
    )
    return Record(id, kind, mode, uid, gid, rdev, unpacked, links)
