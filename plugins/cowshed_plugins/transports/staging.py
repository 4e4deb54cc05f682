"""Writing images aside: a private layout, from which a target publishes at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import attrs

from cowshed.blobs import BlobStore
from cowshed.errors import CorruptError, DigestMismatchError, ReadOnlyError, StoreError
from cowshed.oci import (
    Descriptor,
    Manifest,
    build_manifest,
    layer_compression,
    layer_media_type,
)
from cowshed.oci.media import OCI_CONFIG, OCI_MANIFEST
from cowshed.target import SavedEvent, SavedImage, SavedLayer, Written

from .compression import Format, check_compression, compressing, fits, media_type_of

_PREFIX = ".cowshed-"


@attrs.frozen(kw_only=True)
class StagedImage:
    """One image whose blobs are staged."""

    image: SavedImage
    manifest: Descriptor
    layers: tuple[Descriptor, ...]


class Staging:
    """A private directory below ``parent`` with blobs in it; it vanishes on ``close``.

    It is locked while in use, so that one left by a killed process is known and swept.
    """

    def __init__(
        self,
        parent: Path,
        compression: Format,
        level: int,
        keep: Callable[[Descriptor], bool] = lambda blob: False,
    ) -> None:
        """``keep`` says which blobs are taken as they came rather than compressed anew."""
        _sweep(parent)
        try:
            self.path, self._lock = _make(parent)
        except OSError as error:
            raise ReadOnlyError(f"can't write to {parent}: {error.strerror}") from error
        self.compression: Format = compression
        self._level = level
        self._keep = keep
        self.blobs = BlobStore(self.path, durable=False)
        self.images: list[StagedImage] = []
        self.written: list[Written] = []
        self.listener: Callable[[SavedEvent], None] = lambda event: None
        self._layers: dict[str, Descriptor] = {}

    def add(
        self,
        image: SavedImage,
        find: Callable[[str], Descriptor | None] = lambda diff_id: None,
        has: Callable[[Descriptor], bool] = lambda blob: False,
    ) -> None:
        """Stage one image's blobs but those that are there already.

        ``find`` gives a layer's blob by its diff ID, ``has`` says whether a blob is there.
        """
        image.config.check_layers(len(image.layers))
        layers: list[Descriptor] = []
        existing = sent = 0
        for index, layer in enumerate(image.layers):
            there = self._layers.get(layer.diff_id)
            came_as = layer.descriptor
            if there is None and came_as is not None and self._keep(came_as) and has(came_as):
                there = own_descriptor(came_as)
            blob = there or self._kept(layer)
            if blob is None:
                blob = there = find(layer.diff_id)
            if blob is None:
                blob = self._write(layer)
            if there is None:
                sent += blob.size
            else:
                existing += 1
            self._layers[layer.diff_id] = blob
            layers.append(blob)
            self.listener(
                SavedEvent(
                    state="sent" if there is None else "exists",
                    layer=layer.diff_id, index=index, count=len(image.layers),
                    done=blob.size, total=blob.size,
                )
            )  # fmt: skip
        config = Descriptor(
            media_type=OCI_CONFIG,
            digest=self.blobs.put(image.config.raw),
            size=len(image.config.raw),
        )
        original = same_manifest(image, layers)
        raw = build_manifest(config, layers, image.annotations) if not original else original.raw
        manifest = Descriptor(
            media_type=original.media_type if original else OCI_MANIFEST,
            digest=self.blobs.put(raw),
            size=len(raw),
            platform=image.config.platform,
        )
        self.images.append(StagedImage(image=image, manifest=manifest, layers=tuple(layers)))
        self.written.append(
            Written(
                manifest=manifest,
                raw=raw,
                layers=len(layers),
                existing=existing,
                sent=sent,
                total=sum(layer.size for layer in layers),
            )
        )

    def _kept(self, layer: SavedLayer) -> Descriptor | None:
        """Take the blob that the layer came as, if there is one and it is wanted."""
        blob = layer.descriptor
        if blob is None or layer.open_blob is None or not self._keep(blob):
            return None
        try:
            with layer.open_blob() as source, self.blobs.writer(blob) as writer:
                writer.restart()
                while data := source.read(1 << 20):
                    writer.write(data)
                writer.commit()
        except DigestMismatchError:
            return None  # damaged on disk, and the layer itself may be well
        return own_descriptor(blob)

    def _write(self, layer: SavedLayer) -> Descriptor:
        annotations: dict[str, str] = {}
        with self.blobs.writer() as writer:
            out = _Out(writer.write)
            with compressing(out, self.compression, self._level, annotations) as plain:  # type: ignore[arg-type]
                found = layer.write_tar(plain)
            if found != layer.diff_id:
                raise CorruptError(f"layer {layer.diff_id}", f"its tar has the digest {found}")
            size = writer.offset
            digest = writer.commit()
        if self.compression == "none" and digest != layer.diff_id:
            raise CorruptError(f"layer {layer.diff_id}", f"its tar has the digest {digest}")
        media_type = media_type_of(self.compression)
        return Descriptor(media_type=media_type, digest=digest, size=size, annotations=annotations)

    def close(self) -> None:
        """Remove everything that hasn't been moved out."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def keeps(compression: str | None, level: int | None) -> Callable[[Descriptor], bool]:
    """Return whether a blob can stay as it is if layers are to be compressed so."""

    def keep(blob: Descriptor) -> bool:
        return level is None and (
            compression is None or fits(blob, check_compression(compression, None)[0])
        )

    return keep


