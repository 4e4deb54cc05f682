"""Accounts: what an owner costs.

One row says it, with one exception. Two containers that were forked stand on a snapshot of what
they had in common. Remove one, and the snapshot goes to the other, which by then may have dropped
some of it: that part goes away with the first, although neither wrote it since. It is found by
comparing the other's tree with the snapshot, in the time of their differences. With three or more
on a snapshot, removing one lets go of nothing in it.
"""

from __future__ import annotations

from contextlib import nullcontext

from cowshed.errors import CorruptError

from .commit import need
from .compare import Comparison
from .index import NUMBER, OBJECT, SNAPSHOT, Owner
from .pack import DamagedError
from .store import Store
from .tally import Tally


def look(store: Store, id: str) -> tuple[Owner, int]:
    """Return an owner's row, and how many bytes its removal releases from a snapshot."""
    owner, pair = _pair(store, id)
    if pair is None:
        return owner, 0
    with store.reading() or nullcontext():
        # Once more: what was found before the lock was held may be gone.
        owner, pair = _pair(store, id)
        if pair is None:
            return owner, 0
        try:
            return owner, _dropped(store, owner.base, *pair)
        except DamagedError as error:
            raise CorruptError(id, str(error)) from error


def _pair(store: Store, id: str) -> tuple[Owner, tuple[Owner, Owner] | None]:
    """Return an owner and, if it stands on a snapshot with one other, the snapshot and that."""
    index = store.index
    with index.read() as txn:
        number, owner = need(store, txn, id)
        if not owner.base:
            return owner, None
        base = index.owner(txn, owner.base)
        if base.kind != SNAPSHOT or base.dependants != 2:
            return owner, None
        return owner, (base, index.owner(txn, base.dependants_xor ^ number))


def _dropped(store: Store, number: int, snapshot: Owner, other: Owner) -> int:
    """Return the bytes that only the snapshot owns and ``other`` no longer has in its tree."""
    counts = Tally(store.staging)
    Comparison(store.nodes, snapshot.root, other.root, counts=counts).drain()
    index = store.index
    prefix = NUMBER.pack(number)
    total = 0
    with index.read() as txn:
        for digest, change in counts.items():
            if change >= 0:
                continue
            edge = txn.get(prefix + digest, db=index.edges)
            row = txn.get(digest, db=index.objects)
            if edge is None or row is None or NUMBER.unpack(edge)[0] + change > 0:
                continue
            *_, share, owners, xor = OBJECT.unpack(row)
            if owners == 1 and xor == number:
                total += share
    return total
