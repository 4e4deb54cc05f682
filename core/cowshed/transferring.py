"""Import and save: between transports and the shed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from .errors import CowshedError, NotFoundError, UsageError
from .importing import Imported, Importer, Listener
from .lease import Lease
from .names import image_name
from .oci import Platform
from .transport import SavedImage, SavedLayer, SourceImage, Transport, split_reference

if TYPE_CHECKING:
    from .image import Image
    from .shed import Shed


def import_from(
    shed: Shed,
    source: str,
    name: str | None,
    driver: str,
    platform: str | None,
    listener: Listener | None,
) -> list[Imported]:
    """Import every image that ``source`` offers for ``platform``."""
    transport, rest = _transport(shed, source)
    shed.driver(driver)  # a driver that can't run is said before anything is read
    text = platform or shed.config["platform"]
    wanted = Platform.parse(text) if text else None
    imported: list[Imported] = []
    with transport.open_source(rest) as opened, shed.making(driver):
        found = opened.images(wanted)
        if name is not None and len(found) > 1:
            listed = ", ".join(image.reference for image in found)
            raise UsageError(
                f"{source} holds {len(found)} images ({listed}); name one of them in the source"
            )
        for image in found:
            names = (name,) if name is not None else _valid_names(image.names)
            imported.append(_bring(shed, Importer(shed, driver, listener), image, names))
    return imported


def _bring(shed: Shed, importer: Importer, image: SourceImage, names: Sequence[str]) -> Imported:
    """Import one image, its layers fetched ahead where they come from far away."""
    if image.config is None or all(layer.open_at is None for layer in image.layers):
        return importer.run(image, names)
    from .fetching import Fetcher

    image.config.check_layers(len(image.layers))
    blobs = shed.blobs
    blobs.partials.sweep(*shed.partial_limits)

    def told(index: int, done: int, complete: bool) -> None:
        importer.tell_fetched(image.layers[index], index, len(image.layers), done, complete)

    with Fetcher(
        image,
        blobs,
        lambda index: importer.wants(image, index),
        keep=shed.config["keep_blobs"],
        told=told,
    ) as fetcher:
        done = importer.run(fetcher.image, names)
    return attrs.evolve(
        done,
        received=fetcher.received,
        total=sum(layer.descriptor.size for layer in image.layers if layer.descriptor),
    )


def _valid_names(names: Sequence[str]) -> tuple[str, ...]:
    """Keep those names of a foreign archive that can be ours; its author is not our user."""
    valid: list[str] = []
    for name in names:
        try:
            valid.append(image_name(name))
        except UsageError:
            continue
    return tuple(valid)


def save_to(
    shed: Shed, images: Sequence[Image], target: str, compression: str, level: int | None
) -> None:
    """Write images to one target; their layers stay for so long, whoever removes the images."""
    transport, rest = _transport(shed, target)
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
            for one in saved:
                opened.write_image(one)
    finally:
        shed.drop_layers(lease.gone)


def saved_image(shed: Shed, image: Image) -> SavedImage:
    """Describe an image for a target; its layers' tars are made when the target asks."""
    layers = [
        SavedLayer(
            diff_id=record.diff_id,
            write_tar=functools.partial(shed.write_layer_tar, record),
        )
        for record in image.layer_records()
    ]
    return SavedImage(
        names=image.names,
        config=image.config,
        layers=tuple(layers),
        annotations=image.annotations,
    )


def _transport(shed: Shed, reference: str) -> tuple[Transport, str]:
    name, rest = split_reference(reference)
    known = shed.plugins.transports
    try:
        spec = known.find(name)
    except NotFoundError as error:
        hint = ", ".join(sorted(known))
        if not rest and os.path.exists(name):
            raise UsageError(
                f"{name!r} needs to say what it is: one of {hint}, as in oci:{name}"
            ) from None
        raise UsageError(
            f"unknown transport {name!r} ({hint}){str(error)[len(error.message) :]}"
        ) from None
    transport = spec.load()()
    transport.configure(shed.config.plugin_options(known.plugin_of(name)), _known_to(shed))
    return transport, rest


def _known_to(shed: Shed) -> Callable[[str], bytes | None]:
    """Return a look-up of small blobs that the shed has."""

    def read(digest: str) -> bytes | None:
        try:
            return shed.blobs.read(digest)
        except CowshedError:
            return None  # missing or damaged: whoever asks has another source

    return read
