"""Store: reading objects by digest, verified, with bounded caches.

What a reader needs of the index is one row; the rest are packs, which never change. A pack may go
away between the look-up and the open, because its objects moved or died in another process: the
index is then asked once more.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import zstandard

from cowshed.errors import BusyError
from cowshed.locking import Lock, LockFile

from .chunks import CHUNK_MAX
from .index import OBJECT, Index
from .node import EMPTY_ROOT, EMPTY_ROOT_DIGEST, digest_of
from .nodes import ENTRIES, Nodes
from .options import Options
from .pack import DamagedError
from .spill import Spill

#: pack, frame offset, frame length, offset in the raw frame, length
Place: TypeAlias = tuple[int, int, int, int, int]

_OPEN_PACKS = 64
#: Decoded entries that a frugal process keeps.
_FRUGAL_ENTRIES = 4_000
#: Bytes of unpacked frames kept while something is staged.
_STAGING = 8 << 20

#: Held shared by whoever stages or commits, exclusively by whoever deletes packs.
WRITERS = "writers"


class Store:
    """One driver object's view of the packs and the index below ``root``."""

    def __init__(
        self, root: Path, options: Options, durable: Callable[[], bool] = lambda: True
    ) -> None:
        self.root = root
        self.options = options
        self.packs = root / "packs"
        self.staging = root / "staging"
        for place in (root, self.packs, self.staging):
            place.mkdir(mode=0o700, exist_ok=True)
        self.index = Index(root / "index", map_size=options.map_size, durable=durable)
        self.locks = LockFile(root / "lock")
        self._groups: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._group_bytes = 0
        self._cache_size = options.cache_size
        self._spill: Spill | None = None
        self._stages = 0
        self._files: OrderedDict[int, int] = OrderedDict()
        self._pid = os.getpid()
        self._guard = threading.RLock()
        self._decompressor = zstandard.ZstdDecompressor()
        self.nodes = Nodes(self.get)

    @property
    def durable(self) -> bool:
        """False means that nothing need be synced."""
        return self.index.durable()

    def economise(self) -> None:
        """Keep unpacked frames on the disk, and little in memory."""
        with self._guard:
            if self._spill is None:
                self._spill = Spill(self.staging, self.options.group_size + CHUNK_MAX)
                self._cache_size = 0
                self._frugal(True)

    def staging_begins(self) -> None:
        """Keep few unpacked frames and directories until as many stages have ended: a stage reads
        directories again that it wrote, one after the other."""
        with self._guard:
            self._stages += 1
            self._frugal(True)

    def staging_ends(self) -> None:
        """Keep as many as before."""
        with self._guard:
            self._stages -= 1
            self._frugal(self._stages > 0 or self._spill is not None)

    def _frugal(self, frugal: bool) -> None:
        self.index.trims = frugal
        self.nodes.keep(_FRUGAL_ENTRIES if frugal else ENTRIES)

    # -- locks --------------------------------------------------------------------------------

    def writing(self) -> Lock:
        """Keep packs from being deleted while objects found in them are about to be used."""
        return self.locks.acquire(WRITERS, shared=True)

    def reading(self) -> Lock | None:
        """Keep packs from being deleted while a container is read that others may write.

        None on a disk that can't be written, where nobody deletes any.
        """
        try:
            return self.writing()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return None

    def alone(self, timeout: float = 0.0) -> Lock | None:
        """Keep everybody from staging and committing; None if somebody is."""
        try:
            lock = (
                self.locks.acquire(WRITERS, timeout=timeout)
                if timeout
                else self.locks.attempt(WRITERS)
            )
        except BusyError:
            return None
        if lock is not None:
            self.index.settle()
        return lock

    # -- objects ------------------------------------------------------------------------------

    def get(self, digest: bytes) -> bytes:
        """Return an object, checked against its digest.

        Raises:
            DamagedError: it is missing or isn't what was stored.
        """
        if digest == EMPTY_ROOT_DIGEST:
            return EMPTY_ROOT
        tried: bytes | None = None
        while True:
            row = self.index.lookup(digest)
            if row is None:
                raise DamagedError(f"object {digest.hex()[:16]} is not in the index")
            place: Place = OBJECT.unpack(row)[:5]
            try:
                return self.extract(None, place, digest)
            except FileNotFoundError:
                if row[:8] == tried:
                    raise DamagedError(f"pack {place[0]:016x} is missing") from None
                tried = row[:8]

    def extract(self, path: Path | None, place: Place, digest: bytes) -> bytes:
        """Return the object at ``place`` in the pack at ``path``, or in the published one.

        Raises:
            DamagedError: it isn't what was stored.
            FileNotFoundError: the pack is gone.
        """
        pack, at, frame, offset, length = place
        data = None if self._spill is None else self._spilled((pack, at), offset, length)
        if data is None:
            data = self._group(path, pack, at, frame)[offset : offset + length]
        if digest_of(data) != digest:
            raise DamagedError(f"pack {pack:016x}, frame at {at}: object has another digest")
        return data

    def _spilled(self, key: tuple[int, int], offset: int, length: int) -> bytes | None:
        with self._guard:
            if self._spill is None or key in self._groups:
                return None
            return self._spill.read(key, offset, length)

    def _group(self, path: Path | None, pack: int, at: int, frame: int) -> bytes:
        key = (pack, at)
        with self._guard:
            raw = self._groups.get(key)
            if raw is not None:
                self._groups.move_to_end(key)
                return raw
            descriptor = self._descriptor(path, pack)
            try:
                packed = os.pread(descriptor, frame, at)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise DamagedError(f"pack {pack:016x}, frame at {at}: {error.strerror}") from error
            try:
                raw = self._decompressor.decompress(packed)
            except zstandard.ZstdError as error:
                raise DamagedError(
                    f"pack {pack:016x}, frame at {at} can't be decompressed: {error}"
                ) from error
            self._groups[key] = raw
            if self._spill is not None:
                self._spill.write(key, raw)
            self._group_bytes += len(raw)
            most = min(self._cache_size, _STAGING) if self._stages else self._cache_size
            while self._group_bytes > most and len(self._groups) > 1:
                self._group_bytes -= len(self._groups.popitem(last=False)[1])
            return raw

    def _descriptor(self, path: Path | None, pack: int) -> int:
        if self._pid != os.getpid():
            # Offsets aren't used, but a descriptor closed here must not be the parent's idea.
            self._pid = os.getpid()
            self._files.clear()
        descriptor = self._files.get(pack)
        if descriptor is None:
            descriptor = self._files[pack] = os.open(
                path or self.pack_path(pack), os.O_RDONLY | os.O_CLOEXEC
            )
            if len(self._files) > _OPEN_PACKS:
                os.close(self._files.popitem(last=False)[1])
        else:
            self._files.move_to_end(pack)
        return descriptor

    def pack_path(self, pack: int) -> Path:
        """Return where a published pack lies."""
        return self.packs / f"{pack:016x}"

    def forget(self, pack: int) -> None:
        """Drop what is cached of a pack, so that its space can go back to the system."""
        with self._guard:
            descriptor = self._files.pop(pack, None)
            if descriptor is not None and self._pid == os.getpid():
                os.close(descriptor)
            if self._spill is not None:
                self._spill.forget(pack)
            for key in [key for key in self._groups if key[0] == pack]:
                self._group_bytes -= len(self._groups.pop(key))

    def forget_all(self) -> None:
        """Drop every cache and close every pack."""
        with self._guard:
            if self._pid == os.getpid():
                for descriptor in self._files.values():
                    os.close(descriptor)
            self._files.clear()
            self._groups.clear()
            self._group_bytes = 0
        self.nodes.clear()

    def close(self) -> None:
        """Let go of the index and of every pack. Closing twice is fine."""
        self.forget_all()
        if self._spill is not None:
            self._spill.close()
            self._spill = None
        self.index.close()
