"""Commit: the transactions that make layers, containers and forks count.

Each is short: everything bulky was written, synced and published before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

import attrs

from cowshed.errors import ConflictError, CorruptError, InUseError, NotFoundError

from .claim import TAKEN_AT_ONCE, Claim
from .compare import Comparison
from .index import CONTAINER, LAYER, NUMBER, SNAPSHOT, Owner, Txn, id_key
from .ledger import Ledger, MissingObjectError
from .node import EMPTY_ROOT_DIGEST
from .pack import DamagedError
from .store import Store
from .tally import Tally
from .writer import Writer

T = TypeVar("T")


@attrs.frozen
class Apparent:
    """What becomes of a container's apparent size: it changes by ``change``, or is ``total``."""

    change: int
    total: int | None = None


_KINDS = {LAYER: "layer", CONTAINER: "container"}


def need(store: Store, txn: Txn, id: str, kind: int | None = None) -> tuple[int, Owner]:
    """Return the owner that ``id`` names.

    Raises:
        NotFoundError: there is none, or it is of another kind.
    """
    found = store.index.find(txn, id)
    if found is None or (kind is not None and found[1].kind != kind):
        raise NotFoundError(_KINDS.get(kind or 0, "layer or container"), id)
    return found


def parent_of(store: Store, txn: Txn, parent: str | None) -> tuple[int, bytes]:
    """Return the owner number and root of the layer to stand on; 0 and the empty root for None."""
    if parent is None:
        return 0, EMPTY_ROOT_DIGEST
    number, owner = need(store, txn, parent, LAYER)
    return number, owner.root


def attach(store: Store, txn: Txn, base: int, numbers: Iterable[int], sign: int = 1) -> None:
    """Count ``numbers`` among what depends on ``base``, or no longer."""
    if not base:
        return
    owner = store.index.owner(txn, base)
    for number in numbers:
        owner.dependants += sign
        owner.dependants_xor ^= number
    store.index.put_owner(txn, base, owner)


def refuse_taken(store: Store, txn: Txn, id: str) -> None:
    """Raise ConflictError if the ID is in use, whatever for."""
    found = store.index.find(txn, id)
    if found is not None:
        raise ConflictError(f"{_KINDS[found[1].kind]} {id} exists already")


# -- layers ------------------------------------------------------------------------------------


def seal_layer(
    store: Store,
    writer: Writer,
    layer: str,
    parent: str | None,
    parent_root: bytes,
    root: bytes,
    counts: Tally,
    apparent: int,
    serial: int,
    note_pack: int,
) -> bool:
    """Make a published layer count. False: it was there already, and nothing changed.

    ``counts`` are relative to ``parent_root``, which the parent must still stand on.
    """
    index = store.index
    digests = counts.gained()
    rest = list(islice(digests, TAKEN_AT_ONCE))
    claim = Claim(store, root)

    def claimed() -> bool:
        nonlocal rest
        if len(rest) == TAKEN_AT_ONCE:
            writer.enter()
        while len(rest) == TAKEN_AT_ONCE:
            claim.extend(rest)
            rest = list(islice(digests, TAKEN_AT_ONCE))
        return index.write(work)

    def work(txn: Txn) -> bool:
        found = index.find(txn, layer)
        if found is not None:
            if found[1].kind == LAYER:
                return False
            raise ConflictError(f"container {layer} exists already")
        base, base_root = parent_of(store, txn, parent)
        if base_root != parent_root:
            raise ConflictError(f"parent layer {parent} was replaced by another meanwhile")
        number = claim.number or index.next(txn, b"owner")
        ledger = Ledger(index, txn, writer.places)
        ledger.add_packs(writer.packs)
        owner = Owner(
            kind=LAYER,
            exclusive=index.owner(txn, number).exclusive if claim.number else 0,
            base=base,
            layer=base,
            root=root,
            id=layer,
            apparent=apparent,
            packs=writer.entered + len(writer.packs),
            serial=serial,
        )
        ledger.note(owner, note_pack)
        index.put_owner(txn, number, owner)
        txn.put(id_key(layer), NUMBER.pack(number), db=index.items)
        attach(store, txn, base, [number])
        ledger.write_layer(number, rest, claim.rows)
        ledger.settle()
        return True

    sealed = False
    try:
        sealed = _whole(layer, claimed)
    finally:
        if not sealed:
            claim.drop()
    return sealed


# -- containers --------------------------------------------------------------------------------


def prepare(store: Store, containers: list[str], parent: str | None) -> None:
    """Make containers on a layer, in one transaction."""
    index = store.index

    def work(txn: Txn) -> None:
        base, root = parent_of(store, txn, parent)
        keys = sorted({(id_key(container), container) for container in containers})
        if len(keys) != len(containers):
            raise ConflictError("a container is named twice")
        first = index.next(txn, b"owner", len(keys))
        blank = Owner(kind=CONTAINER, base=base, layer=base, root=root, id="").encode()
        rows: list[tuple[bytes, bytes]] = []
        items: list[tuple[bytes, bytes]] = []
        for number, (key, container) in enumerate(keys, first):
            if txn.get(key, db=index.items) is not None:
                refuse_taken(store, txn, container)
            items.append((key, NUMBER.pack(number)))
            rows.append((NUMBER.pack(number), blank + key))
        with txn.cursor(db=index.items) as cursor:
            cursor.putmulti(items)
        with txn.cursor(db=index.owners) as cursor:
            cursor.putmulti(rows, append=True)
        attach(store, txn, base, range(first, first + len(keys)))

    index.write(work)


