"""Verify: looking for damage, and for accounts that don't add up.

Structure is read as any reader would read it, so a damaged directory is named once, and files as
far as their chunk lists. ``deep`` also reads every chunk; a chunk found damaged is named for each
path that has it. What an owner owns is counted anew from the trees and compared with the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from cowshed.driver import Problem

from .chunks import list_rows, segment_rows
from .commit import need
from .compare import Comparison
from .index import OBJECT, Owner
from .ledger import Ledger
from .node import EMPTY_ROOT_DIGEST, NO_DIGEST
from .pack import DamagedError
from .record import CHUNK, DIRECTORY, FILE, FORM, LIST, Record, payload
from .store import Store
from .tally import Tally


def verify(store: Store, id: str, *, deep: bool) -> Iterator[Problem]:
    """Yield what is wrong with ``id``, whose existence was checked."""
    with store.reading() or nullcontext():
        yield from _verify(store, id, deep)


def _verify(store: Store, id: str, deep: bool) -> Iterator[Problem]:
    with store.index.read() as txn:
        _, owner = need(store, txn, id)
    # What is cached was right when it was read; the question is what the disk holds now.
    store.forget_all()
    known: dict[bytes, str] = {}
    sound = True
    for path, record, problem in _walk(store, owner.root):
        what = problem or (_file_problem(store, record, deep, known) if record else "")
        if what:
            sound = False
            yield Problem(id=id, path=path, what=what)
    if sound:
        for what in _accounts(store, id):
            yield Problem(id=id, path="", what=what)


def _walk(store: Store, root: bytes) -> Iterator[tuple[str, Record | None, str]]:
    """Yield (path, file's record, "") and (path, None, problem) over a whole tree."""
    nodes = store.nodes
    try:
        found = nodes.root(root)
        stack = [("", payload(found.record))]
        if found.links != NO_DIGEST:
            for page in nodes.pages(found.links):
                nodes.page(page)
    except DamagedError as error:
        yield "", None, str(error)
        return
    while stack:
        path, digest = stack.pop()
        prefix = f"{path}/" if path else ""
        try:
            pages = nodes.pages(digest)
        except DamagedError as error:
            yield path, None, f"directory: {error}"
            continue
        for page in pages:
            try:
                entries = nodes.page(page)
            except DamagedError as error:
                yield path, None, f"directory: {error}"
                continue
            for name, record in entries.items():
                if record[0] == DIRECTORY:
                    stack.append((prefix + name, payload(record)))
                elif record[0] == FILE:
                    yield prefix + name, record, ""


def _file_problem(store: Store, record: Record, deep: bool, known: dict[bytes, str]) -> str:
    form = record[1] & FORM
    if form == CHUNK:
        return _chunk_problem(store, payload(record), record[6], deep, known)
    if form != LIST:
        return ""
    try:
        total = 0
        for length, segment in list_rows(store.get(payload(record))):
            total += length
            if segment == NO_DIGEST:
                continue
            for size, chunk in segment_rows(store.get(segment)):
                if chunk != NO_DIGEST:
                    what = _chunk_problem(store, chunk, size, deep, known)
                    if what:
                        return what
    except DamagedError as error:
        return str(error)
    return "" if total == record[6] else "chunk list has another length than its file"


def _chunk_problem(
    store: Store, digest: bytes, size: int, deep: bool, known: dict[bytes, str]
) -> str:
    what = known.get(digest)
    if what is None:
        what = ""
        row = store.index.lookup(digest)
        if row is None:
            what = f"chunk {digest.hex()[:16]} is not in the index"
        elif OBJECT.unpack(row)[4] != size:
            what = f"chunk {digest.hex()[:16]} has another length than its file says"
        elif deep:
            try:
                store.get(digest)
            except DamagedError as error:
                what = str(error)
        elif not store.pack_path(OBJECT.unpack(row)[0]).exists():
            what = f"pack {OBJECT.unpack(row)[0]:016x} is missing"
        known[digest] = what
    return what


def _accounts(store: Store, id: str) -> Iterator[str]:
    """Yield how what ``id`` owns, and what is said to be exclusive to it, differ from a count."""
    index = store.index
    with index.read() as txn:
        found = index.find(txn, id)
        if found is None:
            return
        number, owner = found
        base = index.owner(txn, owner.base).root if owner.base else EMPTY_ROOT_DIGEST
        edges = dict(Ledger(index, txn).edges(number))
        exclusive = 0
        for digest in edges:
            row = txn.get(digest, db=index.objects)
            if row is None:
                yield f"owns object {digest.hex()[:16]}, which is not in the index"
                continue
            *_, share, owners, xor = OBJECT.unpack(row)
            if owners == 1 and xor == number:
                exclusive += share
        if exclusive != owner.exclusive:
            yield f"exclusive bytes are {exclusive:,}, the index says {owner.exclusive:,}"
    yield from _missing_edges(store, owner, base, edges)


def _missing_edges(
    store: Store, owner: Owner, base: bytes, edges: dict[bytes, int]
) -> Iterator[str]:
    counts = Tally(store.staging)
    try:
        Comparison(store.nodes, base, owner.root, counts=counts).drain()
    except DamagedError as error:
        yield str(error)
        return
    missing = sum(1 for digest in counts.gained() if digest not in edges)
    if missing:
        yield f"{missing} objects of its tree are not accounted to it"
