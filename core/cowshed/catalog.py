"""Catalog: names, images, chains, containers, leases and sizes, in LMDB. The commit point.

Nothing exists for Cowshed until a catalog transaction says so, and what a transaction says is
already durable. Readers never block; writers are serialised by LMDB and hold their transaction
for microseconds of work plus the commit: no file is copied inside one.

``references`` of a layer count images and containers on it, layers on it and leases. Releasing
the last one removes the record and releases its parent; the layers whose records went are handed
to the caller, who removes them from their drivers, and stay listed as doomed until that is done.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .environment import Databases, Environment, Txn
from .errors import CorruptError, StoreError
from .records import OF_CONTAINER, ContainerRecord, ImageRecord, LayerRecord, LeaseRecord

_DATABASES = (
    b"images", b"names", b"layers", b"containers", b"container_names", b"uses", b"drivers",
    b"leases", b"doomed",
)  # fmt: skip


class Catalog:
    """The catalog of one shed. Safe to use from several threads; open again after fork."""

    def __init__(self, path: Path, *, durable: bool = True, read_only: bool = False) -> None:
        """Open or create the environment in directory ``path``.

        Raises:
            StoreError: LMDB can't open it.
        """
        self._pid = os.getpid()
        self._closed = False
        self._environment = Environment(
            path, _DATABASES, what="catalog", durable=lambda: durable, read_only=read_only
        )
        self._environment.open()

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        self._closed = True
        self._environment.close()

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Give a consistent view; keep it short, an old view holds back reuse of space."""
        self._check_process()
        with self._environment.read() as transaction:
            yield Transaction(transaction, self._environment.databases)

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Give the one writing transaction; it commits durably when the block ends well.

        Raises:
            ReadOnlyError: the shed is opened read-only.
            NoSpaceError: the disk is full; nothing was changed.
        """
        self._check_process()
        with self._environment.write() as transaction:
            yield Transaction(transaction, self._environment.databases)

    def settle(self) -> None:
        """Make sure that the next reader sees everything that was ever committed.

        Whoever is about to delete what the catalog doesn't name settles it first, holding the lock
        that keeps others from adding; see ``Environment.settle``.
        """
        self._check_process()
        self._environment.settle()

    def _check_process(self) -> None:
        if self._closed:
            raise StoreError("the shed is closed")
        if self._pid != os.getpid():
            raise StoreError("open the shed again after fork: LMDB locks belong to one process")


class Transaction:
    """Typed access to the databases, inside one LMDB transaction."""

    def __init__(self, transaction: Txn, databases: Databases) -> None:
        self._transaction = transaction
        self._databases = databases

    # -- images -------------------------------------------------------------------------------

    def image(self, id: str) -> ImageRecord | None:
        data = self._get(b"images", bytes.fromhex(id))
        return None if data is None else ImageRecord.decode(id, data)

    def images(self) -> Iterator[ImageRecord]:
        for key, data in self._scan(b"images"):
            yield ImageRecord.decode(key.hex(), data)

    def put_image(self, record: ImageRecord) -> None:
        self._put(b"images", bytes.fromhex(record.id), record.encode())

    def delete_image(self, id: str) -> None:
        self._delete(b"images", bytes.fromhex(id))

    def image_names(self) -> Iterator[tuple[str, str]]:
        """Yield (name, image ID) in the order of names."""
        for key, data in self._scan(b"names"):
            yield key.decode(), data.hex()

    def image_named(self, name: str) -> str | None:
        data = self._get(b"names", _name_key(name))
        return None if data is None else data.hex()

    def name_image(self, name: str, id: str) -> None:
        self._put(b"names", _name_key(name), bytes.fromhex(id))

    def unname_image(self, name: str) -> None:
        self._delete(b"names", _name_key(name))

    def image_uses(self, id: str) -> int:
        """Say how many containers were made on an image."""
        data = self._get(b"uses", bytes.fromhex(id))
        return 0 if data is None else int.from_bytes(data, "big")

    def _use_image(self, id: str, delta: int) -> None:
        if id:
            uses = self.image_uses(id) + delta
            key = bytes.fromhex(id)
            if uses > 0:
                self._put(b"uses", key, uses.to_bytes(8, "big"))
            else:
                self._delete(b"uses", key)

    # -- layers -------------------------------------------------------------------------------

    def layer(self, driver: str, chain: str) -> LayerRecord | None:
        data = self._get(b"layers", _layer_key(driver, chain))
        return None if data is None else LayerRecord.decode(driver, chain, data)

    def layers(self, driver: str | None = None) -> Iterator[LayerRecord]:
        prefix = b"" if driver is None else driver.encode() + b"\0"
        for key, data in self._scan(b"layers", prefix):
            name, chain = key[:-33], key[-32:]
            yield LayerRecord.decode(name.decode(), chain.hex(), data)

    def put_layer(self, record: LayerRecord) -> None:
        """Add a layer; it takes a reference on its parent."""
        self._put(b"layers", _layer_key(record.driver, record.chain), record.encode())
        if record.parent:
            self.hold_layer(record.driver, record.parent)

    def hold_layer(self, driver: str, chain: str, count: int = 1) -> None:
        """Take ``count`` references on a layer. CorruptError: it isn't there."""
        record = self.layer(driver, chain)
        if record is None:
            raise CorruptError(f"layer {chain[:12]}", f"missing in driver {driver}")
        record = record._replace(references=record.references + count)
        self._put(b"layers", _layer_key(driver, chain), record.encode())

    def release_layer(self, driver: str, chain: str, count: int = 1) -> list[LayerRecord]:
        """Give references back; return the layers that went with them, top first, now doomed."""
        gone: list[LayerRecord] = []
        while chain:
            record = self.layer(driver, chain)
            if record is None:
                break
            if record.references > count:
                record = record._replace(references=record.references - count)
                self._put(b"layers", _layer_key(driver, chain), record.encode())
                break
            self._delete(b"layers", _layer_key(driver, chain))
            self.doom(driver, chain)
            gone.append(record)
            chain, count = record.parent, 1
        return gone

    # -- containers ---------------------------------------------------------------------------

    def container(self, id: str) -> ContainerRecord | None:
        data = self._get(b"containers", bytes.fromhex(id))
        return None if data is None else ContainerRecord.decode(id, data, self._driver_names())

    def containers(self) -> Iterator[ContainerRecord]:
        drivers = self._driver_names()
        for key, data in self._scan(b"containers"):
            yield ContainerRecord.decode(key.hex(), data, drivers)

    def container_named(self, name: str) -> str | None:
        data = self._get(b"container_names", _name_key(name))
        return None if data is None else data.hex()

    def ids_with_prefix(self, database: str, prefix: str, most: int = 5) -> list[str]:
        """Return up to ``most`` IDs of ``"images"`` or ``"containers"`` that begin so, in hex."""
        found: list[str] = []
        even = prefix[: len(prefix) // 2 * 2]
        for key, _ in self._scan(database.encode(), bytes.fromhex(even)):
            if key.hex().startswith(prefix):
                found.append(key.hex())
                if len(found) == most:
                    break
        return found

    def add_containers(self, records: list[ContainerRecord]) -> None:
        """Add containers that all stand on the same image, layer and driver."""
        if not records:
            return
        first = records[0]
        number = self._driver_number(first.driver)
        self._put_many(
            b"containers",
            sorted((bytes.fromhex(record.id), record.encode(number)) for record in records),
        )
        self._put_many(
            b"container_names",
            sorted((_name_key(record.name), bytes.fromhex(record.id)) for record in records),
        )
        if first.chain:
            self.hold_layer(first.driver, first.chain, len(records))
        self._use_image(first.image, len(records))

    def rename_container(self, record: ContainerRecord, name: str) -> None:
        self._delete(b"container_names", _name_key(record.name))
        self._put(b"container_names", _name_key(name), bytes.fromhex(record.id))
        number = self._driver_number(record.driver)
        renamed = record._replace(name=name)
        self._put(b"containers", bytes.fromhex(record.id), renamed.encode(number))

    def move_container(self, record: ContainerRecord, driver: str) -> list[LayerRecord]:
        """Let a container live in another driver; return the layers the old one can drop."""
        moved = record._replace(driver=driver)
        number = self._driver_number(driver)
        self._put(b"containers", bytes.fromhex(record.id), moved.encode(number))
        self.doom(record.driver, record.id)
        self.absolve(driver, record.id)
        if not record.chain:
            return []
        self.hold_layer(driver, record.chain)
        return self.release_layer(record.driver, record.chain)

    def delete_containers(self, records: Iterable[ContainerRecord]) -> list[LayerRecord]:
        """Forget containers, now doomed; return the layers that went with the last of them."""
        gone: list[LayerRecord] = []
        on_layer: dict[tuple[str, str], int] = {}
        on_image: dict[str, int] = {}
        for record in records:
            self._delete(b"containers", bytes.fromhex(record.id))
            self._delete(b"container_names", _name_key(record.name))
            self.doom(record.driver, record.id)
            layer = record.driver, record.chain
            on_layer[layer] = on_layer.get(layer, 0) + 1
            on_image[record.image] = on_image.get(record.image, 0) + 1
        for image, count in on_image.items():
            self._use_image(image, -count)
        for (driver, chain), count in on_layer.items():
            gone += self.release_layer(driver, chain, count)
        return gone

    # -- leases and what is doomed ------------------------------------------------------------

    def lease(self, id: str) -> LeaseRecord | None:
        data = self._get(b"leases", id.encode())
        return None if data is None else LeaseRecord.decode(id, data)

    def leases(self) -> Iterator[LeaseRecord]:
        for key, data in self._scan(b"leases"):
            yield LeaseRecord.decode(key.decode(), data)

    def other_leases(self) -> bool:
        """Say whether there are others than those of temporary containers, which stand last."""
        for key, _ in self._scan(b"leases"):
            return not key.startswith(OF_CONTAINER.encode())
        return False

    def some_leases_of_containers(self, most: int) -> list[str]:
        """Return the IDs of up to ``most`` leases of temporary containers, chosen at random."""
        first = OF_CONTAINER.encode()
        found: list[str] = []
        with self._transaction.cursor(db=self._databases[b"leases"]) as cursor:
            there = cursor.set_range(first + os.urandom(8).hex().encode())
            while len(found) < most:
                there = there or cursor.set_range(first)
                id = cursor.key().decode() if there else ""
                if not id or id in found:
                    break
                found.append(id)
                there = cursor.next()
        return found

    def put_lease(self, lease: LeaseRecord) -> None:
        self._put(b"leases", lease.id.encode(), lease.encode())

    def delete_lease(self, id: str) -> None:
        self._delete(b"leases", id.encode())

    def doom(self, driver: str, id: str) -> None:
        """Note that a driver may still hold ``id``, which nothing refers to any more."""
        self._put(b"doomed", _layer_key(driver, id), b"")

    def doomed(self) -> list[tuple[str, str]]:
        """Return (driver, ID) of what is still to be removed from drivers."""
        return [(key[:-33].decode(), key[-32:].hex()) for key, _ in self._scan(b"doomed")]

    def wants(self, driver: str, id: str) -> bool:
        """Say whether a driver must hold ``id``, a layer or a container."""
        if self.layer(driver, id) is not None:
            return True
        container = self.container(id)
        return container is not None and container.driver == driver

    def absolve(self, driver: str, id: str) -> None:
        """Note that a driver doesn't hold ``id`` any more, or that it is wanted again."""
        self._delete(b"doomed", _layer_key(driver, id))

    def count(self, database: str) -> int:
        """Say how many ``"images"`` or ``"containers"`` there are, without reading them."""
        entries: int = self._transaction.stat(self._databases[database.encode()])["entries"]
        return entries

    # -- plumbing -----------------------------------------------------------------------------

    def _driver_names(self) -> dict[int, str]:
        return {data[0]: key.decode() for key, data in self._scan(b"drivers")}

    def _driver_number(self, driver: str) -> int:
        names = self._driver_names()
        for number, name in names.items():
            if name == driver:
                return number
        number = max(names, default=0) + 1
        self._put(b"drivers", driver.encode(), bytes([number]))
        return number

    def _get(self, database: bytes, key: bytes) -> bytes | None:
        data: bytes | None = self._transaction.get(key, db=self._databases[database])
        return data

    def _put(self, database: bytes, key: bytes, data: bytes) -> None:
        self._transaction.put(key, data, db=self._databases[database])

    def _put_many(self, database: bytes, items: list[tuple[bytes, bytes]]) -> None:
        with self._transaction.cursor(self._databases[database]) as cursor:
            cursor.putmulti(items)

    def _delete(self, database: bytes, key: bytes) -> None:
        self._transaction.delete(key, db=self._databases[database])

    def _scan(self, database: bytes, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(self._databases[database]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, data in cursor:
                if not key.startswith(prefix):
                    return
                yield key, data


def _layer_key(driver: str, id: str) -> bytes:
    return driver.encode() + b"\0" + bytes.fromhex(id)


def _name_key(name: str) -> bytes:
    # LMDB takes keys of 511 bytes at most; references are bounded well below that.
    return name.encode()
