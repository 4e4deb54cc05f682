"""Collect: giving space back.

Nothing in a pack is ever overwritten. A pack in which nothing is live any more is deleted; one
that is mostly dead has its live objects copied to a new one first. Both happen while nobody stages
or commits (the lock ``WRITERS`` held exclusively), because whoever stages counts on what it found
in the index. If somebody does, the space waits: whoever is last to finish sweeps.

Removals, forks and new containers go on meanwhile; what they change is read again in the
transaction that moves the rows.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cowshed.errors import NoSpaceError

from .claim import drop_claims
from .index import OBJECT, PACK, PACK_KEY, Txn
from .ledger import Ledger
from .pack import DamagedError, Group, Note, scan
from .packing import sync_directory
from .store import Store
from .writer import Writer

#: A pack is copied once this share of it is dead: less copying than it wins.
_DEAD_SHARE = 0.25
#: Live bytes copied per batch; others wait for the lock that long.
_BATCH = 64 << 20


def sweep(store: Store) -> None:
    """Delete packs in which nothing is live, unless somebody is writing.

    What the caller did is done, so a disk too full for this as well only means that space waits.
    """
    with suppress(NoSpaceError):
        _sweep_now(store)


def _sweep_now(store: Store) -> int:
    with store.index.read() as txn:
        if not txn.stat(store.index.garbage)["entries"]:
            return 0
    lock = store.alone()
    if lock is None:
        return 0
    with lock:
        return _sweep(store)


def _sweep(store: Store) -> int:
    index = store.index
    with index.read() as txn, txn.cursor(db=index.garbage) as cursor:
        candidates = [PACK_KEY.unpack(key)[0] for key, _ in cursor]
    return _delete(store, {number: objects_of(store, number) for number in candidates})


def objects_of(store: Store, number: int) -> list[bytes] | None:
    """Return the digests that a pack lists; None if that can't be told for sure."""
    found: list[bytes] = []
    try:
        for part in scan(str(store.pack_path(number))):
            if isinstance(part, Group):
                found += [slot.digest for slot in part.slots]
    except (DamagedError, OSError):
        return None
    return found


def _delete(store: Store, packs: dict[int, list[bytes] | None]) -> int:
    """Delete packs that are still all dead, with the rows of their objects."""
    index = store.index

    def work(txn: Txn) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for number, digests in packs.items():
            row = index.pack(txn, number)
            if row is None or row[1] or row[2]:
                continue
            if digests is None:
                digests = [digest for digest, _ in _rows_in(store, txn, number)]
            for digest in sorted(digests):
                found = txn.get(digest, db=index.objects)
                if found is not None and OBJECT.unpack(found)[0] == number:
                    txn.delete(digest, db=index.objects)
            key = PACK_KEY.pack(number)
            txn.delete(key, db=index.packs)
            txn.delete(key, db=index.garbage)
            sizes[number] = row[0]
        return sizes

    sizes = index.write(work) if packs else {}
    for number in sizes:
        store.forget(number)
        store.pack_path(number).unlink(missing_ok=True)
    return sum(sizes.values())


def _rows_in(store: Store, txn: Txn, number: int) -> list[tuple[bytes, bytes]]:
    """Return the rows of every object in a pack; looks at the whole index."""
    prefix = OBJECT.pack(number, 0, 0, 0, 0, 0, 0, 0)[:8]
    with txn.cursor(db=store.index.objects) as cursor:
        return [(key, row) for key, row in cursor if row[:8] == prefix]


# -- packs that are mostly dead ----------------------------------------------------------------


def collect(store: Store) -> int:
    """Delete dead packs and rewrite mostly dead ones; return bytes given back."""
    freed = _sweep_now(store)
    while True:
        lock = store.alone(timeout=1.0)
        if lock is None:
            return freed
        with lock:
            batch = _mostly_dead(store)
            gain = _rewrite(store, batch) if batch else 0
        if gain <= 0:
            return freed
        freed += gain


