"""ChunkStage: a layer being written, as an overlay on its parent plus a writer of new objects."""

from __future__ import annotations

import time
from typing import BinaryIO

from cowshed.driver import Stage
from cowshed.entry import Entry, Kind
from cowshed.errors import BusyError, CorruptError, CowshedError

from .changes import brought, changes
from .collect import sweep
from .commit import parent_of, seal_layer
from .compare import Comparison
from .content import hold_stream
from .heap import give_back
from .index import LAYER
from .links import Seen
from .node import EMPTY_ROOT_DIGEST
from .overlay import Overlay
from .pack import DamagedError, Note
from .reading import open_record
from .record import FILE, Record, from_entry, inode_of
from .store import Store
from .tally import Tally
from .writer import Writer, order_key


class ChunkStage(Stage):
    """Applies entries in memory and streams content into private packs."""

    def __init__(self, store: Store, parent: str | None) -> None:
        self._store = store
        self._parent = parent
        with store.index.read() as txn:
            self._owner, self._parent_root = parent_of(store, txn, parent)
        writer = Writer(store)
        self._writer: Writer | None = writer
        self._nodes = store.nodes.through(writer.get)
        try:
            self._overlay = Overlay(self._nodes, self._parent_root, store.staging)
        except DamagedError as error:
            writer.close(keep=False)
            raise self._explained(error, parent or "") from error
        except BaseException:
            writer.close(keep=False)
            raise
        store.staging_begins()

    def _live(self) -> Writer:
        if self._writer is None:
            raise ValueError("the stage is sealed or discarded")
        return self._writer

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        writer = self._live()
        record: Record | None = None
        try:
            if entry.kind is Kind.FILE:
                size = form = 0
                data = b""
                if content is not None:
                    order = order_key(entry.path)
                    size, form, data = hold_stream(
                        content,
                        self._nodes.get,
                        lambda chunk: writer.put(chunk, order),
                        writer.put_node,
                        self._store.options.chunk_size,
                    )
                record = from_entry(entry, size=size, form=form, content=data)
            self._overlay.apply(entry, record)
            if self._overlay.is_crowded:
                self._overlay.unload(writer.put_node)
                give_back()
        except DamagedError as error:
            raise self._explained(error, f"{self._parent}: /{entry.path}") from error

    def _explained(self, error: DamagedError, where: str) -> CowshedError:
        """Tell damage from a parent that somebody has removed, and maybe stored again since.

        Raises:
            NotFoundError: the parent is gone.
        """
        with self._store.index.read() as txn:
            owner, _ = parent_of(self._store, txn, self._parent)
        if owner != self._owner:
            return BusyError(f"layer {self._parent} was removed and stored again; try again later")
        return CorruptError(where, str(error))

    def open(self, path: str) -> BinaryIO:
        self._live()
        record = self._overlay.find(path)
        if record is None or record[0] != FILE:
            raise FileNotFoundError(f"{path!r} isn't a file of this stage")
        try:
            return open_record(self._nodes, record, f"stage: /{path}")
        except DamagedError as error:
            raise CorruptError(f"stage: /{path}", str(error)) from error

    def seal(self, layer: str) -> None:
        writer = self._live()
        keep = False
        try:
            keep = self._seal(writer, layer)
        except DamagedError as error:
            raise self._explained(error, layer) from error
        finally:
            self._writer = None
            self._close(writer, keep=keep)
        sweep(self._store)

    def _close(self, writer: Writer, *, keep: bool) -> None:
        self._store.staging_ends()
        self._overlay.close()
        writer.close(keep=keep)
        if writer.entered and not keep:
            sweep(self._store)

    def _seal(self, writer: Writer, layer: str) -> bool:
        root = self._overlay.encode(writer.put_node)
        counts = Tally(self._store.staging)
        differences = Comparison(self._nodes, self._parent_root, root, counts=counts)
        if self._parent_root == EMPTY_ROOT_DIGEST:
            apparent = self._all_of(differences)
        else:
            differences.drain()
            apparent = brought(changes(self._nodes, self._parent_root, root, self._store.staging))
        serial = time.time_ns()
        note = writer.note(Note(LAYER, serial, root, layer, self._parent))
        writer.publish()
        return seal_layer(
            self._store,
            writer,
            layer,
            self._parent,
            self._parent_root,
            root,
            counts,
            apparent,
            serial,
            note,
        )

    @staticmethod
    def _all_of(differences: Comparison) -> int:
        """Return the content of all files of a layer without parent, in bytes."""
        total = 0
        seen = Seen()
        for _, _, record in differences:
            if record is not None and record[0] == FILE:
                inode = inode_of(record)
                if not inode or seen.add(inode):
                    total += record[6]
        return total

    def discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._close(writer, keep=False)
