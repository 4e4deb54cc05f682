"""Index: the LMDB environment, which is the store's table of contents and commit point.

    objects   SHA-256                  → pack, frame offset and length, offset and length in the
                                         raw frame, share on disk, number and XOR of its owners
    owners    number u32               → a layer, container, snapshot or claim; see ``Owner``
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

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import attrs

from cowshed.environment import Database, Databases, Environment
from cowshed.environment import Txn as Txn
from cowshed.errors import FormatTooNewError

FORMAT = 1
T = TypeVar("T")

#: pack, frame offset, frame length, offset in frame, length, share, owners, XOR of owners
OBJECT = struct.Struct("<QIIIIIII")
PACK = struct.Struct("<QQI")
NUMBER = struct.Struct(">I")
PACK_KEY = struct.Struct(">Q")
_OWNER = struct.Struct("<BIIIIqQQIQ32s")

LAYER, CONTAINER, SNAPSHOT, CLAIM = 1, 2, 3, 4

#: What users know of: the others are snapshots and claims.
NAMED = (LAYER, CONTAINER)

#: Rows after which those looked at are better let go of: the kernel maps 64 KiB for each.
_TRIM_AFTER = 64

#: Stands before IDs that aren't 64 hex digits, so that their keys are longer than 32 bytes.
_TEXT_MARK = b"=" * 33

_DATABASES = (b"objects", b"owners", b"items", b"edges", b"packs", b"garbage", b"meta")


@attrs.define
class Owner:
    """One row of ``owners``. A *snapshot* is what a forked container had, held by its forks; a
    *claim* is a large layer before it is sealed (``claim``)."""

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


class Index:
    """Typed access to the environment at ``path``, opened on first use and again after a fork."""

    def __init__(self, path: Path, *, map_size: int, durable: Callable[[], bool]) -> None:
        self._path = path
        #: False lets the system write when it likes.
        self.durable = durable
        #: Whether this process is to keep rows that it looked up out of its memory. Random look-ups
        #: then take two and a half times as long.
        self.trims = False
        self._lookups = 0
        self._environment = Environment(
            path,
            _DATABASES,
            what="index of chunk-dedup",
            durable=durable,
            map_size=map_size,
            opened=self._opened,
        )

    def _opened(self, txn: Txn, databases: Databases) -> None:
        self.objects: Database = databases[b"objects"]
        self.owners: Database = databases[b"owners"]
        self.items: Database = databases[b"items"]
        self.edges: Database = databases[b"edges"]
        self.packs: Database = databases[b"packs"]
        self.garbage: Database = databases[b"garbage"]
        self.meta: Database = databases[b"meta"]
        found = txn.get(b"format", db=self.meta)
        if found is None:
            txn.put(b"format", NUMBER.pack(FORMAT), db=self.meta)
        elif NUMBER.unpack(found)[0] > FORMAT:
            raise FormatTooNewError(str(self._path), NUMBER.unpack(found)[0], FORMAT)

    def read(self) -> AbstractContextManager[Txn]:
        """Look at one consistent state. Keep it short: an open look pins freed pages."""
        return self._environment.read()

    def lookup(self, digest: bytes) -> bytes | None:
        """Return an object's row (``OBJECT``), or None."""
        if self.trims:
            self.looked()
        return self._environment.get(b"objects", digest)

    def looked(self) -> None:
        """Note that a row was looked at, which isn't to stay in this process's memory."""
        self._lookups += 1
        if not self._lookups % _TRIM_AFTER:
            self._environment.trim()

    def settle(self) -> None:
        """Make sure that the next reader sees everything that was ever committed."""
        self._environment.settle()

    def write(self, work: Callable[[Txn], T]) -> T:
        """Run ``work`` in one write transaction and commit it durably; all or nothing.

        ``work`` runs again from a clean state when the map had to grow.

        Raises:
            NoSpaceError, ReadOnlyError: the disk can't take it; nothing was changed.
        """
        return self._environment.commit(work)

    def close(self) -> None:
        """Let go; the environment closes with its last user. Closing twice is fine."""
        self._environment.close()

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
