"""Rebuild: a new index from packs alone, should the old one be lost.

Group headers say which objects there are, notes which layers and containers stood on which roots.
Owners and sums follow from the trees. What can't come back: containers that were never written
(they are a row in the index and nothing else), forks not written since, and anything whose
objects are incomplete. A layer removed lately comes back if all its objects are still there.
"""

from __future__ import annotations

import os

from .commit import attach
from .compare import Comparison
from .index import LAYER, NUMBER, OBJECT, PACK, PACK_KEY, Owner, Txn, id_key
from .ledger import Ledger
from .node import EMPTY_ROOT_DIGEST
from .pack import DamagedError, Group, Note, scan
from .record import FILE, inode_of
from .store import Store
from .tally import Tally


def rebuild(store: Store) -> list[str]:
    """Replace what the index says by what packs say; return the IDs that came back.

    Nobody else may use the store meanwhile.
    """
    lock = store.locks.acquire("writers")
    with lock:
        notes: dict[str, tuple[Note, int]] = {}
        store.forget_all()
        store.index.write(lambda txn: _objects(store, txn, notes))
        return _owners(store, notes)


def _objects(store: Store, txn: Txn, notes: dict[str, tuple[Note, int]]) -> None:
    index = store.index
    notes.clear()
    for database in (
        index.objects, index.owners, index.items, index.edges, index.packs, index.garbage,
    ):  # fmt: skip
        txn.drop(database, delete=False)
    for name in sorted(os.listdir(store.packs)):
        if len(name) != 16:
            continue
        number = int(name, 16)
        path = store.pack_path(number)
        txn.put(PACK_KEY.pack(number), PACK.pack(path.stat().st_size, 0, 0), db=index.packs)
        try:
            for part in scan(str(path)):
                if isinstance(part, Note):
                    known = notes.get(part.id)
                    if known is None or known[0].serial < part.serial:
                        notes[part.id] = (part, number)
                else:
                    _enter(store, txn, number, part)
        except DamagedError:
            pass  # whatever could be read is entered


def _enter(store: Store, txn: Txn, number: int, group: Group) -> None:
    for slot in group.slots:
        place = (number, group.offset, group.length, slot.offset, slot.length)
        row = OBJECT.pack(*place, group.share(slot), 0, 0)
        txn.put(slot.digest, row, overwrite=False, db=store.index.objects)


def _owners(store: Store, notes: dict[str, tuple[Note, int]]) -> list[str]:
    restored: dict[str, tuple[int, bytes]] = {}
    waiting = sorted(notes.values(), key=lambda item: item[0].serial)
    again = True
    while again:
        again = False
        for item in list(waiting):
            note, pack = item
            if note.parent is not None and note.parent not in restored:
                continue
            waiting.remove(item)
            base = (0, EMPTY_ROOT_DIGEST) if note.parent is None else restored[note.parent]
            counts = Tally(store.staging)
            try:
                comparison = Comparison(store.nodes, base[1], note.root, counts=counts)
                apparent = _apparent(comparison)
            except DamagedError:
                continue
            restored[note.id] = (_restore(store, note, pack, base[0], counts, apparent), note.root)
            again = True
    return list(restored)


def _apparent(comparison: Comparison) -> int:
    total = 0
    seen: set[int] = set()
    for _, _, record in comparison:
        if record is not None and record[0] == FILE and inode_of(record) not in seen:
            total += record[6]
            seen |= {inode_of(record)} - {0}
    return total


def _restore(store: Store, note: Note, pack: int, base: int, counts: Tally, apparent: int) -> int:
    index = store.index

    def work(txn: Txn) -> int:
        number = index.next(txn, b"owner")
        owner = Owner(
            kind=note.held,
            base=base,
            layer=base,
            root=note.root,
            id=note.id,
            apparent=apparent,
            packs=1,
            serial=note.serial,
        )
        ledger = Ledger(index, txn)
        ledger.note(owner, pack)
        index.put_owner(txn, number, owner)
        txn.put(id_key(note.id), NUMBER.pack(number), db=index.items)
        attach(store, txn, base, [number])
        if note.held == LAYER:
            ledger.write_layer(number, counts.gained())
        else:
            ledger.count(number, counts.items())
        ledger.settle()
        return number

    return index.write(work)
