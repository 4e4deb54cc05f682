"""Import: from transports into the shed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from .errors import CowshedError, NotFoundError, UsageError
from .importing import Imported, Importer, Listener
from .names import image_name
from .oci import Platform
from .transport import SourceImage, Transport, split_reference

if TYPE_CHECKING:
    from .holdings import Holdings
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
    transport, rest = open_transport(shed, source)
    if not transport.far:
        shed.driver(driver)  # one that can't run is said before anything is read
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
    image.config.check_layers(len(image.layers))
    total = sum(layer.descriptor.size for layer in image.layers if layer.descriptor)
    # Where all of it is here, neither the driver nor what fetches is needed: half of the time that
    # a pull of nothing new would take is their import.
    if importer.has(image):
        return attrs.evolve(importer.run(image, names), total=total)
    shed.driver(importer.driver)
    from .fetching import Fetcher
    from .lease import Lease

    blobs = shed.blobs
    blobs.partials.sweep(*shed.partial_limits)

    def told(index: int, done: int, complete: bool) -> None:
        importer.tell_fetched(image.layers[index], index, len(image.layers), done, complete)

    @functools.cache
    def holdings() -> Holdings:
        from .holdings import Holdings

        return Holdings(shed, importer.driver, lease)

    # Layers from which contents are taken are held until the end.
    lease = Lease(shed.catalog, shed.locks, "pull")
    try:
        with (
            lease,
            Fetcher(
                image,
                blobs,
                lambda index: importer.wants(image, index),
                limits=shed.limits,
                holdings=holdings,
                keep=shed.config["keep_blobs"],
                told=told,
            ) as fetcher,
        ):
            done = importer.run(fetcher.image, names)
    finally:
        shed.drop_layers(lease.gone)
    return attrs.evolve(done, received=fetcher.received, total=total)


def _valid_names(names: Sequence[str]) -> tuple[str, ...]:
    """Keep those names of a foreign archive that can be ours; its author is not our user."""
    valid: list[str] = []
    for name in names:
        try:
            valid.append(image_name(name))
        except UsageError:
            continue
    return tuple(valid)


#: What a reference without a transport means to ``pull``, ``push`` and ``copy``.
_BARE = "docker"


def in_full(shed: Shed, reference: str) -> str:
    """Return a reference with its transport: ``debian:12`` is an image in a registry.

    Images may be called like transports: ``docker:24`` is one, ``docker://docker:24`` in full.
    """
    name, colon, rest = reference.partition(":")
    known = shed.plugins.transports
    named = bool(colon) and (name in known or name in known.clashes)
    if named and (name != _BARE or rest.startswith("//")):
        return reference
    return f"{_BARE}://{reference}"


def open_transport(shed: Shed, reference: str) -> tuple[Transport, str]:
    """Return the transport that a reference names, configured, and the rest of the reference.

    Raises:
        UsageError: there is no such transport.
    """
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
