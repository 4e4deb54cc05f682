"""Layer reading: a source's blob as the uncompressed tar in it, checked to its last byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, cast

from .errors import DigestMismatchError

if TYPE_CHECKING:
    from .archive import HashingReader
    from .blobs import BlobWriter
    from .shed import Shed
    from .transport import SourceLayer


class LayerReader:
    """A source layer's bytes: counted and hashed as they come, decompressed, kept if asked."""

    def __init__(self, shed: Shed, layer: SourceLayer, progress: Callable[[int], None]) -> None:
        self._shed = shed
        self._layer = layer
        self._progress = progress
        self._close = ExitStack()
        self._raw: HashingReader | None = None
        self._keep: BlobWriter | None = None
        self._problem: DigestMismatchError | None = None
        self.count = 0
        #: After ``verify`` found other bytes than promised: whether the next ones may be right.
        self.again = False

    def open(self) -> BinaryIO:
        """Open the uncompressed tar; ``verify`` or ``close`` ends it."""
        from .archive import HashingReader, decompressor

        layer = self._layer
        source = self._close.enter_context(layer.open())
        if (
            layer.descriptor is not None
            and layer.settle is None
            and self._shed.config["keep_blobs"]
        ):
            self._keep = self._close.enter_context(self._shed.blobs.writer(layer.descriptor))
            self._keep.restart()
        watched = cast(BinaryIO, _Watched(source, self._progress, self._keep))
        digest = "sha256:" if layer.descriptor is None else layer.descriptor.digest
        self._raw = HashingReader(watched, digest.partition(":")[0])
        return decompressor(cast(BinaryIO, self._raw), layer.compression, limits=self._shed.limits)

    def verify(self) -> None:
        """Compare the raw blob, to its last byte, with its descriptor.

        Raises:
            DigestMismatchError: it isn't what was promised.
        """
        if self._raw is not None:
            self._raw.drain()
            self.count = self._raw.size
            self._problem = self._judged(self._raw)
            if self._layer.settle is not None:
                self.again = self._layer.settle(self._problem is None) and self._problem is not None
            self._raw = None
        if self._problem is not None:
            raise self._problem
        if self._keep is not None:
            self._keep.commit()
            self._keep = None

    def _judged(self, raw: HashingReader) -> DigestMismatchError | None:
        descriptor = self._layer.descriptor
        if descriptor is None:
            return None
        if self.count != descriptor.size:
            return DigestMismatchError(
                f"size of layer {descriptor.digest}",
                f"{descriptor.size:,} bytes",
                f"{self.count:,} bytes",
            )
        if raw.digest != descriptor.digest:
            return DigestMismatchError("layer", descriptor.digest, raw.digest)
        return None

    def close(self) -> None:
        """Let go of the source. Closing twice is fine."""
        self._close.close()


class _Watched:
    """A source as it is read: its progress told some ten times a second, its bytes kept."""

    def __init__(
        self, source: BinaryIO, progress: Callable[[int], None], keep: BlobWriter | None
    ) -> None:
        self._source = source
        self._progress = progress
        self._keep = keep
        self._count = 0
        self._told = 0.0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._count += len(data)
        if self._keep is not None and data:
            self._keep.write(data)
        now = time.monotonic()
        if now - self._told > 0.1:
            self._told = now
            self._progress(self._count)
        return data