def commit_container(
    store: Store,
    writer: Writer,
    container: str,
    old_root: bytes,
    new_root: bytes,
    counts: Tally,
    apparent: Apparent,
    serial: int,
    note_pack: int,
) -> None:
    """Make a container's published changes count: from ``old_root`` to ``new_root``."""
    index = store.index

    def work(txn: Txn) -> None:
        number, owner = need(store, txn, container, CONTAINER)
        if owner.root == new_root:
            return  # by this very commit, which an interrupt kept from being noticed
        if owner.root != old_root:
            raise OSError(
                errno.ESTALE, f"container {container} was written by another writer meanwhile"
            )
        ledger = Ledger(index, txn, writer.places)
        ledger.add_packs(writer.packs)
        owner.root = new_root
        owner.apparent = max(
            owner.apparent + apparent.change if apparent.total is None else apparent.total, 0
        )
        owner.packs += writer.entered + len(writer.packs)
        owner.serial = serial
        ledger.note(owner, note_pack)
        index.put_owner(txn, number, owner)
        ledger.count(number, counts.items())
        ledger.enter_rest()
        ledger.settle()

    _whole(container, lambda: index.write(work))


def fork(store: Store, container: str, new: str) -> None:
    """Make ``new`` equal to ``container``.

    What the container has written becomes a snapshot, under the owner number that its edges carry,
    and both stand on it; no edge is touched. A container without writes of its own needs none.
    """
    index = store.index

    def work(txn: Txn) -> None:
        number, owner = need(store, txn, container, CONTAINER)
        refuse_taken(store, txn, new)
        base_root = index.owner(txn, owner.base).root if owner.base else EMPTY_ROOT_DIGEST
        base = owner.base
        if owner.root != base_root:
            base = number
            number = index.next(txn, b"owner")
            moved = Owner(
                kind=CONTAINER,
                base=base,
                layer=owner.layer,
                root=owner.root,
                id=container,
                apparent=owner.apparent,
                note_pack=owner.note_pack,
                packs=owner.packs,
                serial=owner.serial,
            )
            index.put_owner(txn, number, moved)
            txn.put(id_key(container), NUMBER.pack(number), db=index.items)
            owner.kind = SNAPSHOT
            owner.id = ""
            owner.note_pack = 0
            owner.packs = 0
            index.put_owner(txn, base, owner)
            attach(store, txn, base, [number])
        other = index.next(txn, b"owner")
        twin = Owner(
            kind=CONTAINER,
            base=base,
            layer=owner.layer,
            root=owner.root,
            id=new,
            apparent=owner.apparent,
        )
        index.put_owner(txn, other, twin)
        txn.put(id_key(new), NUMBER.pack(other), db=index.items)
        attach(store, txn, base, [other])

    index.write(work)


# -- removal -----------------------------------------------------------------------------------


def remove(store: Store, ids: list[str]) -> None:
    """Remove layers and containers in one transaction, in the order given; all or none."""
    index = store.index

    def work(txn: Txn) -> None:
        ledger = Ledger(index, txn)
        for id in ids:
            number, owner = need(store, txn, id)
            if owner.dependants:
                raise InUseError(
                    f"{_KINDS[owner.kind]} {id} is the base of {owner.dependants} "
                    "other layers or containers; remove those first"
                )
            txn.delete(id_key(id), db=index.items)
            _forget(store, txn, ledger, number, owner)
        ledger.settle()

    index.write(work)


def _forget(store: Store, txn: Txn, ledger: Ledger, number: int, owner: Owner) -> None:
    """Take an owner out, then every snapshot that nothing stands on any more."""
    index = store.index
    while True:
        ledger.note(owner, 0)
        ledger.release(number)
        txn.delete(NUMBER.pack(number), db=index.owners)
        attach(store, txn, owner.base, [number], -1)
        if not owner.base:
            return
        base = index.owner(txn, owner.base)
        if base.kind != SNAPSHOT or base.dependants > 1:
            return
        if base.dependants == 1:
            # Sums first: merging asks who owns what by then.
            _merge(store, txn, ledger, owner.base, base)
            return
        number, owner = owner.base, base


def _merge(store: Store, txn: Txn, ledger: Ledger, number: int, snapshot: Owner) -> None:
    """Give a snapshot that only one stands on to that one, so that its sums are exact."""
    index = store.index
    heir_number = snapshot.dependants_xor
    heir = index.owner(txn, heir_number)
    base_root = index.owner(txn, snapshot.base).root if snapshot.base else EMPTY_ROOT_DIGEST
    counts = Tally(store.staging)
    try:
        Comparison(store.nodes, base_root, heir.root, counts=counts).drain()
    except DamagedError:
        return  # it stays as it is, which costs exactness but nothing else
    had = dict(ledger.edges(heir_number))
    has = {digest: count for digest, count in counts.items() if count > 0}
    change = {digest: has.get(digest, 0) - had.get(digest, 0) for digest in has.keys() | had.keys()}
    ledger.count(heir_number, sorted(change.items()))
    ledger.release(number)
    txn.delete(NUMBER.pack(number), db=index.owners)
    heir.base = snapshot.base
    index.put_owner(txn, heir_number, heir)
    # The heir takes the snapshot's place among what depends on the base: as many as before.
    attach(store, txn, snapshot.base, [number, heir_number], 0)


def _whole(id: str, run: Callable[[], T]) -> T:
    try:
        return run()
    except MissingObjectError as error:
        raise CorruptError(id, f"object {error.digest.hex()[:16]} went from the store") from error
