"""RegistryTarget: an image on its way to a registry.

Layers go up side by side, each in the cheapest way there is: not at all if the repository has its
blob, taken over from another repository of the registry, as the blob that was kept, or made as it
goes. The manifest goes last, so nobody sees half an image.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Protocol, cast

import attrs

from cowshed.errors import CorruptError, UsageError
from cowshed.oci import (
    Descriptor,
    build_manifest,
    digest_bytes,
)
from cowshed.oci.media import OCI_CONFIG, OCI_MANIFEST
from cowshed.target import SavedEvent, SavedImage, SavedLayer, Target, Written

from ..transports.compression import Format, check_compression, compressing, media_type_of
from ..transports.staging import keeps, own_descriptor, same_manifest
from .client import Repository
from .errors import RegistryError
from .reference import Reference
from .referrers import push_manifest
from .upload import LostUploadError, Upload
from .wire import Wire

#: Layers that go up at once; each has a few chunks in memory.
PARALLEL = 3
#: Bytes of a chunk: an attempt that fails costs no more, and 100 MB take a dozen requests.
CHUNK = 8 << 20
#: Repositories that are asked to give a blob.
_MOUNTS = 3


class Tell(Protocol):
    """Tells the listener of a layer."""

    def __call__(self, state: str, done: int = 0, total: int | None = None) -> None: ...


@attrs.frozen(kw_only=True)
class _Sent:
    """One layer as the registry has it now."""

    blob: Descriptor
    #: Bytes that went over the wire for it.
    sent: int
    existed: bool


class RegistryTarget(Target):
    """One tag of one repository."""

    def __init__(
        self,
        reference: Reference,
        repository: Repository,
        wire: Wire,
        compression: str | None,
        level: int | None,
    ) -> None:
        self._reference = reference
        self._repository = repository
        self._wire = wire
        kind, number = check_compression(compression, level)
        self._compression: Format = kind
        self._level = number
        self._keep = keeps(compression, level)
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = False
        self._image: SavedImage | None = None
        self._sent: list[_Sent] = []
        self._written: list[Written] = []

    def written(self) -> Sequence[Written]:
        return self._written

    def write_image(self, image: SavedImage) -> None:
        if self._image is not None:
            raise UsageError(f"several images can't all be {self._reference}")
        image.config.check_layers(len(image.layers))
        self._image = image
        # A layer that occurs twice goes up once.
        by_diff_id: dict[str, Future[_Sent]] = {}
        self._pool = ThreadPoolExecutor(PARALLEL, "cowshed-push")
        for index, layer in enumerate(image.layers):
            if layer.diff_id not in by_diff_id:
                by_diff_id[layer.diff_id] = self._pool.submit(
                    self._layer, layer, index, len(image.layers)
                )
        self._sent = [by_diff_id[layer.diff_id].result() for layer in image.layers]
        config = image.config.raw
        self._blob(_descriptor(OCI_CONFIG, config), config)

    def commit(self) -> None:
        image = self._image
        if image is None:
            return
        layers = [one.blob for one in self._sent]
        original = same_manifest(image, layers)
        if original is not None:
            raw, media_type = original.raw, original.media_type
        else:
            raw = build_manifest(
                _descriptor(OCI_CONFIG, image.config.raw),
                [own_descriptor(layer) for layer in layers],
                image.annotations,
            )
            media_type = OCI_MANIFEST
        push_manifest(self._repository, self._reference.tag, raw, media_type)
        once = {one.blob.digest: one for one in self._sent}.values()
        self._written.append(
            Written(
                manifest=_descriptor(media_type, raw),
                raw=raw,
                layers=len(layers),
                existing=sum(one.existed for one in self._sent),
                sent=sum(one.sent for one in once),
                total=sum(layer.size for layer in layers),
            )
        )

    def close(self) -> None:
        self._stopped = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._wire.close()

    # -- one layer ----------------------------------------------------------------------------

    def _layer(self, layer: SavedLayer, index: int, count: int) -> _Sent:
        def tell(state: str, done: int = 0, total: int | None = None) -> None:
            if self._stopped:
                raise RegistryError(self._repository.endpoint.name, "the push was given up")
            self.listener(
                SavedEvent(
                    state=state, layer=layer.diff_id, index=index, count=count,
                    done=done, total=total,
                )
            )  # fmt: skip

        blob = layer.descriptor
        if blob is not None and self._keep(blob):
            if self._repository.has_blob(blob):
                tell("exists", 0, blob.size)
                return _Sent(blob=blob, sent=0, existed=True)
            upload = self._mounted(layer, blob)
            if upload is None:
                tell("mounted", 0, blob.size)
                return _Sent(blob=blob, sent=0, existed=True)
            if layer.open_blob is not None:
                return self._whole(layer, blob, upload, tell)
            upload.cancel()
        return self._made(layer, tell)

    def _mounted(self, layer: SavedLayer, blob: Descriptor) -> Upload | None:
        """Ask for the blob from where it was seen; return an upload if nobody gives it."""
        upload: Upload | None = None
        for source in self._sources(layer)[:_MOUNTS]:
            if upload is not None:
                upload.cancel()
            upload = self._repository.start_upload(blob.digest, source)
            if upload is None:
                return None
        return upload or self._repository.start_upload()

    def _sources(self, layer: SavedLayer) -> list[str]:
        """Return the other repositories of this registry whose images have the layer's blob."""
        found: list[str] = []
        for name in layer.seen_in:
            try:
                seen = Reference.parse(name)
            except UsageError:
                continue
            here = seen.registry == self._reference.registry
            if here and seen.repository != self._reference.repository:
                found.append(f"{self._repository.endpoint.prefix}{seen.repository}")
        return list(dict.fromkeys(found))

    def _whole(self, layer: SavedLayer, blob: Descriptor, upload: Upload, tell: Tell) -> _Sent:
        """Send the blob that was kept, which the registry verifies."""
        assert layer.open_blob is not None
        open_blob = layer.open_blob
        self._put(blob, lambda: cast(BinaryIO, _Telling(open_blob(), blob.size, tell)), upload)
        tell("sent", blob.size, blob.size)
        return _Sent(blob=blob, sent=blob.size, existed=False)

    def _put(
        self, blob: Descriptor, open_blob: Callable[[], BinaryIO], upload: Upload | None = None
    ) -> None:
        endpoint = self._repository.endpoint
        attempt = 0
        while True:
            try:
                (upload or self._started()).put(blob, open_blob)
                return
            except RegistryError as error:
                if attempt >= endpoint.patience.retries or not error.passing:
                    raise
            endpoint.patience.wait(attempt)
            attempt += 1
            upload = None  # what is left of it can't be gone on with

    def _made(self, layer: SavedLayer, tell: Tell) -> _Sent:
        """Compress the layer while it goes up; from its first byte again if the upload is lost."""
        attempt = 0
        while True:
            upload = self._started()
            out = Chunks(upload, tell)
            notes: dict[str, str] = {}
            try:
                packing = compressing(cast(BinaryIO, out), self._compression, self._level, notes)
                with packing as plain:
                    found = layer.write_tar(plain)
                if found != layer.diff_id:
                    raise CorruptError(f"layer {layer.diff_id}", f"its tar has the digest {found}")
                digest = out.finish()
                break
            except LostUploadError:
                if attempt >= self._repository.endpoint.patience.retries:
                    raise
                attempt += 1
            except BaseException:
                upload.cancel()
                raise
        tell("sent", out.size, out.size)
        media_type = media_type_of(self._compression)
        blob = Descriptor(media_type=media_type, digest=digest, size=out.size, annotations=notes)
        return _Sent(blob=blob, sent=out.size, existed=False)

    def _started(self) -> Upload:
        upload = self._repository.start_upload()
        assert upload is not None  # nothing was to be mounted
        return upload

    def _blob(self, blob: Descriptor, data: bytes) -> None:
        if not self._repository.has_blob(blob):
            self._put(blob, lambda: io.BytesIO(data))


