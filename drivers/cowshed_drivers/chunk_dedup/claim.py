"""Claim: what a layer will own, entered a part at a time before the layer is sealed.

A transaction keeps every page it changes in memory until it commits, and a layer of a million files
changes the row of each of its objects. So a large layer gets its owner number first, under which
nobody finds it, then its objects in several transactions; the one that seals it is small. Who dies
between them leaves a claim, which ``recover`` drops when nobody is writing.
"""

from __future__ import annotations

from .index import CLAIM, NUMBER, Owner, Txn
from .ledger import DIGESTS_PER_ROW, Ledger
from .store import Store

#: Objects that one transaction takes: at most 4 KiB of changed pages for each.
TAKEN_AT_ONCE = 32 * DIGESTS_PER_ROW


class Claim:
    """One layer's owner number, once it has one, and how many rows of objects."""

    def __init__(self, store: Store, root: bytes) -> None:
        self._store = store
        self._root = root
        self.number = 0
        self.rows = 0

    def extend(self, digests: list[bytes]) -> None:
        """Own these as well: whole rows, in byte order."""
        index = self._store.index

        def work(txn: Txn) -> int:
            number = self.number
            if not number:
                number = index.next(txn, b"owner")
                blank = Owner(kind=CLAIM, base=0, layer=0, root=self._root, id="")
                index.put_owner(txn, number, blank)
            ledger = Ledger(index, txn)
            ledger.write_layer(number, digests, self.rows)
            ledger.settle()
            return number

        self.number = index.write(work)
        self.rows += len(digests) // DIGESTS_PER_ROW

    def drop(self) -> None:
        """Own nothing any more. Dropping what was sealed, or twice, does nothing."""
        if self.number:
            _drop(self._store, self.number)


def drop_claims(store: Store) -> None:
    """Drop what killed processes claimed. Nobody may be writing."""
    index = store.index
    with index.read() as txn, txn.cursor(db=index.owners) as cursor:
        claims = [NUMBER.unpack(key)[0] for key, row in cursor if Owner.decode(row).kind == CLAIM]
    for number in claims:
        _drop(store, number)


def _drop(store: Store, number: int) -> None:
    index = store.index

    def work(txn: Txn) -> bool:
        row = txn.get(NUMBER.pack(number), db=index.owners)
        if row is None or Owner.decode(row).kind != CLAIM:
            return False
        ledger = Ledger(index, txn)
        more = ledger.release_rows(number, TAKEN_AT_ONCE // DIGESTS_PER_ROW)
        ledger.settle()
        if not more:
            txn.delete(NUMBER.pack(number), db=index.owners)
        return more

    while index.write(work):
        pass
