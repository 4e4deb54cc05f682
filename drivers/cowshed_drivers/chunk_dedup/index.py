"""Index: the LMDB environment, which is the store's table of contents and commit point.

    objects   SHA-256                  → pack, frame offset and length, offset and length in the
                                         raw frame, share on disk, number and XOR of its owners
    owners    number u32               → a layer, container or frozen snapshot; see ``Owner``
    items     ID                       → owner number
    edges     owner number, part u32   → up to 127 digests                     (layers)
              owner number, SHA-256    → in how many places the container has it (containers)
    packs     pack u64                 → size, live bytes, notes that count
    garbage   pack u64                 → nothing; packs in which nothing is live any more
    meta      name                     → format, next owner number, next serial

An object's owners are the layers and containers that brought it, not those that inherit it. Their
number and the XOR of their owner numbers are kept in its record: as soon as the number falls to
one, the XOR *is* the remaining owner, so what is exclusive to whom stays exact without a table
from objects to owners.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import lmdb

from cowshed.errors import FormatTooNewError, NoSpaceError, ReadOnlyError

if TYPE_CHECKING:
    from lmdb import (
        _Database as Database,  # pyright: ignore[reportPrivateUsage]  # the stub's only name
    )

FORMAT = 1
T = TypeVar("T")
Txn: TypeAlias = "lmdb.Transaction[bytes]"

#: pack, frame offset, frame length, offset in frame, length, share, owners, XOR of owners
OBJECT = struct.Struct("<QIIIIIII")
PACK = struct.Struct("<QQI")
NUMBER = struct.Struct(">I")
PACK_KEY = struct.Struct(">Q")
_OWNER = struct.Struct("<BIIIIqQQIQ32s")

LAYER, CONTAINER, SNAPSHOT = 1, 2, 3

#: Stands before IDs that aren't 64 hex digits, so that their keys are longer than 32 bytes.
_TEXT_MARK = b"=" * 33

_DATABASES = (b"objects", b"owners", b"items", b"edges", b"packs", b"garbage", b"meta")


@attrs.define
class Owner:
    """One row of ``owners``. A *snapshot* is what a forked container had, held by its forks."""

    kind: int
    #: Owner number of what its edges are relative to: a layer or snapshot; 0 for nothing.
    base: int
    #: Owner number of the layer it stands on; 0 for none.
    layer: int
    root: bytes
    #: As text; empty for a snapshot.
    id: str
    #: How many have this as their base, and the XOR of their numbers.
    dependants: int = 0
    dependants_xor: int = 0
    #: Bytes on disk of objects that nobody else owns.
    exclusive: int = 0
    apparent: int = 0
    #: The pack that holds its newest note; 0 for none.
    note_pack: int = 0
    #: Pack files it wrote.
    packs: int = 0
    serial: int = 0

    def encode(self) -> bytes:
        """Return the row."""
        return _OWNER.pack(
            self.kind,
            self.base,
            self.layer,
            self.dependants,
            self.dependants_xor,
            self.exclusive,
            self.apparent,
            self.note_pack,
            self.packs,
            self.serial,
            self.root,
        ) + id_key(self.id)

    @classmethod
    def decode(cls, row: bytes) -> Owner:
        """Read a row."""
        (kind, base, layer, dependants, xor, exclusive, apparent, note, packs, serial, root) = (
            _OWNER.unpack_from(row)
        )
        return cls(
            kind=kind,
            base=base,
            layer=layer,
            root=root,
            id=key_id(row[_OWNER.size :]),
            dependants=dependants,
            dependants_xor=xor,
            exclusive=exclusive,
            apparent=apparent,
            note_pack=note,
            packs=packs,
            serial=serial,
        )


def id_key(id: str) -> bytes:
    """Return an ID as a key: 64 hex digits take 32 bytes, anything else its text and a mark."""
    if len(id) == 64:
        try:
            key = bytes.fromhex(id)
        except ValueError:
            key = b""
        if key.hex() == id:
            return key
    return _TEXT_MARK + id.encode("utf-8", "surrogateescape") if id else b""


def key_id(key: bytes) -> str:
    """Return the ID that ``id_key`` made ``key`` from."""
    if len(key) == 32:
        return key.hex()
    return key[len(_TEXT_MARK) :].decode("utf-8", "surrogateescape")


class _Shared:
    """One open environment, shared by every driver object of this process."""

    def __init__(self, path: Path, map_size: int, sync: bool) -> None:
        self.pid = os.getpid()
        self.users = 0
        self.sync = sync
        path.mkdir(mode=0o700, exist_ok=True)
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        # lib_version 0 is LMDB 0.9's format, which other tools read too; the two formats that
        # py-lmdb 3 bundles can't read each other. Older bindings know only this one.
        options: dict[str, Any] = {} if lmdb.__version__ < "3" else {"lib_version": 0}
        self.env = lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=len(_DATABASES),
            max_readers=1024,
            # Spare ones keep their reader slots, which a forked child would clear for its parent.
            max_spare_txns=0,
            metasync=True,
            sync=sync,
            # Objects are looked up in the order of their digests: readahead would be waste.
            readahead=False,
            mode=0o600,
            # Nobody writes on a read-only disk, so nobody needs the locks that can't be made there.
            readonly=read_only,
            lock=not read_only,
            **options,
        )
        if not read_only:
            self.env.reader_check()
        if read_only:
            self.databases = {name: self.env.open_db(name, create=False) for name in _DATABASES}
        with self.env.begin(write=not read_only) as txn:
            if not read_only:
                self.databases = {name: self.env.open_db(name, txn=txn) for name in _DATABASES}
            meta = self.databases[b"meta"]
            found = txn.get(b"format", db=meta)
            if found is None:
                txn.put(b"format", NUMBER.pack(FORMAT), db=meta)
            elif NUMBER.unpack(found)[0] > FORMAT:
                raise FormatTooNewError(str(path), NUMBER.unpack(found)[0], FORMAT)


# Two opens of one environment in one process would break its locks, so they are counted here.
_open: dict[str, _Shared] = {}
_guard = threading.Lock()


class Index:
    """Typed access to the environment at ``path``, opened on first use and again after a fork."""

    def __init__(self, path: Path, *, map_size: int, durable: Callable[[], bool]) -> None:
        self._path = path
        self._map_size = map_size
        self._shared: _Shared | None = None
        self._closed = False
        #: False lets the system write when it likes.
        self.durable = durable

    def _open_now(self) -> _Shared:
        if self._closed:
            raise ValueError("the driver is closed")
        key = os.path.realpath(self._path)
        with _guard:
            shared = _open.get(key)
            if shared is not None and shared.pid != os.getpid():
                # In a child close() only forgets: the binding leaves the parent's locks alone.
                shared.env.close()
                shared = None
            if shared is None:
                shared = _open[key] = _Shared(self._path, self._map_size, self.durable())
            shared.users += 1
            self._shared = shared
            self.objects: Database = shared.databases[b"objects"]
            self.owners: Database = shared.databases[b"owners"]
            self.items: Database = shared.databases[b"items"]
            self.edges: Database = shared.databases[b"edges"]
            self.packs: Database = shared.databases[b"packs"]
            self.garbage: Database = shared.databases[b"garbage"]
            self.meta: Database = shared.databases[b"meta"]
        return shared

    def _current(self) -> _Shared:
        shared = self._shared
        if shared is None or shared.pid != os.getpid():
            return self._open_now()
        return shared

    @contextmanager
    def read(self) -> Generator[Txn]:
        """Look at one consistent state. Keep it short: an open look pins freed pages."""
        env = self._current().env
        try:
            txn = env.begin()
        except lmdb.MapResizedError:  # another process has grown the map
            env.set_mapsize(0)
            txn = env.begin()
        with txn:
            yield txn

    def lookup(self, digest: bytes) -> bytes | None:
        """Return an object's row (``OBJECT``), or None."""
        env = self._current().env
        try:
            with env.begin() as txn:
                return txn.get(digest, db=self.objects)
        except lmdb.MapResizedError:
            with self.read() as txn:
                return txn.get(digest, db=self.objects)

    def settle(self) -> None:
        """Make sure that the next reader sees everything that was ever committed.

        A writer killed between writing LMDB's meta page and announcing it leaves readers on the
        state before, until somebody takes the writers' lock: in 8 of 50 runs of the kit's kill
        test, ``recover`` then took packs for orphans that a transaction had named.
        """
        self._current().env.begin(write=True).abort()

    def write(self, work: Callable[[Txn], T]) -> T:
        """Run ``work`` in one write transaction and commit it durably; all or nothing.

        ``work`` runs again from a clean state when the map had to grow.

        Raises:
            NoSpaceError, ReadOnlyError: the disk can't take it; nothing was changed.
        """
        shared = self._current()
        env = shared.env
        while True:
            try:
                with env.begin(write=True) as txn:
                    result = work(txn)
                if self.durable() and not shared.sync:
                    env.sync(True)
                return result
            except lmdb.MapFullError:
                env.set_mapsize(env.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                env.set_mapsize(0)
            except lmdb.ReadonlyError as error:
                raise ReadOnlyError(f"{self._path}: {error}") from error
            except lmdb.DiskError as error:
                raise NoSpaceError(f"{self._path}: {error}; free some space and retry") from error

    def close(self) -> None:
        """Let go; the environment closes with its last user. Closing twice is fine."""
        self._closed = True
        shared, self._shared = self._shared, None
        if shared is None or shared.pid != os.getpid():
            return
        with _guard:
            shared.users -= 1
            if not shared.users:
                key = os.path.realpath(self._path)
                if _open.get(key) is shared:
                    del _open[key]
                shared.env.close()

    # -- rows ---------------------------------------------------------------------------------

    def find(self, txn: Txn, id: str) -> tuple[int, Owner] | None:
        """Return the owner that ``id`` names, with its number."""
        row = txn.get(id_key(id), db=self.items)
        if row is None:
            return None
        number: int = NUMBER.unpack(row)[0]
        return number, self.owner(txn, number)

    def owner(self, txn: Txn, number: int) -> Owner:
        """Return the owner with that number."""
        row = txn.get(NUMBER.pack(number), db=self.owners)
        if row is None:
            raise KeyError(number)
        return Owner.decode(row)

    def put_owner(self, txn: Txn, number: int, owner: Owner) -> None:
        """Write an owner's row."""
        txn.put(NUMBER.pack(number), owner.encode(), db=self.owners)

    def next(self, txn: Txn, name: bytes, count: int = 1) -> int:
        """Take ``count`` numbers from a counter in ``meta`` and return the first."""
        row = txn.get(name, db=self.meta)
        first: int = PACK_KEY.unpack(row)[0] if row else 1
        txn.put(name, PACK_KEY.pack(first + count), db=self.meta)
        return first

    def pack(self, txn: Txn, number: int) -> tuple[int, int, int] | None:
        """Return a pack's (size, live bytes, notes that count)."""
        row = txn.get(PACK_KEY.pack(number), db=self.packs)
        return None if row is None else PACK.unpack(row)
