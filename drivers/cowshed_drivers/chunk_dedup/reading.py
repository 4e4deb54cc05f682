"""Reading: the half of a tree that layers and containers share.

A container's tree that isn't the writer's asks the index for the container's root with each call
(a few microseconds), so that it shows what was synced last and never a root whose objects are gone.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from cowshed.entry import Entry
from cowshed.errors import CorruptError
from cowshed.locking import Lock
from cowshed.tree import OpenMode, Tree

from .content import Content
from .handle import SmallFile, open_reader
from .node import Listing, byte_order
from .nodes import Nodes, Pages
from .overlay import failure
from .pack import DamagedError
from .record import CHUNK, DIRECTORY, FILE, FORM, INLINE, LIST, Record, payload, to_entry
from .store import Store


class ReadTree(Tree):
    """Lookups by path; subclasses say where entries come from."""

    def __init__(self, store: Store, id: str) -> None:
        self._store = store
        self._id = id
        self._nodes: Nodes = store.nodes

    # -- to be answered by subclasses -----------------------------------------------------------

    def _root(self) -> Record:
        raise NotImplementedError

    def _entries(self, path: str) -> Listing:
        """Return the entries of directory ``path``."""
        raise NotImplementedError

    #: Whether ``_entries`` come in byte order.
    _ordered = True
    #: Whether what it shows may be replaced while it is read.
    _changing = True

    # -- Tree ---------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry:
        return to_entry(path, self._record(path))

    def _record(self, path: str) -> Record:
        while True:
            try:
                if not path:
                    return self._root()
                directory, _, name = path.rpartition("/")
                record = self._entries(directory).get(name)
                break
            except DamagedError as error:
                if not self._moved_on():
                    self._corrupt(path, error)
        if record is None:
            raise failure(errno.ENOENT, path)
        return record

    def _moved_on(self) -> bool:
        """Say whether the tree has changed since it was looked at, so that objects may be gone."""
        return False

    def scandir(self, path: str) -> Iterator[Entry]:
        if self._record(path)[0] != DIRECTORY:
            raise failure(errno.ENOTDIR, path)
        return self._scan(path)

    def _scan(self, path: str) -> Iterator[Entry]:
        prefix = f"{path}/" if path else ""
        held: Lock | None = None
        try:
            while True:
                try:
                    entries = self._entries(path)
                except DamagedError as error:
                    if not self._moved_on():
                        self._corrupt(path, error)
                    continue
                if not isinstance(entries, Pages) or not self._changing or held is not None:
                    break
                # It is read page by page, to its end even if it is replaced meanwhile.
                held = self._store.reading()
                if held is None:
                    break
            if self._ordered:
                # A stored directory never changes, so nothing pulls it from under the caller.
                for name, record in entries.items():
                    yield to_entry(prefix + name, record)
            else:
                for name in sorted(entries, key=byte_order):
                    found = entries.get(name)
                    if found is not None:
                        yield to_entry(prefix + name, found)
        except DamagedError as error:
            self._corrupt(path, error)
        finally:
            if held is not None:
                held.release()

    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        if mode != "rb":
            return self._open_for_writing(path, mode)
        held: Lock | None = None
        try:
            while True:
                record = self._record(path)
                if record[0] != FILE:
                    raise failure(errno.EISDIR if record[0] == DIRECTORY else errno.EINVAL, path)
                pieces = record[1] & FORM == LIST
                if pieces and self._changing and held is None:
                    # It is read piece by piece, to its end even if it is replaced meanwhile.
                    held = self._store.reading()
                    if held is not None:
                        continue
                if held is not None and not pieces:
                    held.release()
                    held = None
                try:
                    return open_record(self._nodes, record, self._where(path), held)
                except DamagedError as error:
                    if not self._moved_on():
                        self._corrupt(path, error)
        except BaseException:
            if held is not None:
                held.release()
            raise

    def fingerprint(self, path: str) -> bytes | None:
        record = self._record(path)
        if record[0] != FILE:
            return None
        # Short contents lie in the record; longer ones are named by a digest there.
        return b"%d %d " % (record[1] & FORM, record[6]) + payload(record)

    def _open_for_writing(self, path: str, mode: OpenMode) -> BinaryIO:
        raise failure(errno.EROFS, path)

    def _where(self, path: str) -> str:
        return f"{self._id}: /{path}"

    def _corrupt(self, path: str, error: DamagedError) -> NoReturn:
        raise CorruptError(self._where(path), str(error)) from error


def open_record(nodes: Nodes, record: Record, where: str, held: Lock | None = None) -> BinaryIO:
    """Open a regular file's record for reading; ``where`` is for what goes wrong later.

    ``held`` is released when the file is closed, if opening succeeds.

    Raises:
        DamagedError: its content isn't what was stored.
    """
    form = record[1] & FORM
    if form == CHUNK:
        data = nodes.get(payload(record))
        if len(data) != record[6]:
            raise DamagedError("chunk has another length than its file")
        return SmallFile(data)
    if form == INLINE:
        return SmallFile(payload(record))
    if form == LIST or record[6]:
        return open_reader(Content(nodes.get, _refuse, 0, record), where, held)
    return SmallFile(b"")


def _refuse(data: bytes) -> bytes:
    raise AssertionError("reading stores nothing")


class StoredTree(ReadTree):
    """A layer, or a container as last synced; read-only."""

    def __init__(self, store: Store, id: str, root: bytes, *, sealed: bool) -> None:
        super().__init__(store, id)
        self._digest = root
        self._sealed = sealed
        self._changing = not sealed
        #: The directory looked at last: most calls are about its neighbours.
        self._recent: tuple[str, Listing] | None = None

    def _root(self) -> Record:
        if not self._sealed:
            self._digest = self._now()
        return self._nodes.root(self._digest).record

    def _now(self) -> bytes:
        """Return the root that the container has by now."""
        with self._store.index.read() as txn:
            found = self._store.index.find(txn, self._id)
        if found is None:
            raise failure(errno.ESTALE, self._id)
        return found[1].root

    def _moved_on(self) -> bool:
        return not self._sealed and self._now() != self._digest

    def _entries(self, path: str) -> Listing:
        recent = self._recent
        if recent is not None and recent[0] == path and self._sealed:
            return recent[1]
        record = self._root()
        nodes = self._nodes
        entries = nodes.directory(payload(record))
        if path:
            for part in path.split("/"):
                below = entries.get(part)
                if below is None:
                    raise failure(errno.ENOENT, path)
                if below[0] != DIRECTORY:
                    raise failure(errno.ENOTDIR, path)
                entries = nodes.directory(payload(below))
        self._recent = (path, entries)
        return entries

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        raise failure(errno.EROFS, path)

    def symlink(self, target: str, path: str) -> None:
        raise failure(errno.EROFS, path)

    def link(self, existing: str, path: str) -> None:
        raise failure(errno.EROFS, path)

    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        raise failure(errno.EROFS, path)

    def rename(self, source: str, destination: str) -> None:
        raise failure(errno.EROFS, source)

    def unlink(self, path: str) -> None:
        raise failure(errno.EROFS, path)

    def rmdir(self, path: str) -> None:
        raise failure(errno.EROFS, path)

    def chmod(self, path: str, mode: int) -> None:
        raise failure(errno.EROFS, path)

    def chown(self, path: str, uid: int, gid: int) -> None:
        raise failure(errno.EROFS, path)

    def utime(self, path: str, mtime_ns: int) -> None:
        raise failure(errno.EROFS, path)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        raise failure(errno.EROFS, path)

    def removexattr(self, path: str, name: str) -> None:
        raise failure(errno.EROFS, path)

    def truncate(self, path: str, size: int) -> None:
        raise failure(errno.EROFS, path)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass
