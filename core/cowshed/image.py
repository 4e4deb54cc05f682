"""Image: an ordered stack of sealed layers, a config and a history."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import CorruptError, CowshedError, InUseError, NotFoundError
from .locking import FILES_LOCK
from .names import image_name
from .records import ImageRecord, LayerRecord

if TYPE_CHECKING:
    from .layer import HistoryEntry, Layer
    from .oci import ImageConfig, Manifest
    from .shed import Shed


class Image:
    """One image of a shed, as it was when it was looked up."""

    def __init__(self, shed: Shed, record: ImageRecord, names: tuple[str, ...]) -> None:
        self._shed = shed
        self.record = record
        #: All its names, ``repository:tag``.
        self.names = names

    @property
    def id(self) -> str:
        """Digest of its config in hex (image-spec, config.md, "ImageID")."""
        return self.record.id

    @property
    def size(self) -> int:
        """Bytes of all its layers' files."""
        return self.record.size

    @property
    def created(self) -> str:
        """When it was made, RFC 3339, or empty if it doesn't say."""
        return self.record.created

    @functools.cached_property
    def config(self) -> ImageConfig:
        """Its config. CorruptError: the blob is damaged or missing."""
        from .oci import ImageConfig

        try:
            return ImageConfig.parse(self._shed.blobs.read(f"sha256:{self.id}"))
        except NotFoundError:
            raise CorruptError(f"image {self.id[:12]}", "its config is missing") from None

    @functools.cached_property
    def manifest(self) -> Manifest | None:
        """The manifest it came with; None if it was made here, or the manifest is lost."""
        if not self.record.manifest:
            return None
        from .oci import Manifest

        try:
            return Manifest.parse(self._shed.blobs.read(self.record.manifest))
        except NotFoundError:
            return None

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations of the manifest it came with."""
        return {} if self.manifest is None else self.manifest.annotations

    def layer_records(self) -> list[LayerRecord]:
        """Return the catalog's records of its layers, base first, in a driver that has them."""
        records: list[LayerRecord] = []
        with self._shed.catalog.read() as transaction:
            # It may have moved since it was looked up.
            now = transaction.image(self.id)
            if now is None:
                raise NotFoundError("image", self.names[0] if self.names else self.id[:12])
            driver = now.drivers[0]
            for chain in self.record.chains:
                record = transaction.layer(driver, chain)
                if record is None:
                    raise CorruptError(
                        f"image {self.id[:12]}", f"layer {chain[:12]} is missing in {driver}"
                    )
                records.append(record)
        return records

    @property
    def layers(self) -> list[Layer]:
        """Its layers, base first."""
        from .layer import Layer

        return [Layer.of(record) for record in self.layer_records()]

    def history(self) -> list[HistoryEntry]:
        """Return every step in the order of making, oldest first, with its layer."""
        from .layer import HistoryEntry

        layers = iter(self.layers)
        return [
            HistoryEntry(
                created=step.created or "",
                created_by=step.created_by,
                author=step.author,
                comment=step.comment,
                size=0 if layer is None else layer.size,
                layer=layer,
            )
            for step, diff_id in self.config.steps()
            for layer in (None if diff_id is None else next(layers),)
        ]

    def inspect(self) -> dict[str, Any]:
        """Return what ``docker image inspect`` would, and what only Cowshed knows."""
        config = self.config
        last = config.history[-1] if config.history else None
        return {
            "Id": f"sha256:{self.id}",
            "RepoTags": list(self.names),
            "RepoDigests": [],
            "Comment": last.comment if last is not None else "",
            "Created": self.created,
            "Author": config.author,
            "Architecture": config.architecture,
            "Variant": config.platform.variant,
            "Os": config.os,
            "Size": self.size,
            "Config": dict(config.config),
            "GraphDriver": {
                "Name": self.record.drivers[0] if self.record.drivers else "",
                "Data": {"Drivers": list(self.record.drivers)},
            },
            "RootFS": {"Type": "layers", "Layers": list(self.record.diff_ids)},
            "Manifest": self.record.manifest,
            "Annotations": dict(self.annotations),
            "Layers": [
                {
                    "DiffId": layer.diff_id,
                    "ChainId": f"sha256:{layer.chain}",
                    "Size": layer.size,
                    "TarSize": layer.tar_size,
                    "Entries": layer.entries,
                }
                for layer in self.layers
            ],
        }


def list_images(shed: Shed) -> list[Image]:
    """Return all images, newest first."""
    with shed.catalog.read() as transaction:
        names: dict[str, list[str]] = {}
        for name, id in transaction.image_names():
            names.setdefault(id, []).append(name)
        images = [
            Image(shed, record, tuple(names.get(record.id, ()))) for record in transaction.images()
        ]
    return sorted(images, key=lambda image: image.record.added_ns, reverse=True)


def remove_image(shed: Shed, reference: str, *, force: bool) -> list[str]:
    """See ``Shed.remove_image``."""
    lines: list[str] = []
    with shed.catalog.write() as transaction:
        record = shed.find_image(transaction, reference)
        id = record.id
        names = [name for name, named in transaction.image_names() if named == id]
        by_name = _names_it(reference, names)
        doomed_names = [image_name(reference)] if by_name else names
        last = len(doomed_names) == len(names)
        if not by_name and len(names) > 1 and not force:
            raise InUseError(
                f"image {id[:12]} has several names ({', '.join(names)}); "
                "remove them one by one or use --force"
            )
        uses = transaction.image_uses(id)
        if last and uses and not force:
            raise InUseError(
                f"image {reference} is in use by {uses} container{'s' if uses > 1 else ''}; "
                "remove them first or use --force"
            )
        for name in doomed_names:
            transaction.unname_image(name)
            lines.append(f"Untagged: {name}")
        gone: list[LayerRecord] = []
        if last:
            transaction.delete_image(id)
            lines.append(f"Deleted: sha256:{id}")
            if record.chain:
                for driver in record.drivers:
                    gone += transaction.release_layer(driver, record.chain)
            lines += [f"Deleted: sha256:{layer.chain}" for layer in gone]
    if last:
        shed.drop_layers(gone)
        _drop_files(shed, record, gone)
        shed.plugins.notify("image_removed", shed=shed, image=id)
    return lines


def _names_it(reference: str, names: Sequence[str]) -> bool:
    try:
        return image_name(reference) in names
    except CowshedError:
        return False


def _drop_files(shed: Shed, record: ImageRecord, gone: list[LayerRecord]) -> None:
    """Remove the blobs and recipes that were this image's alone, unless somebody is importing."""
    from .sweep import blobs_of, files_needed

    lock = shed.locks.attempt(FILES_LOCK)
    if lock is None:
        return  # gc will
    with lock:
        blobs, diff_ids = files_needed(shed)
        for layer in gone:
            if layer.diff_id not in diff_ids:
                shed.recipes.remove(layer.diff_id)
        for digest in blobs_of(shed, record) - blobs:
            # gc may have run since the image left the catalog.
            with contextlib.suppress(NotFoundError):
                shed.blobs.delete(digest)
