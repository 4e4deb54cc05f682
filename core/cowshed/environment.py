"""Environment: an LMDB environment, shared by all that use it in one process.

    environment = Environment(root / "index", [b"rows"], what="index of my-driver")
    with environment.read() as txn:
        row = txn.get(key, db=environment.databases[b"rows"])

Readers never block; writers are serialised by LMDB, and what a transaction wrote is durable when
it ends. Whatever LMDB raises arrives as one of ours: ``NoSpaceError``, ``ReadOnlyError``,
``CorruptError``, else ``StoreError``. It is opened on first use, and again after a fork: LMDB's
locks belong to one process.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import lmdb

from .errors import CorruptError, NoSpaceError, ReadOnlyError, StoreError
from .partials import sync_directory

Txn: TypeAlias = "lmdb.Transaction[bytes]"
Database: TypeAlias = "lmdb._Database"  # pyright: ignore[reportPrivateUsage]  # its only name
Databases: TypeAlias = dict[bytes, Database]
T = TypeVar("T")

#: Address space, not disk: the file is sparse and grows with its content.
MAP_SIZE = 1 << 36

#: Disk space kept allocated for the transactions that free some, when there is none left. It takes
#: a few containers, or a layer of some hundred objects of chunk-dedup's …
RESERVE = 1 << 18

#: … and with less than this left on the disk, as much as the environment's content is kept: no
#: transaction copies more pages. Half of that was too little to remove a layer of 20,000 objects.
#: Kept always, it would make a store of as many files of 600 bytes a sixth larger.
LOW = 1 << 30

#: Bytes of a file up to which its pages may stay in a process's memory.
_SMALL = 16 << 20
_MADV_DONTNEED = 4

# One environment must not be opened twice in a process: its locks would break.
_open: dict[str, _Shared] = {}
_guard = threading.Lock()


def _unlock() -> None:
    global _guard
    _guard = threading.Lock()  # another thread may have held it, and isn't there in the child


os.register_at_fork(after_in_child=_unlock)


class _Shared:
    """What the users of one path in this process share."""

    def __init__(self, path: Path, names: list[bytes], map_size: int, sync: bool, read_only: bool):
        self.pid = os.getpid()
        self.users = 0
        self.sync = sync
        self.read_only = read_only
        #: Whether LMDB refuses all further work: it couldn't write its meta page.
        self.broken = False
        self.file = path / "data.mdb"
        self.env = lmdb.open(
            os.fspath(path),
            map_size=map_size,
            max_dbs=len(names),
            max_readers=1024,
            # Spare ones keep their reader slots, which a forked child would clear for its parent.
            max_spare_txns=0,
            mode=0o600,
            readonly=read_only,
            create=not read_only,
            # Nobody writes on a read-only disk, so nobody needs the locks that can't be made there.
            lock=not read_only or os.access(path, os.W_OK),
            sync=sync,
            # Keys are looked up in the order of their digests: readahead would be waste.
            readahead=False,
            # 0.9's file format, which other tools read too; 1.0's is another, and neither reads
            # the other's files.
            lib_version=0,
        )
        self.databases: Databases = {}
        self.page = self.env.stat()["psize"]
        #: Held while it is used or changes where the file is mapped.
        self._map = threading.Lock()
        #: From and to, once somebody asked.
        self._mapped: tuple[int, int] | None = None

    def begin(self, *, write: bool = False) -> Txn:
        try:
            return self.env.begin(write=write)
        except lmdb.MapResizedError:  # another process has grown the map
            self.resize(0)
            return self.env.begin(write=write)

    def resize(self, size: int) -> None:
        """Map so many bytes of the file, or with 0 as many as others do."""
        with self._map:
            self._mapped = None
            self.env.set_mapsize(size)

    def close(self) -> None:
        """Let go. In a forked child, where another thread may have held the lock, without it."""
        with nullcontext() if self.pid != os.getpid() else self._map:
            self._mapped = 0, 0
            self.env.close()

    def trim(self) -> None:
        """Take a large file's pages out of this process, which the kernel counts as its memory:
        16 of them for each that is looked at. They stay in the system's cache."""
        with suppress(OSError), self._map:  # without /proc they stay
            if os.stat(self.file).st_size <= _SMALL:
                return
            if self._mapped is None:
                self._mapped = _mapped(self.file)
            start, end = self._mapped
            if end > start:
                _madvise()(start, end - start, _MADV_DONTNEED)

    def start(self, names: list[bytes], opened: Callable[[Txn, Databases], None] | None) -> None:
        """Open the databases in one transaction, made if need be, and let ``opened`` look."""
        if self.read_only:
            self.databases = {name: self.env.open_db(name, create=False) for name in names}
        else:
            self.env.reader_check()
        with self.begin(write=not self.read_only) as txn:
            if not self.read_only:
                self.reserve()
                self.databases = {name: self.env.open_db(name, txn=txn) for name in names}
            if opened is not None:
                opened(txn, self.databases)

    def look_after(self) -> None:
        """After a write that failed: see whether it can be used any further."""
        try:
            self.begin().abort()
        except lmdb.PanicError:
            self.broken = True
        except lmdb.Error:
            pass  # whoever tries next is told

    def reserve(self) -> None:
        """See to it that this transaction can be written even if the disk is full.

        LMDB's file grows page by page, so without this ``rm`` and ``gc`` would need free space to
        make some. Once the disk is full the reserve is used up, and taken again afterwards.
        """
        used = (self.env.info()["last_pgno"] + 1) * self.page
        size = os.stat(self.file).st_size
        free = _free(self.file)
        # Twice what is needed: taken again when half is used.
        room = RESERVE if free >= LOW else max(RESERVE, min(2 * used, free // 4))
        if size < used + room // 2:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
            try:
                with suppress(OSError):
                    os.posix_fallocate(descriptor, size, used + room - size)
            finally:
                os.close(descriptor)


class Environment:
    """One user's hold on the environment in directory ``path``, which is made if need be.

    All users of a path name the same ``databases``. ``what`` stands in error messages.
    ``durable`` is asked at each commit; False lets the system write when it likes. ``opened`` is
    called in a transaction whenever this user opens the environment: to check its format, or to
    keep the databases where they are at hand. What it writes counts only if it wasn't open yet.

    Safe to use from several threads.
    """

    def __init__(
        self,
        path: Path,
        databases: Iterable[bytes],
        *,
        what: str,
        durable: Callable[[], bool] = lambda: True,
        read_only: bool = False,
        map_size: int = MAP_SIZE,
        opened: Callable[[Txn, Databases], None] | None = None,
    ) -> None:
        self._path = path
        self._names = list(databases)
        self._what = what
        self._durable = durable
        self._read_only = read_only
        self._map_size = map_size
        self._opened = opened
        self._shared: _Shared | None = None
        self._closed = False
        #: By name. LMDB's handles are of one process, so look here after the transaction began.
        self.databases: Databases = {}

    def open(self) -> None:
        """Open it now, if it isn't, to see whether that can be done.

        Raises:
            StoreError: LMDB can't open it.
        """
        self._current()

    def close(self) -> None:
        """Let go; the environment closes with its last user. Closing twice is fine."""
        self._closed = True
        with _guard:
            shared, self._shared = self._shared, None
            if shared is None or shared.pid != os.getpid():
                return  # a forked child must not touch its parent's
            shared.users -= 1
            if not shared.users:
                key = os.path.realpath(self._path)
                if _open.get(key) is shared:
                    del _open[key]
                shared.close()

    # -- transactions -------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Generator[Txn]:
        """Look at one consistent state. Keep it short: an open look pins freed pages."""
        shared = self._current()
        try:
            try:
                txn = shared.env.begin()  # begin() of ours would be a call more
            except lmdb.MapResizedError:
                txn = shared.begin()
            with txn:
                yield txn
        except lmdb.Error as error:
            raise self._translated(error) from error

    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Return one value as it is now: half the time of a ``read`` block."""
        shared = self._current()
        try:
            try:
                with shared.env.begin() as txn:
                    return txn.get(key, db=shared.databases[database])
            except lmdb.MapResizedError:
                with shared.begin() as txn:
                    return txn.get(key, db=shared.databases[database])
        except lmdb.Error as error:
            raise self._translated(error) from error

    @contextmanager
    def write(self) -> Generator[Txn]:
        """Give the one writing transaction; it commits when the block ends well.

        Raises:
            ReadOnlyError: the disk can't be written.
            NoSpaceError: the disk or the map is full; nothing was changed.
        """
        shared = self._current()
        try:
            with self._writing(shared) as txn:
                shared.reserve()
                yield txn
            self._sync(shared)
        except lmdb.Error as error:
            shared.look_after()
            raise self._translated(error) from error

    def commit(self, work: Callable[[Txn], T]) -> T:
        """Run ``work`` in one writing transaction and commit it; all or nothing.

        ``work`` runs again from a clean state when the map had to grow.

        Raises:
            ReadOnlyError, NoSpaceError: the disk can't take it; nothing was changed.
        """
        shared = self._current()
        try:
            while True:
                try:
                    with self._writing(shared) as txn:
                        shared.reserve()
                        result = work(txn)
                    self._sync(shared)
                    return result
                except lmdb.MapFullError:
                    shared.resize(shared.env.info()["map_size"] * 2)
        except lmdb.Error as error:
            shared.look_after()
            raise self._translated(error) from error

    def settle(self) -> None:
        """Make sure that the next reader sees everything that was ever committed.

        A writer killed between writing LMDB's meta page and announcing it leaves readers on the
        state before, until somebody takes the writers' lock: in 8 of 50 runs of the kit's kill
        test, a driver then took for orphans what a transaction had named. Whoever is about to
        delete what isn't named settles first, holding the lock that keeps others from adding.
        """
        shared = self._current()
        try:
            self._writing(shared).abort()
        except lmdb.Error as error:
            raise self._translated(error) from error

    def trim(self) -> None:
        """Keep what was looked at out of this process's memory. For who looks at very much."""
        self._current().trim()

    # -- plumbing -----------------------------------------------------------------------------

    def _current(self) -> _Shared:
        shared = self._shared
        if shared is None or shared.broken or shared.pid != os.getpid():
            return self._open_now()
        return shared

    def _open_now(self) -> _Shared:
        with _guard:
            if self._closed:
                raise ValueError(f"the {self._what} is closed")
            mine = self._shared
            if mine is not None and mine.pid == os.getpid() and not mine.broken:
                return mine  # another thread was first
            try:
                shared = self._join(os.path.realpath(self._path))
            except lmdb.Error as error:
                raise self._translated(error) from error
            shared.users += 1
            self.databases = shared.databases
            self._shared = shared
            return shared

    def _join(self, key: str) -> _Shared:
        shared = _open.get(key)
        if shared is not None and shared.pid != os.getpid():
            # In a child close() only forgets: the binding leaves the parent's locks alone.
            shared.close()
            shared = None
        if shared is not None and shared.broken:
            # What others of this process are reading just now ends with an error.
            del _open[key]
            shared.close()
            shared = None
        if shared is not None:
            if self._opened is not None:
                with shared.begin() as txn:
                    self._opened(txn, shared.databases)
            return shared
        if not self._read_only:
            self._path.mkdir(mode=0o700, exist_ok=True)
        read_only = self._read_only or bool(os.statvfs(self._path).f_flag & os.ST_RDONLY)
        new = not (self._path / "data.mdb").exists()
        sync = self._durable()
        shared = _Shared(self._path, self._names, self._map_size, sync, read_only)
        try:
            shared.start(self._names, self._opened)
        except BaseException:
            shared.close()
            raise
        if new and sync:
            sync_directory(self._path)  # LMDB syncs the file, not its name
        _open[key] = shared
        return shared

    def _writing(self, shared: _Shared) -> Txn:
        if self._read_only or shared.read_only:
            raise ReadOnlyError(f"the {self._what} is read-only; nothing can be changed")
        return shared.begin(write=True)

    def _sync(self, shared: _Shared) -> None:
        if not shared.sync and self._durable():
            shared.env.sync(True)

    def _translated(self, error: lmdb.Error) -> StoreError:
        if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or self._is_full(str(error)):
            return NoSpaceError(
                f"no space left for the {self._what} ({self._path}); nothing was changed: "
                "free some space and try again"
            )
        if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError)):
            return CorruptError(self._what, str(error))
        if isinstance(error, lmdb.ReadonlyError):
            return ReadOnlyError(f"the {self._what} can't be written: {error}")
        return StoreError(f"{self._what}: {error}")

    def _is_full(self, message: str) -> bool:
        """Say whether the disk is: LMDB calls a write that was cut short an input/output error."""
        if any(sign in message for sign in ("No space left", "quota exceeded", "File too large")):
            return True
        return "Input/output" in message and _free(self._path) < RESERVE


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    import ctypes  # 3 ms, and few indexes are large

    found = ctypes.CDLL(None, use_errno=True).madvise
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return cast(Callable[[int, int, int], int], found)


def _mapped(file: Path) -> tuple[int, int]:
    """Return where this process has mapped a file (proc_pid_maps(5)); two equal numbers: nobody
    can say. The device that stands there is another than stat(2)'s on btrfs."""
    inode = b"%d" % os.stat(file).st_ino
    end_of_line = os.fsencode(f"/{file.name}")
    found: list[bytes] = []
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if fields[4] == inode and line.rstrip(b"\n").endswith(end_of_line):
                found.append(fields[0])
    if len(found) != 1:
        return 0, 0
    start, end = found[0].split(b"-")
    return int(start, 16), int(end, 16)


def _free(path: Path) -> int:
    """Return the bytes left on the disk that ``path`` is on."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