def _mostly_dead(store: Store) -> list[int]:
    index = store.index
    found: list[tuple[float, int, int]] = []
    with index.read() as txn, txn.cursor(db=index.packs) as cursor:
        for key, row in cursor:
            size, live, notes = PACK.unpack(row)
            dead = size - live - 8 - 200 * notes
            if dead > size * _DEAD_SHARE and dead > 0:
                found.append((live / size, PACK_KEY.unpack(key)[0], live))
    batch: list[int] = []
    total = 0
    for _, number, live in sorted(found):
        if batch and total + live > _BATCH:
            break
        batch.append(number)
        total += live
    return batch


def _rewrite(store: Store, packs: list[int]) -> int:
    """Copy what lives in these packs to new ones and delete them; return bytes won."""
    index = store.index
    writer = Writer(store, alone=True)
    keep = False
    try:
        moved: dict[int, list[bytes]] = {}
        notes: dict[int, int] = {}
        for number in packs:
            digests = _copy(store, writer, number, notes)
            if digests is not None:
                moved[number] = digests
        writer.publish()
        index.write(lambda txn: _move(store, txn, writer, moved, notes))
        keep = True
    finally:
        writer.close(keep=keep)
    freed = _delete(store, dict(moved))
    return freed - sum(pack.size for pack in writer.packs)


def _copy(store: Store, writer: Writer, number: int, notes: dict[int, int]) -> list[bytes] | None:
    """Hand a pack's live objects to the writer; None if the pack is damaged."""
    digests: list[bytes] = []
    index = store.index
    try:
        for part in scan(str(store.pack_path(number))):
            if isinstance(part, Note):
                with index.read() as txn:
                    found = index.find(txn, part.id)
                if found is not None and (found[1].note_pack, found[1].serial) == (
                    number,
                    part.serial,
                ):
                    notes[found[0]] = writer.note(part)
                continue
            for slot in part.slots:
                digests.append(slot.digest)
                row = index.lookup(slot.digest)
                if row is None:
                    continue
                fields = OBJECT.unpack(row)
                if fields[0] == number and fields[6] and slot.digest not in writer.places:
                    # In the order they lie in: similar files stay side by side.
                    writer.supply(slot.digest, store.get(slot.digest))
    except (DamagedError, OSError):
        return None  # what is still whole in it can be read where it is
    return digests


def _move(
    store: Store,
    txn: Txn,
    writer: Writer,
    moved: dict[int, list[bytes]],
    notes: dict[int, int],
) -> None:
    index = store.index
    ledger = Ledger(index, txn, writer.places)
    ledger.add_packs(writer.packs)
    for number, digests in moved.items():
        ledger.relocate(number, sorted(digests))
    for owner_number, pack in notes.items():
        try:
            owner = index.owner(txn, owner_number)
        except KeyError:
            continue
        if owner.note_pack in moved:
            ledger.note(owner, pack)
            index.put_owner(txn, owner_number, owner)
    ledger.settle()


# -- after a crash -----------------------------------------------------------------------------


def recover(store: Store) -> None:
    """Delete what killed processes left: staged packs, claims, packs no transaction ever named."""
    for name in os.listdir(store.staging):
        token = name.partition("-")[0]
        lock = store.locks.attempt(token)
        if lock is not None:
            with lock:
                (store.staging / name).unlink(missing_ok=True)
    lock = store.alone()
    if lock is None:
        return
    with lock:
        drop_claims(store)
        _delete_orphans(store)
        _sweep(store)


def _delete_orphans(store: Store) -> None:
    names = os.listdir(store.packs)
    with store.index.read() as txn:
        orphans = [
            name
            for name in names
            if len(name) != 16 or store.index.pack(txn, int(name, 16)) is None
        ]
    for name in orphans:
        (store.packs / name).unlink(missing_ok=True)
    if orphans and store.durable:
        sync_directory(store.packs)
