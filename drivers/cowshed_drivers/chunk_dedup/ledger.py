"""Ledger: who owns which object, kept exact within one transaction.

An object's row knows how many own it and the XOR of their numbers. Taking ownership of an object
that one other owns makes it shared, so that other's ``exclusive`` falls by the object's share;
letting go of one that two own makes it the remaining one's, who is what is left of the XOR. An
object nobody owns stays in its pack, dead but still found by whoever stages the same bytes, until
the pack goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from .index import NUMBER, OBJECT, PACK, PACK_KEY, Index, Owner, Txn
from .packing import WrittenPack
from .store import Place

DIGESTS_PER_ROW = 127
_COUNT = NUMBER


class MissingObjectError(Exception):
    """An object that should be owned is neither in the index nor new."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(digest.hex())
        self.digest = digest


class Ledger:
    """Changes of ownership in one write transaction; ``settle`` writes the sums."""

    def __init__(
        self, index: Index, txn: Txn, places: Mapping[bytes, tuple[Place, int]] | None = None
    ) -> None:
        self._index = index
        self._txn = txn
        self._places = places or {}
        self._exclusive: dict[int, int] = {}
        self._live: dict[int, int] = {}
        self._notes: dict[int, int] = {}

    # -- objects ------------------------------------------------------------------------------

    def take(self, owner: int, digests: Iterable[bytes]) -> None:
        """Make ``owner`` an owner of objects it doesn't own yet. Sorted digests are quicker.

        Raises:
            MissingObjectError: one is nowhere.
        """
        get, put, objects = self._txn.get, self._txn.put, self._index.objects
        looked = self._index.looked
        places, exclusive, live = self._places, self._exclusive, self._live
        pack_row, unpack_row = OBJECT.pack, OBJECT.unpack
        mine = 0
        for digest in digests:
            looked()
            row = get(digest, db=objects)
            if row is None:
                found = places.get(digest)
                if found is None:
                    raise MissingObjectError(digest)
                place, share = found
                put(digest, pack_row(*place, share, 1, owner), db=objects)
                live[place[0]] = live.get(place[0], 0) + share
                mine += share
                continue
            pack, at, frame, offset, length, share, owners, xor = unpack_row(row)
            if owners == 0:
                live[pack] = live.get(pack, 0) + share
                mine += share
            elif owners == 1:
                exclusive[xor] = exclusive.get(xor, 0) - share
            put(
                digest,
                pack_row(pack, at, frame, offset, length, share, owners + 1, xor ^ owner),
                db=objects,
            )
        exclusive[owner] = exclusive.get(owner, 0) + mine

    def drop(self, owner: int, digests: Iterable[bytes]) -> None:
        """Let ``owner`` own these objects no longer."""
        get, put, objects = self._txn.get, self._txn.put, self._index.objects
        looked = self._index.looked
        exclusive, live = self._exclusive, self._live
        mine = 0
        for digest in digests:
            looked()
            row = get(digest, db=objects)
            if row is None:
                continue  # a damaged index must not keep anything from being removed
            pack, at, frame, offset, length, share, owners, xor = OBJECT.unpack(row)
            if owners == 0:
                continue
            owners -= 1
            xor ^= owner
            if owners == 0:
                live[pack] = live.get(pack, 0) - share
                mine -= share
            elif owners == 1:
                exclusive[xor] = exclusive.get(xor, 0) + share
            put(
                digest,
                OBJECT.pack(pack, at, frame, offset, length, share, owners, xor),
                db=objects,
            )
        exclusive[owner] = exclusive.get(owner, 0) + mine

    def enter_rest(self) -> None:
        """Enter new objects nobody owns: an open file may yet need them, or the next to stage."""
        txn, objects, looked = self._txn, self._index.objects, self._index.looked
        for digest, (place, share) in sorted(self._places.items()):
            looked()
            txn.put(digest, OBJECT.pack(*place, share, 0, 0), overwrite=False, db=objects)

    def relocate(self, pack: int | None, digests: Iterable[bytes]) -> None:
        """Point the rows of live objects, of one pack or any, to copies among the new places."""
        txn, objects = self._txn, self._index.objects
        exclusive, live = self._exclusive, self._live
        for digest in digests:
            row = txn.get(digest, db=objects)
            found = self._places.get(digest)
            if row is None or found is None:
                continue
            number, *_, old_share, owners, xor = OBJECT.unpack(row)
            if pack not in (None, number) or not owners:
                continue
            place, share = found
            txn.put(digest, OBJECT.pack(*place, share, owners, xor), db=objects)
            live[number] = live.get(number, 0) - old_share
            live[place[0]] = live.get(place[0], 0) + share
            if owners == 1:
                exclusive[xor] = exclusive.get(xor, 0) + share - old_share

    # -- edges --------------------------------------------------------------------------------

    def edges(self, owner: int) -> Iterator[tuple[bytes, int]]:
        """Yield (digest, places) for everything ``owner`` owns. Don't change edges meanwhile."""
        prefix = NUMBER.pack(owner)
        with self._txn.cursor(db=self._index.edges) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if key[:4] != prefix:
                    return
                if len(key) == 36:
                    yield key[4:], _COUNT.unpack(value)[0]
                else:
                    for at in range(0, len(value), 32):
                        yield value[at : at + 32], 1

    def write_layer(self, owner: int, digests: Iterable[bytes], part: int = 0) -> None:
        """Give a new layer its objects, in byte order, behind ``part`` rows that it has."""
        rest = iter(digests)
        while row := list(islice(rest, DIGESTS_PER_ROW)):
            self.take(owner, row)
            self._txn.put(
                NUMBER.pack(owner) + NUMBER.pack(part), b"".join(row), db=self._index.edges
            )
            part += 1

    def count(self, owner: int, counts: Iterable[tuple[bytes, int]]) -> None:
        """Add places to what a container has; it owns what has any. Digests come in order."""
        taken: list[bytes] = []
        dropped: list[bytes] = []
        prefix = NUMBER.pack(owner)
        txn, edges = self._txn, self._index.edges
        for digest, change in counts:
            if not change:
                continue
            key = prefix + digest
            row = txn.get(key, db=edges)
            had = _COUNT.unpack(row)[0] if row else 0
            # Below zero: objects of the base that went from the tree. The base owns them.
            has = max(had + change, 0)
            if has:
                txn.put(key, _COUNT.pack(has), db=edges)
                if not had:
                    taken.append(digest)
            elif had:
                txn.delete(key, db=edges)
                dropped.append(digest)
        self.take(owner, taken)
        self.drop(owner, dropped)

    def release(self, owner: int) -> None:
        """Drop everything ``owner`` owns, and its edges."""
        self.drop(owner, sorted(digest for digest, _ in self.edges(owner)))
        self._delete_edges(owner)

    def release_rows(self, owner: int, rows: int) -> bool:
        """Drop so many rows of what a layer owns; say whether there are more."""
        prefix = NUMBER.pack(owner)
        with self._txn.cursor(db=self._index.edges) as cursor:
            for _ in range(rows):
                if not cursor.set_range(prefix) or cursor.key()[:4] != prefix:
                    return False
                row = cursor.value()
                self.drop(owner, [row[at : at + 32] for at in range(0, len(row), 32)])
                cursor.delete()
        return True

    def _delete_edges(self, owner: int) -> None:
        prefix = NUMBER.pack(owner)
        with self._txn.cursor(db=self._index.edges) as cursor:
            while cursor.set_range(prefix) and cursor.key()[:4] == prefix:
                cursor.delete()

    # -- packs and sums -----------------------------------------------------------------------

    def add_packs(self, packs: Iterable[WrittenPack]) -> None:
        """Enter packs that were just published."""
        for pack in packs:
            self._txn.put(
                PACK_KEY.pack(pack.number),
                PACK.pack(pack.size, 0, 0),
                overwrite=False,
                db=self._index.packs,
            )
            self._live.setdefault(pack.number, 0)

    def note(self, owner: Owner, pack: int) -> None:
        """Say that the newest note about ``owner`` is in ``pack``; 0: it needs none any more."""
        if owner.note_pack:
            self._notes[owner.note_pack] = self._notes.get(owner.note_pack, 0) - 1
        if pack:
            self._notes[pack] = self._notes.get(pack, 0) + 1
        owner.note_pack = pack

    def settle(self) -> None:
        """Write the sums: what is exclusive to whom, what is live in which pack."""
        index, txn = self._index, self._txn
        for number, change in self._exclusive.items():
            if change and txn.get(NUMBER.pack(number), db=index.owners) is not None:
                owner = index.owner(txn, number)
                owner.exclusive += change
                index.put_owner(txn, number, owner)
        for number in self._live.keys() | self._notes.keys():
            row = index.pack(txn, number)
            if row is None:
                continue
            size, live, notes = row
            live = max(live + self._live.get(number, 0), 0)
            notes = max(notes + self._notes.get(number, 0), 0)
            key = PACK_KEY.pack(number)
            txn.put(key, PACK.pack(size, live, notes), db=index.packs)
            if live or notes:
                txn.delete(key, db=index.garbage)
            else:
                txn.put(key, b"", db=index.garbage)
        self._exclusive.clear()
        self._live.clear()
        self._notes.clear()
