"""Repair: taking the good content of a damaged file, from wherever it came.

The file is held again as it was, with the same cuts, so it needs the chunks it had. Those that the
store can't read any more are written anew and their rows point there: every path, layer and
container that has them is whole again.
"""

from __future__ import annotations

from typing import BinaryIO

from .chunks import list_rows, segment_rows
from .commit import need
from .index import Txn
from .ledger import Ledger
from .node import NO_DIGEST, digest_of
from .pack import DamagedError
from .record import CHUNK, FILE, FORM, LIST, payload
from .store import Store
from .writer import Writer


def repair(store: Store, id: str, path: str, content: BinaryIO) -> bool:
    """Write the unreadable chunks of ``path`` in ``id`` anew. False: it is other content."""
    with store.index.read() as txn:
        _, owner = need(store, txn, id)
    store.forget_all()
    record = store.nodes.find(store.nodes.root(owner.root).record, path)
    if record is None or record[0] != FILE:
        raise FileNotFoundError(path)
    form = record[1] & FORM
    wanted: list[tuple[int, bytes]] = []
    if form == CHUNK:
        wanted = [(record[6], payload(record))]
    elif form == LIST:
        for length, segment in list_rows(store.get(payload(record))):
            wanted += (
                [(length, segment)] if segment == NO_DIGEST else segment_rows(store.get(segment))
            )
    writer = Writer(store)
    keep = False
    mended: set[bytes] = set()
    try:
        for length, digest in wanted:
            data = content.read(length) if digest != NO_DIGEST else b""
            if digest == NO_DIGEST:
                content.seek(length, 1)
                continue
            if digest_of(data) != digest:
                return False
            if digest not in mended and not _is_readable(store, digest):
                writer.supply(digest, data)
                mended.add(digest)
        writer.publish()
        if mended:

            def work(txn: Txn) -> None:
                ledger = Ledger(store.index, txn, writer.places)
                ledger.add_packs(writer.packs)
                ledger.relocate(None, sorted(mended))
                ledger.settle()

            store.index.write(work)
        keep = bool(mended)
    finally:
        writer.close(keep=keep)
    return True


def _is_readable(store: Store, digest: bytes) -> bool:
    try:
        store.get(digest)
    except DamagedError:
        return False
    return True