def own_descriptor(blob: Descriptor) -> Descriptor:
    """Return how a manifest that is made here names a blob, wherever that came from."""
    media_type = layer_media_type(layer_compression(blob.media_type))
    return attrs.evolve(blob, media_type=media_type, urls=())


def same_manifest(image: SavedImage, layers: Sequence[Descriptor]) -> Manifest | None:
    """Return the manifest that the image came with, if it still says what is written."""
    manifest = image.manifest
    if (
        manifest is None
        or manifest.config.digest != image.config.digest
        or [layer.digest for layer in manifest.layers] != [layer.digest for layer in layers]
    ):
        return None
    return manifest


class _Out:
    """As much of a file as writers of tars and compressors need."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.write = write

    def flush(self) -> None:
        """Nothing is held back."""


def write_archive(out: BinaryIO, staging: Staging, documents: Mapping[str, bytes]) -> None:
    """Write a tar of the staged blobs and ``documents``; equal contents give equal bytes."""
    digests = sorted(staging.blobs.iter())
    names = {f"blobs/{digest.replace(':', '/')}": digest for digest in digests}
    _directory(out, "blobs/")
    _directory(out, "blobs/sha256/")
    for name in sorted({*names, *documents}):
        if name in documents:
            data = documents[name]
            out.write(_header(name, len(data)))
            out.write(data)
            size = len(data)
        else:
            size = staging.blobs.size(names[name])
            out.write(_header(name, size))
            with staging.blobs.open(names[name]) as blob:
                shutil.copyfileobj(blob, out, 1 << 20)
        out.write(bytes(-size % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def _directory(out: BinaryIO, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    out.write(info.tobuf(tarfile.PAX_FORMAT))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def publish_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file aside and rename it into place, durably; nothing remains of a failure."""
    from cowshed.partials import storing, sync_directory

    aside = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
    try:
        with storing():
            with aside.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def parent_directory(path: Path) -> Path:
    """Return the directory a file is to be written to; it must exist."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise StoreError(f"directory {parent} doesn't exist; make it first")
    if path.is_dir():
        raise StoreError(f"{path} is a directory; a file is to be written")
    return parent


def _make(parent: Path) -> tuple[Path, int]:
    """Make and lock a directory, again if a sweep comes between the two."""
    while True:
        path = parent / f"{_PREFIX}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return path, descriptor
            os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove what killed processes left here."""
    for left in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
