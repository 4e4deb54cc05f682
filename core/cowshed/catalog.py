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
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb

from .errors import CorruptError, NoSpaceError, ReadOnlyError, StoreError
from .partials import sync_directory
from .records import ContainerRecord, ImageRecord, LayerRecord, LeaseRecord

#: Address space, not disk: the file grows with its content. 10,000 containers take 2 MiB.
MAP_SIZE = 1 << 36

#: Disk space kept allocated for the transactions that free some, when there is none left.
RESERVE = 1 << 18

_DATABASES = (
    b"images", b"names", b"layers", b"containers", b"container_names", b"uses", b"drivers",
    b"leases", b"doomed",
)  # fmt: skip

#: One LMDB environment must not be opened twice in a process: its locks would break.
_open_environments: dict[tuple[int, str], tuple[Any, int]] = {}
_open_lock = threading.Lock()


class Catalog:
    """The catalog of one shed. Safe to use from several threads; open again after fork."""

    def __init__(self, path: Path, *, durable: bool = True, read_only: bool = False) -> None:
        """Open or create the environment in directory ``path``.

        Raises:
            StoreError: LMDB can't open it.
        """
        self._key = (os.getpid(), os.path.realpath(path))
        self._file = path / "data.mdb"
        self._read_only = read_only
        self._closed = False
        new = not read_only and not self._file.exists()
        with _open_lock, _clear_errors(path):
            environment, users = _open_environments.get(self._key, (None, 0))
            if environment is None:
                environment = _open(path, durable=durable, read_only=read_only)
            _open_environments[self._key] = environment, users + 1
        self._environment = environment
        self._databases: dict[bytes, Any] = {}
        with _clear_errors(path):
            for name in _DATABASES:
                self._databases[name] = environment.open_db(name, create=not read_only)
        if new:
            with self.write():
                pass  # takes the reserve
            if durable:
                sync_directory(path)  # LMDB syncs the file, not its name

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        with _open_lock:
            environment, users = _open_environments.pop(self._key)
            if users > 1:
                _open_environments[self._key] = environment, users - 1
            elif self._key[0] == os.getpid():  # a forked child must not touch the parent's
                environment.close()

    @contextmanager
    def read(self) -> Generator[Transaction, None, None]:
        """Give a consistent view; keep it short, an old view holds back reuse of space."""
        self._check_process()
        with _clear_errors(self._file), self._environment.begin() as transaction:
            yield Transaction(transaction, self._databases)

    @contextmanager
    def write(self) -> Generator[Transaction, None, None]:
        """Give the one writing transaction; it commits durably when the block ends well.

        Raises:
            ReadOnlyError: the shed is opened read-only.
            NoSpaceError: the disk is full; nothing was changed.
        """
        self._check_process()
        if self._read_only:
            raise ReadOnlyError("the shed is on a read-only disk; nothing can be changed")
        with _clear_errors(self._file), self._environment.begin(write=True) as transaction:
            self._reserve()
            yield Transaction(transaction, self._databases)

    def _reserve(self) -> None:
        """See to it that this transaction can be written even if the disk is full.

        LMDB's file grows page by page, so without this ``rm`` and ``gc`` would need free space to
        make some. Once the disk is full the reserve is used up, and taken again afterwards.
        """
        used = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        size = os.stat(self._file).st_size
        if size < used + RESERVE // 2:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
            try:
                with suppress(OSError):
                    os.posix_fallocate(descriptor, size, used + RESERVE - size)
            finally:
                os.close(descriptor)

    def settle(self) -> None:
        """Make sure that the next reader sees everything that was ever committed.

        A writer killed between writing LMDB's meta page and announcing it leaves readers on the
        state before, until somebody takes the writers' lock. Whoever is about to delete what the
        catalog doesn't name settles it first, holding the lock that keeps others from adding.
        """
        self._check_process()
        with _clear_errors(self._file):
            self._environment.begin(write=True).abort()

    def _check_process(self) -> None:
        if self._closed:
            raise StoreError("the shed is closed")
        if self._key[0] != os.getpid():
            raise StoreError("open the shed again after fork: LMDB locks belong to one process")


class Transaction:
    """Typed access to the databases, inside one LMDB transaction."""

    def __init__(self, transaction: Any, databases: dict[bytes, Any]) -> None:
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


def _open(path: Path, *, durable: bool, read_only: bool) -> Any:
    environment = lmdb.open(
        os.fspath(path),
        map_size=MAP_SIZE,
        max_dbs=16,
        mode=0o600,
        readonly=read_only,
        lock=not read_only or os.access(path, os.W_OK),
        sync=durable,
        create=not read_only,
        readahead=False,
        max_readers=510,
        # 0.9's file format; 1.0's is another, and neither reads the other's files.
        lib_version=0,
    )
    if not read_only:
        environment.reader_check()
    return environment


def _is_full(path: Path) -> bool:
    """Say whether the disk is: LMDB calls a write that was cut short an input/output error."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize < RESERVE


@contextmanager
def _clear_errors(path: Path) -> Generator[None, None, None]:
    """Turn LMDB's errors into ours."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise NoSpaceError(f"no space left for the catalog: {error}") from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError) as error:
        raise CorruptError("catalog", str(error)) from error
    except lmdb.ReadonlyError as error:
        raise ReadOnlyError("the shed is on a read-only disk; nothing can be changed") from error
    except lmdb.Error as error:
        if "No space left" in str(error) or ("Input/output" in str(error) and _is_full(path)):
            raise NoSpaceError(f"no space left for the catalog: {error}") from error
        raise StoreError(f"catalog: {error}") from error
