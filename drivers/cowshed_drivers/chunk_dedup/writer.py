"""Writer: new objects on their way into packs.

``put`` takes an object unless the store, or this writer, has it. Objects gather until a window is
full, are sorted so that similar ones lie side by side, cut into groups and compressed by threads
while the caller goes on reading. Compressed groups go to packs in ``staging/``, whose names begin
with this writer's token; the lock on the token is held as long as the writer lives, so ``recover``
knows what a killed process left.

``publish`` moves finished packs to their place. Only the transaction that follows makes them
count; until then they are swept by ``recover`` like anything else nobody claims.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import zstandard

from .index import Txn
from .ledger import Ledger
from .node import digest_of
from .pack import MAGIC, Note, encode_note, group_header, share_of
from .packing import (
    OpenPack,
    WrittenPack,
    run_now,
    sync_and_close,
    sync_directory,
    writing_to,
)
from .store import Place, Store

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: Bytes of directories and chunk lists that wait: about 50,000 files' worth.
_NODES_MAX = 4 << 20
#: A commit that brings less than this is one group; more, and nodes get a group of their own.
_NODES_APART = 256 << 10

#: Places kept in memory, and pages that their rows change in one transaction, at most 4 KiB each,
#: before the index takes them.
_PLACES_MAX = 4_096

#: Bytes that an object takes besides its own while it waits.
_OBJECT = 512

#: Sorts nodes behind every file.
_NODES = "\U0010ffff"


@attrs.define
class _Group:
    objects: list[tuple[bytes, bytes]]
    frame: Future[bytes] | bytes = b""


class _Compressors(threading.local):
    """One context per thread, used again: small frames pay for setting one up."""

    def __init__(self, level: int) -> None:
        self.context = zstandard.ZstdCompressor(level=level)


class Writer:
    """Collects new objects for one layer, or for one commit of a container."""

    def __init__(self, store: Store, *, alone: bool = False) -> None:
        self._store = store
        self._token = os.urandom(8).hex()
        # Taken first: what is found in the index stays until this writer is done. ``alone``:
        # the caller holds the lock exclusively.
        self._writing = None if alone else store.writing()
        self._mine = store.locks.acquire(self._token)
        self._compressors = _Compressors(store.options.compression_level)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[bytes, bytes] = {}
        self._order: list[tuple[str, bytes]] = []
        self._pending_bytes = 0
        self._nodes: dict[bytes, bytes] = {}
        self._node_bytes = 0
        self._flight: deque[_Group] = deque()
        self._flight_bytes = 0
        self._flying: dict[bytes, bytes] = {}
        self._pack: OpenPack | None = None
        self._syncs: list[Future[None]] = []
        #: Where each object of this writer lies, and its share on disk.
        self.places: dict[bytes, tuple[Place, int]] = {}
        self.packs: list[WrittenPack] = []
        #: How many more packs the index has been told of already.
        self.entered = 0
        self._supplies = False
        self._published = False
        self._closed = False

    # -- taking objects -----------------------------------------------------------------------

    def put(self, data: bytes, order: str) -> bytes:
        """Take an object and return its digest. ``order`` sorts it among its like."""
        digest = digest_of(data)
        if not self._is_known(digest):
            self._add(digest, data, order)
        return digest

    def put_node(self, data: bytes) -> bytes:
        """Take a directory, root or chunk list and return its digest.

        Nodes wait together: they are read together, and again before the commit.
        """
        digest = digest_of(data)
        if not self._is_known(digest):
            self._nodes[digest] = data
            self._node_bytes += len(data)
            if self._node_bytes > _NODES_MAX:
                self._flush_all()
        return digest

    def _is_known(self, digest: bytes) -> bool:
        return (
            digest in self._pending
            or digest in self._nodes
            or digest in self.places
            or digest in self._flying
            or self._store.index.lookup(digest) is not None
        )

    def supply(self, digest: bytes, data: bytes) -> None:
        """Take an object whatever the index says of it."""
        self._supplies = True
        self._add(digest, data, "")

    def _add(self, digest: bytes, data: bytes, order: str) -> None:
        self._pending[digest] = data
        self._order.append((order, digest))
        self._pending_bytes += len(data)
        waiting = self._pending_bytes + len(self._pending) * _OBJECT
        if waiting >= self._store.options.window_size:
            self.flush()

    def get(self, digest: bytes) -> bytes | None:
        """Return an object this writer took, or None.

        Raises:
            DamagedError: what was written a moment ago can't be read back.
        """
        data = self._nodes.get(digest) or self._pending.get(digest) or self._flying.get(digest)
        if data is not None:
            return data
        found = self.places.get(digest)
        if found is None:
            return None
        place = found[0]
        path = next(
            (pack.path for pack in self.packs if pack.number == place[0]),
            self._store.staging / f"{self._token}-{place[0]:016x}",
        )
        return self._store.extract(path, place, digest)

    # -- groups -------------------------------------------------------------------------------

    def _flush_all(self) -> None:
        if self._pending_bytes >= _NODES_APART:
            self.flush()
        for digest, data in self._nodes.items():
            self._pending[digest] = data
            self._order.append((_NODES, digest))
        self._pending_bytes += self._node_bytes
        self._nodes = {}
        self._node_bytes = 0
        self.flush()

    def flush(self) -> None:
        """Cut what has gathered into groups and have them compressed."""
        if not self._order:
            return
        with writing_to(self._store.root):
            # Before more is in flight: this bounds what is in memory.
            self._drain(self._store.options.window_size // 2)
        self._order.sort(key=_by_order)
        limit = self._store.options.group_size
        pending = self._pending
        group = _Group([])
        size = 0
        groups: list[_Group] = [group]
        for _, digest in self._order:
            data = pending[digest]
            if size and size + len(data) > limit:
                group = _Group([])
                groups.append(group)
                size = 0
            group.objects.append((digest, data))
            size += len(data)
        self._flying.update(pending)
        self._flight_bytes += self._pending_bytes
        self._pending = {}
        self._order = []
        self._pending_bytes = 0
        if len(groups) == 1 and not self._flight:
            # A container's small commit: starting threads would cost more than it saves.
            group.frame = self._compress(group.objects)
        else:
            pool = self._threads()
            for group in groups:
                group.frame = pool.submit(self._compress, group.objects)
        self._flight.extend(groups)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # with logging: 6 ms

            self._pool = ThreadPoolExecutor(self._store.options.threads, "chunk-dedup")
        return self._pool

    def _compress(self, objects: list[tuple[bytes, bytes]]) -> bytes:
        return self._compressors.context.compress(b"".join([data for _, data in objects]))

    def _drain(self, allowed: int) -> None:
        while self._flight and (self._flight_bytes > allowed or _is_done(self._flight[0])):
            group = self._flight[0]
            frame = group.frame if isinstance(group.frame, bytes) else group.frame.result()
            self._store_group(group.objects, frame)

    def _store_group(self, objects: list[tuple[bytes, bytes]], frame: bytes) -> None:
        pack = self._open_pack()
        table = [(digest, len(data)) for digest, data in objects]
        header = group_header(table, len(frame))
        at = pack.size + len(header)
        pack.append(header + frame)
        # In flight until it is written: a disk that was full may have room when asked again.
        self._flight.popleft()
        raw = sum([size for _, size in table])
        length = len(frame)
        offset = 0
        for digest, size in table:
            share = share_of(offset, size, length, raw)
            self.places[digest] = ((pack.number, at, length, offset, size), share)
            offset += size
            del self._flying[digest]
        self._flight_bytes -= offset
        if pack.size >= self._store.options.pack_size:
            self._finish_pack()
        if len(self.places) >= _PLACES_MAX and not self._supplies:
            self._enter()

    def _open_pack(self) -> OpenPack:
        if self._pack is None:
            number = int.from_bytes(os.urandom(8)) >> 1 or 1
            path = self._store.staging / f"{self._token}-{number:016x}"
            self._pack = OpenPack.create(number, path)
        if not self._pack.size:
            self._pack.append(MAGIC)
        return self._pack

    def _finish_pack(self) -> None:
        pack = self._pack
        if pack is None:
            return
        self.packs.append(pack.finish())
        self._pack = None
        if not self._store.durable:
            os.close(pack.descriptor)
        elif self._pool is None:
            self._syncs.append(run_now(sync_and_close, pack.descriptor))
        else:
            # The disk writes this pack while the next one is being filled.
            self._syncs.append(self._pool.submit(sync_and_close, pack.descriptor))

    def note(self, note: Note) -> int:
        """Write down who stands on which root; return the pack that holds the note."""
        self._flush_all()
        encoded = encode_note(note)
        with writing_to(self._store.root):
            self._drain(0)
            pack = self._open_pack()
            pack.append(encoded)
        return pack.number

    # -- the end ------------------------------------------------------------------------------

    def publish(self) -> None:
        """Make everything durable and give it its place; it counts once the index says so.

        May be called again: where it failed, and after more was put. A pack whose sync failed is
        lost for good, as the system reports that once only, so every further call fails too.
        """
        self._flush_all()
        with writing_to(self._store.root):
            self._drain(0)
            self._finish_pack()
            self._place_packs()

    def _place_packs(self) -> None:
        for sync in self._syncs:
            sync.result()
        self._published = True
        for pack in self.packs:
            destination = self._store.pack_path(pack.number)
            pack.path.rename(destination)
            pack.path = destination
        if self.packs and self._store.durable:
            sync_directory(self._store.packs)

    def _enter(self) -> None:
        """Tell the index where everything written so far lies, so that memory needn't hold it.

        The packs are garbage until somebody owns what is in them, but nobody sweeps while we
        write. After us, should nothing come of it, whoever is next to sweep deletes them.
        """
        self._finish_pack()
        self._place_packs()
        self.enter()

    def enter(self) -> None:
        """Tell the index of the packs that are in their place and of what is in them."""

        def work(txn: Txn) -> None:
            ledger = Ledger(self._store.index, txn, self.places)
            ledger.add_packs(self.packs)
            ledger.enter_rest()
            ledger.settle()

        self._store.index.write(work)
        self.entered += len(self.packs)
        self.packs.clear()
        self.places.clear()
        self._syncs.clear()

    def _counts(self, number: int) -> bool:
        """Say whether the index knows the pack: an interrupt can hit just after the commit."""
        if not self._published:
            return False
        with self._store.index.read() as txn:
            return self._store.index.pack(txn, number) is not None

    def close(self, *, keep: bool) -> None:
        """Let go. Unless ``keep``, what was written is deleted. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._pack is not None:
            with suppress(OSError):  # a full disk must not keep the rest from being let go
                os.close(self._pack.descriptor)
            self._pack.path.unlink(missing_ok=True)
        if not keep:
            for pack in self.packs:
                if not self._counts(pack.number):
                    self._store.forget(pack.number)
                    pack.path.unlink(missing_ok=True)
        self._flying.clear()
        self._pending.clear()
        self._nodes.clear()
        self._flight.clear()
        self._mine.release()
        if self._writing is not None:
            self._writing.release()


def _by_order(item: tuple[str, bytes]) -> str:
    return item[0]


def _is_done(group: _Group) -> bool:
    return isinstance(group.frame, bytes) or group.frame.done()


def order_key(path: str) -> str:
    """Return what sorts content so that similar files lie side by side: extension, then name."""
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return f"{extension}\0{name}" if dot and stem else f"\0{name}"
