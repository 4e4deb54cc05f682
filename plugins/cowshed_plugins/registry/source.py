"""RegistrySource: an image in a registry, described without fetching any of its layers."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, cast

from cowshed.errors import CowshedError, NotFoundError, SourceError
from cowshed.oci import (
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    choose,
    layer_compression,
    manifests_in,
    parse_document,
)
from cowshed.transport import Source, SourceImage, SourceLayer

from .client import Repository
from .errors import RegistryError
from .reference import Reference

_BUFFER = 256 << 10


class RegistrySource(Source):
    """One reference, looked up in the mirrors there are and then in the registry itself."""

    def __init__(
        self,
        reference: Reference,
        places: Sequence[Repository],
        known: Callable[[str], bytes | None],
        close: Callable[[], None],
    ) -> None:
        """``known`` gives a document that is here already, by its digest."""
        self._reference = reference
        self._places = list(places)
        self._known = known
        self._close = close

    def close(self) -> None:
        self._close()

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        raw, media_type = self._found()
        document = parse_document(raw, media_type)
        if isinstance(document, Index):
            found = manifests_in(document.manifests, self._manifest, str(self._reference))
            item = choose(found, platform)
            manifest = Manifest.parse(self._manifest(item), item.media_type)
        else:
            manifest = document
        config = ImageConfig.parse(self._config(manifest.config))
        config.check_layers(len(manifest.layers))
        config.check_platform(platform, str(self._reference))
        name = self._reference.familiar
        return [
            SourceImage(
                reference=name,
                manifest=manifest,
                config=config,
                layers=tuple(
                    self._layer(layer, diff_id)
                    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
                ),
                origin=str(self._reference),
            )
        ]

    def _found(self) -> tuple[bytes, str | None]:
        """Return the document that the reference names, from the first place that has it.

        Places before that one are left out from now on: what they serve is another image.
        """
        if self._reference.digest:
            raw = self._known(self._reference.digest)
            if raw is not None:
                return raw, None
        while True:
            try:
                found = self._places[0].manifest(self._reference.locator)
                return found.raw, found.media_type
            except (RegistryError, SourceError, NotFoundError) as error:
                if len(self._places) == 1:
                    raise self._named(error) from None
                self._places.pop(0)

    def _named(self, error: CowshedError) -> CowshedError:
        """A missing image goes by the name that the user gave it."""
        return (
            NotFoundError("image", str(self._reference))
            if isinstance(error, NotFoundError)
            else error
        )

    def _manifest(self, item: Descriptor) -> bytes:
        return self._known(item.digest) or self._anywhere(
            lambda place: place.manifest(item.digest).raw
        )

    def _config(self, item: Descriptor) -> bytes:
        return self._known(item.digest) or self._anywhere(lambda place: place.document(item))

    def _anywhere(self, get: Callable[[Repository], bytes]) -> bytes:
        for place in self._places[:-1]:
            try:
                return get(place)
            except (RegistryError, SourceError, NotFoundError):
                continue
        return get(self._places[-1])

    def _layer(self, layer: Descriptor, diff_id: str) -> SourceLayer:
        def open_at(offset: int) -> BinaryIO:
            from .download import BlobReader

            return cast(BinaryIO, BlobReader(self._places, layer, offset))

        def open_ranges(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
            from .ranges import read_ranges

            return read_ranges(self._places, layer, ranges)

        return SourceLayer(
            descriptor=layer,
            diff_id=diff_id,
            compression=layer_compression(layer.media_type),
            open=functools.partial(_buffered, open_at),
            open_at=open_at,
            open_ranges=open_ranges,
        )


def _buffered(open_at: Callable[[int], BinaryIO]) -> BinaryIO:
    return io.BufferedReader(cast(io.RawIOBase, open_at(0)), _BUFFER)
