"""Saving: images of the shed go to a transport, and images go from one transport to another."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, cast

from .errors import DigestMismatchError, UnsupportedError, UsageError
from .lease import Lease
from .locking import FILES_LOCK
from .names import image_name
from .oci import Descriptor, Manifest, Platform
from .target import SavedEvent, SavedImage, SavedLayer, Written
from .transferring import in_full, open_transport
from .transport import SourceImage, SourceLayer

if TYPE_CHECKING:
    from .archive import Limits
    from .image import Image
    from .shed import Shed

SavedListener = Callable[[SavedEvent], None]
_PIECE = 1 << 20


def save_to(
    shed: Shed,
    images: Sequence[Image],
    target: str,
    compression: str | None,
    level: int | None,
    listener: SavedListener | None = None,
) -> Sequence[Written]:
    """Write images to one target; their layers stay for so long, whoever removes the images."""
    transport, rest = open_transport(shed, target)
    saved = [saved_image(shed, image) for image in images]
    lease = Lease(shed.catalog, shed.locks, "save")
    try:
        with ExitStack() as stack:
            if not shed.read_only:
                stack.enter_context(lease)
                with shed.catalog.write() as transaction:
                    for image in images:
                        now = shed.find_image(transaction, image.id)
                        if now.chain:
                            lease.hold_layer(transaction, now.drivers[0], now.chain)
            opened = stack.enter_context(
                transport.open_target(rest, compression=compression, level=level)
            )
            if listener is not None:
                opened.listener = listener
            for one in saved:
                opened.write_image(one)
        return opened.written()
    finally:
        shed.drop_layers(lease.gone)


def push(
    shed: Shed,
    image: Image,
    asked: str,
    target: str | None,
    compression: str | None,
    level: int | None,
    listener: SavedListener | None,
) -> Written | None:
    """See ``Shed.push``; ``asked`` is how the user called the image."""
    if target is None:
        target = _own_name(image, asked)
    written = save_to(shed, [image], in_full(shed, target), compression, level, listener)
    if not written:
        return None
    (one,) = written
    if not image.record.manifest and one.raw:
        _remember(shed, image, one.raw)
    return one


def _own_name(image: Image, asked: str) -> str:
    try:
        name = image_name(asked)
    except UsageError:
        name = ""
    if name not in image.names:
        match image.names:
            case (name,):
                pass
            case ():
                raise UsageError(f"image {asked} has no name; say where it is to be pushed")
            case names:
                raise UsageError(
                    f"image {asked} has several names ({', '.join(names)}); push one of them"
                )
    return f"docker://{name}"


def _remember(shed: Shed, image: Image, manifest: bytes) -> None:
    """Keep the first manifest of an image that was made here.

    It says which blobs its layers became, so that they needn't be compressed for the next push.
    """
    if shed.read_only:
        return
    with shed.locks.acquire(FILES_LOCK, shared=True):
        digest = shed.blobs.put(manifest)
        with shed.catalog.write() as transaction:
            record = transaction.image(image.id)
            if record is not None and not record.manifest:
                transaction.put_image(record._replace(manifest=digest))


def saved_image(shed: Shed, image: Image) -> SavedImage:
    """Describe an image for a target; its layers' tars are made when the target asks."""
    manifest = image.manifest
    known = _blobs_known(shed, image, manifest)
    layers: list[SavedLayer] = []
    for record in image.layer_records():
        blob, names = known.get(record.diff_id, (None, ()))
        kept = blob is not None and shed.blobs.has(blob.digest)
        layers.append(
            SavedLayer(
                diff_id=record.diff_id,
                write_tar=functools.partial(shed.write_layer_tar, record),
                descriptor=blob,
                open_blob=functools.partial(shed.blobs.open, blob.digest)
                if kept and blob
                else None,
                seen_in=names,
            )
        )
    return SavedImage(
        names=image.names,
        config=image.config,
        layers=tuple(layers),
        annotations=image.annotations,
        manifest=manifest,
    )


def _blobs_known(
    shed: Shed, image: Image, manifest: Manifest | None
) -> dict[str, tuple[Descriptor, tuple[str, ...]]]:
    """Return, by diff ID, the blobs that the image's layers came as, and names of images with them.

    Layers of an image that was made here are known from the images below it.
    """
    known: dict[str, tuple[Descriptor, tuple[str, ...]]] = {}
    wanted = set(image.record.diff_ids)
    for diff_id, blob in _pairs(image, manifest):
        known[diff_id] = blob, image.names
    for other in shed.images():
        if other.id == image.id or wanted.isdisjoint(other.record.diff_ids):
            continue
        for diff_id, blob in _pairs(other, other.manifest):
            if diff_id not in wanted:
                continue
            first, names = known.setdefault(diff_id, (blob, ()))
            if first.digest == blob.digest:
                known[diff_id] = first, (*names, *other.names)
    return known


def _pairs(image: Image, manifest: Manifest | None) -> Iterator[tuple[str, Descriptor]]:
    if manifest is not None and len(manifest.layers) == len(image.record.diff_ids):
        yield from zip(image.record.diff_ids, manifest.layers, strict=True)


# -- from one transport to another ---------------------------------------------------------------


def copy(
    shed: Shed,
    source: str,
    target: str,
    platform: str | None,
    compression: str | None,
    level: int | None,
    listener: SavedListener | None,
) -> Sequence[Written]:
    """See ``Shed.copy``."""
    source, target = in_full(shed, source), in_full(shed, target)
    origin, place = open_transport(shed, source)
    transport, rest = open_transport(shed, target)
    text = platform or shed.config["platform"]
    with origin.open_source(place) as opened:
        images = opened.images(Platform.parse(text) if text else None)
        saved = [copied_image(image, shed.limits) for image in images]
        with transport.open_target(rest, compression=compression, level=level) as out:
            if listener is not None:
                out.listener = listener
            for one in saved:
                out.write_image(one)
        return out.written()


def copied_image(image: SourceImage, limits: Limits) -> SavedImage:
    """Describe a source's image for a target.

    Raises:
        UnsupportedError: it is a bare root file system, whose config would have to be made.
    """
    config = image.config
    if config is None:
        raise UnsupportedError(
            f"{image.origin or image.reference} is a root file system, no image; import it, then "
            "push or save it"
        )
    return SavedImage(
        names=image.names,
        config=config,
        layers=tuple(
            SavedLayer(
                diff_id=diff_id,
                write_tar=functools.partial(_write_plain, layer, diff_id, limits),
                descriptor=layer.descriptor,
                open_blob=None if layer.descriptor is None else layer.open,
                seen_in=image.names,
            )
            for layer, diff_id in zip(image.layers, config.diff_ids, strict=True)
        ),
        annotations={} if image.manifest is None else image.manifest.annotations,
        manifest=image.manifest,
    )


def _write_plain(layer: SourceLayer, diff_id: str, limits: Limits, out: BinaryIO) -> str:
    """Write the uncompressed tar of a source's layer, verified."""
    from .archive import HashingReader, decompressor

    hasher = hashlib.new(diff_id.partition(":")[0])
    with layer.open() as source:
        blob = layer.descriptor
        raw = HashingReader(source, blob.digest.partition(":")[0] if blob else "sha256")
        with decompressor(cast(BinaryIO, raw), layer.compression, limits=limits) as plain:
            while data := plain.read(_PIECE):
                hasher.update(data)
                out.write(data)
        raw.drain()
    if blob is not None and raw.digest != blob.digest:
        raise DigestMismatchError("layer", blob.digest, raw.digest)
    return f"{hasher.name}:{hasher.hexdigest()}"