class Chunks:
    """A file that goes up in chunks as it is written, hashed on its way."""

    def __init__(self, upload: Upload, tell: Tell) -> None:
        self._upload = upload
        self._tell = tell
        self._hasher = hashlib.sha256()
        self._held = bytearray()
        self._full = max(CHUNK, upload.least)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take more; what makes a chunk goes up before this returns."""
        self._held += data
        while len(self._held) >= self._full:
            chunk = bytes(self._held[: self._full])
            del self._held[: self._full]
            self._hasher.update(chunk)
            self._upload.write(chunk)
            self.size += len(chunk)
            self._tell("sending", self.size)
        return len(data)

    def flush(self) -> None:
        """Nothing to do: short chunks would only cost requests."""

    def finish(self) -> str:
        """Send what is left and return the digest of it all."""
        rest = bytes(self._held)
        self._hasher.update(rest)
        self.size += len(rest)
        digest = f"sha256:{self._hasher.hexdigest()}"
        if rest:
            self._upload.write(rest)
        self._upload.finish(digest)
        return digest


class _Telling(io.RawIOBase):
    """A file that tells how far it has been read."""

    def __init__(self, file: BinaryIO, size: int, tell: Tell) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._tell = tell
        self._done = 0
        self._told = 0.0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        now = time.monotonic()
        if now - self._told > 0.1:
            self._told = now
            self._tell("sending", self._done, self._size)
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _descriptor(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_bytes(data), size=len(data))
