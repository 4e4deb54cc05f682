"""ChunkDedup: content in chunks stored once, in compressed packs that LMDB indexes.

    ROOT/index/          LMDB: table of contents and commit point (``index``)
    ROOT/packs/…         objects in compressed groups, immutable (``pack``)
    ROOT/staging/…       packs being written, each under its writer's token (``writer``)
    ROOT/lock            who is writing, by byte ranges (``cowshed.locking``)

Everything with content is an *object*, named by its SHA-256: chunks of files, lists of chunks,
directories, roots (``content``, ``node``, ``record``). A layer or container is a root digest and a
few numbers in the index. Directories name what they hold by digest, so trees share whatever is
equal, preparing, forking and going back are a row each, and comparing two trees skips what they
share (``compare``, ``changes``).

Writing: new objects gather and are compressed in groups of similar files (``writer``), packs are
synced and moved to their place, and one transaction makes them count (``commit``). It also notes
who owns which object (``ledger``), so that ``usage`` is one look-up and exact, and a pack whose
last owner goes is deleted at once (``collect``). There is no journal and nothing to replay.

Should the index be lost, ``rebuild`` makes it anew from packs. Should packs be damaged, reads say
whose path it is, ``verify`` says how far it goes, and ``repair`` takes good content back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from cowshed.driver import Driver, Held, Item, Problem, Stage, Usage
from cowshed.entry import Change
from cowshed.errors import CorruptError
from cowshed.tree import Tree

from . import accounts, commit
from .changes import changes
from .collect import collect, recover, sweep
from .index import CONTAINER, LAYER, NAMED, Owner, Txn
from .index import NUMBER as _NUMBER
from .node import EMPTY_ROOT_DIGEST
from .options import Options
from .overlay import failure
from .pack import DamagedError
from .reading import StoredTree
from .rebuild import rebuild
from .repair import repair
from .stage import ChunkStage
from .store import Store
from .tree import WriteTree
from .verify import verify


class ChunkDedup(Driver):
    """The driver; every call is a few rows of the index, the rest is in modules of one noun."""

    name: ClassVar[str] = "chunk-dedup"

    def __init__(self, root: Path, options: Any = None) -> None:
        chosen = Options() if options is None else options
        if not isinstance(chosen, Options):
            raise TypeError(f"options must be {Options.__name__}, not {type(chosen).__name__}")
        self._store = Store(root, chosen, lambda: self.durable)

    # -- layers and containers ----------------------------------------------------------------

    def stage(self, parent: str | None) -> Stage:
        return ChunkStage(self._store, parent)

    def prepare(self, container: str, parent: str | None) -> None:
        commit.prepare(self._store, [container], parent)

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        commit.prepare(self._store, list(containers), parent)

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        store = self._store
        with store.index.read() as txn:
            _, owner = commit.need(store, txn, id)
            layer = self._layer(txn, owner)
        if not writable:
            return StoredTree(store, id, owner.root, sealed=owner.kind == LAYER)
        if owner.kind == LAYER:
            raise failure(errno.EROFS, id)
        try:
            return WriteTree(store, id, owner.root, *layer)
        except DamagedError as error:
            raise CorruptError(id, str(error)) from error

    def changes(self, container: str) -> Iterator[Change]:
        with self._store.index.read() as txn:
            commit.need(self._store, txn, container, CONTAINER)
        return self._changes(container)

    def _changes(self, container: str) -> Iterator[Change]:
        store = self._store
        with store.reading() or nullcontext():
            with store.index.read() as txn:
                _, owner = commit.need(store, txn, container, CONTAINER)
                layer_root, _ = self._layer(txn, owner)
            try:
                yield from changes(store.nodes, layer_root, owner.root)
            except DamagedError as error:
                raise CorruptError(container, str(error)) from error

    def _layer(self, txn: Txn, owner: Owner) -> tuple[bytes, str | None]:
        """Return the root and ID of the layer that ``owner`` stands on."""
        if not owner.layer:
            return EMPTY_ROOT_DIGEST, None
        layer = self._store.index.owner(txn, owner.layer)
        return layer.root, layer.id

    def fork(self, container: str, new: str) -> None:
        commit.fork(self._store, container, new)

    def remove(self, id: str) -> None:
        self.remove_many([id])

    def remove_many(self, ids: Iterable[str]) -> None:
        commit.remove(self._store, list(ids))
        sweep(self._store)

    # -- looking ------------------------------------------------------------------------------

    def usage(self, id: str) -> Usage:
        """Say what ``id`` costs, from one row; see ``accounts`` for the one exception.

        ``exclusive`` counts compressed bytes in packs; dead ones come back with the pack or with
        ``collect``. ``inodes`` are the pack files it wrote, which others may have come to share.
        """
        owner, released = accounts.look(self._store, id)
        return Usage(
            exclusive=owner.exclusive + released, apparent=owner.apparent, inodes=owner.packs
        )

    def items(self) -> Iterator[Item]:
        index = self._store.index
        with index.read() as txn:
            owners = {0: ""}
            rows: list[tuple[str, Owner]] = []
            with txn.cursor(db=index.owners) as cursor:
                for key, row in cursor:
                    owner = Owner.decode(row)
                    if owner.kind in NAMED:
                        rows.append((owner.id, owner))
                    if owner.kind == LAYER:
                        owners[_NUMBER.unpack(key)[0]] = owner.id
        for id, owner in rows:
            held = Held.LAYER if owner.kind == LAYER else Held.CONTAINER
            yield Item(id=id, held=held, parent=owners[owner.layer] or None)

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        with self._store.index.read() as txn:
            commit.need(self._store, txn, id)
        return verify(self._store, id, deep=deep)

    def disk_usage(self) -> int:
        total = 0
        stack = [os.fspath(self._store.root)]
        while stack:
            try:
                with os.scandir(stack.pop()) as found:
                    for entry in found:
                        try:
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
                        except FileNotFoundError:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
            except FileNotFoundError:
                continue
        return total

    # -- care ---------------------------------------------------------------------------------

    def recover(self) -> None:
        recover(self._store)

    def collect(self) -> int:
        return collect(self._store)

    def economise(self) -> None:
        self._store.economise()

    def rebuild(self) -> list[str]:
        """Make the index anew from packs; return the IDs that came back. See ``rebuild``."""
        return rebuild(self._store)

    def repair(self, id: str, path: str, content: BinaryIO) -> bool:
        """Store the good ``content`` of a damaged file again; False if it isn't that content."""
        return repair(self._store, id, path, content)

    def close(self) -> None:
        self._store.close()
