"""Layer: one read-only step of an image, as people ask about it."""

from __future__ import annotations

from typing import NamedTuple

from .records import LayerRecord


class Layer(NamedTuple):
    """One sealed layer of an image."""

    #: Digest of its uncompressed tar, ``sha256:…``.
    diff_id: str
    #: Chain ID in hex: this layer and all below it.
    chain: str
    #: Bytes of its files.
    size: int
    #: Bytes of its uncompressed tar.
    tar_size: int
    entries: int
    driver: str

    @classmethod
    def of(cls, record: LayerRecord) -> Layer:
        return cls(
            diff_id=record.diff_id,
            chain=record.chain,
            size=record.size,
            tar_size=record.tar_size,
            entries=record.entries,
            driver=record.driver,
        )


class HistoryEntry(NamedTuple):
    """One step of an image's making, with the layer it brought."""

    #: RFC 3339, or empty.
    created: str
    created_by: str
    author: str
    comment: str
    #: Bytes of the layer's files; 0 for a step that changed the config only.
    size: int
    #: None for a step without a layer.
    layer: Layer | None
