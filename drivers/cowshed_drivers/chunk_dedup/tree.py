"""WriteTree: a container's tree in the hands of its writer.

Changes gather in an overlay; new content goes to a writer, which keeps at most a window of it in
memory. ``sync`` turns both into objects, publishes their packs and commits once: a crash before
that leaves the container as it was at the sync before, a crash after it nothing to replay.
"""

from __future__ import annotations

import errno
import time
from typing import BinaryIO

from cowshed.entry import Entry, Kind, parent_of
from cowshed.errors import CorruptError
from cowshed.locking import Lock
from cowshed.tree import OpenMode, now_ns

from .changes import brought, changes, equal_objects
from .chunks import Held
from .collect import sweep
from .commit import Apparent, commit_container
from .compare import Comparison
from .content import Content, hold_stream
from .editing import EditTree
from .handle import WriteFile, open_writer
from .index import CONTAINER
from .node import EMPTY_ROOT_DIGEST
from .overlay import Overlay, check_name, failure
from .pack import DamagedError, Note
from .record import DIRECTORY, FILE, Record, from_entry, inode_of, make
from .store import Store
from .tally import Tally
from .writer import Writer, order_key


class WriteTree(EditTree):
    """A container, writable."""

    def __init__(
        self, store: Store, container: str, root: bytes, layer_root: bytes, parent: str | None
    ) -> None:
        super().__init__(store, container)
        self._layer_root = layer_root
        self._parent = parent
        self._writer: Writer | None = None
        #: Keeps what open files have put into published packs until they are closed.
        self._held: Lock | None = None
        self._nodes = store.nodes.through(self._fresh)
        self._overlay = Overlay(self._nodes, root)

    def _fresh(self, digest: bytes) -> bytes | None:
        return None if self._writer is None else self._writer.get(digest)

    def _writing(self) -> Writer:
        if self._writer is None:
            self._writer = Writer(self._store)
        return self._writer

    def _put(self, data: bytes, order: str) -> bytes:
        return self._writing().put(data, order)

    def _put_node(self, data: bytes) -> bytes:
        return self._writing().put_node(data)

    # -- content ------------------------------------------------------------------------------

    def _content(self, path: str, record: Record | None) -> Content:
        key = order_key(path)
        return Content(
            self._nodes.get,
            lambda data: self._put(data, key),
            self._store.options.chunk_size,
            record,
            put_node=self._put_node,
        )

    def truncate(self, path: str, size: int) -> None:
        self._check()
        record = self._record(path)
        if record[0] != FILE:
            raise failure(errno.EISDIR if record[0] == DIRECTORY else errno.EINVAL, path)
        if size < 0:
            raise failure(errno.EINVAL, path)
        try:
            content = self._content(path, record)
            content.truncate(size)
            self._hold(path, content.finish())
        except DamagedError as error:
            self._corrupt(path, error)

    def _hold(self, path: str, held: Held) -> None:
        size, form, data = held
        self._change(path, size=size, form=form, payload=data, mtime_ns=now_ns())

    def _open_for_writing(self, path: str, mode: OpenMode) -> BinaryIO:
        self._check()
        if mode not in ("r+b", "wb", "xb", "ab"):
            raise ValueError(f"invalid mode: {mode!r}")
        if mode == "r+b":
            record: Record | None = self._record(path)
        else:
            if not path:
                raise failure(errno.EISDIR, path)
            self._entries_above(path)
            record = self._overlay.find(path)
            if mode == "xb" and record is not None:
                raise failure(errno.EEXIST, path)
        if record is not None and record[0] != FILE:
            raise failure(errno.EISDIR if record[0] == DIRECTORY else errno.EINVAL, path)
        if record is None:
            check_name(path.rpartition("/")[2], path)
            self._create(path, make(FILE, mode=0o644, mtime_ns=now_ns()))
        try:
            content = self._content(path, None if mode == "wb" else record)
        except DamagedError as error:
            self._corrupt(path, error)
        handle = WriteFile(
            content,
            path,
            self._where(path),
            append=mode == "ab",
            readable=mode == "r+b",
            done=self._written,
        )
        if mode == "wb" and record is not None:
            handle.changed = True
        self._handles.add(handle)
        return open_writer(handle)

    def _written(self, handle: WriteFile, held: Held) -> None:
        self._handles.discard(handle)
        if not self._handles and self._held is not None:
            # The chunks must not be swept before the next commit owns them.
            self._writing()
            self._held.release()
            self._held = None
        if handle.path is not None and handle.changed:
            self._hold(handle.path, held)
        self._make_room()

    def _make_room(self) -> None:
        if self._overlay.is_crowded:
            self._overlay.unload(self._put_node)

    def apply(self, entry: Entry, content: BinaryIO | None = None) -> None:
        # In one step: Tree.apply goes through seven primitives and two changes of the parent.
        self._check()
        record: Record | None = None
        try:
            if entry.kind is Kind.FILE:
                self._overlay.entries(parent_of(entry.path))
                held: Held = (0, 0, b"")
                if content is not None:
                    key = order_key(entry.path)
                    held = hold_stream(
                        content,
                        self._nodes.get,
                        lambda data: self._put(data, key),
                        self._put_node,
                        self._store.options.chunk_size,
                    )
                size, form, data = held
                record = from_entry(entry, size=size, form=form, content=data)
            if entry.path:
                self._orphan(entry.path)
            self._overlay.apply(entry, record)
            self._make_room()
        except DamagedError as error:
            self._corrupt(entry.path, error)

    # -- committing ---------------------------------------------------------------------------

    def sync(self) -> None:
        self._check()
        try:
            self._commit()
        except DamagedError as error:
            raise CorruptError(self._id, str(error)) from error

    def _commit(self) -> None:
        overlay = self._overlay
        if not overlay.changed:
            return
        writer = self._writing()
        old = overlay.base
        new = overlay.encode(writer.put_node)
        if new == old:
            overlay.reset(old)
            if not self._handles:  # else what open files wrote stays with the writer
                self._finish(writer, old, keep=False)
            return
        counts = Tally(self._store.staging)
        differences = Comparison(self._nodes, old, new, counts=counts)
        apparent = self._apparent(differences, self._nodes.root(new).links)
        serial = time.time_ns()
        note = writer.note(Note(CONTAINER, serial, new, self._id, self._parent))
        # Whatever fails up to here, overlay and writer still have all, and ``sync`` may be retried.
        writer.publish()
        commit_container(self._store, writer, self._id, old, new, counts, apparent, serial, note)
        self._finish(writer, new, keep=True)
        sweep(self._store)

    def _finish(self, writer: Writer, root: bytes, *, keep: bool) -> None:
        if keep and self._handles and self._held is None:
            # What open files wrote so far lies in these packs and is nobody's yet.
            self._held = self._store.writing()
        writer.close(keep=keep)
        self._writer = None
        self._overlay.reset(root)

    def _apparent(self, differences: Comparison, table: bytes) -> Apparent:
        """Return by how much, or to how much, the commit changes what the container brought."""
        layer = self._nodes.root(self._layer_root)
        if not table == layer.links == self._nodes.root(differences.old_digest).links:
            # Names moved between files, so it takes all changes to say which count once.
            differences.drain()
            return Apparent(
                0, brought(changes(self._nodes, self._layer_root, differences.new_digest))
            )
        total = 0
        for path, before, after in differences:
            total += self._brings(layer.record, path, after)
            total -= self._brings(layer.record, path, before)
        return Apparent(total)

    def _brings(self, layer: Record, path: str, record: Record | None) -> int:
        """Return a file's size if the layer has no equal file at ``path``."""
        if record is None or record[0] != FILE or not record[6]:
            return 0
        if inode_of(record) and path != min(self._overlay.names(inode_of(record))):
            return 0
        if self._layer_root == EMPTY_ROOT_DIGEST:
            return record[6]
        below = self._nodes.find(layer, path)
        return 0 if below is not None and equal_objects(self._nodes, below, record) else record[6]

    def close(self) -> None:
        if self._closed:
            return
        try:
            for handle in list(self._handles):
                if handle.buffer is not None:
                    handle.buffer.close()
            self.sync()
        finally:
            self._closed = True
            if self._writer is not None:
                self._writer.close(keep=False)
                if self._writer.entered:
                    sweep(self._store)
                self._writer = None
            if self._held is not None:
                self._held.release()
                self._held = None
