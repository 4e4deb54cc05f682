"""OCI's documents: digests, descriptors, manifests, indexes and image configs.

What comes from outside is parsed and validated here, once; see ``document`` for the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import HistoryStep, ImageConfig, chain_ids, new_config
    from .descriptor import Descriptor
    from .digest import Digest, digest_bytes, parse_digest
    from .document import MAX_DOCUMENT
    from .manifest import (
        Index,
        Manifest,
        build_index,
        build_manifest,
        choose,
        manifests_in,
        parse_document,
    )
    from .media import LayerCompression, layer_compression, layer_media_type
    from .platform import Platform

#: Looked up on first use: who runs a container reads a config and no manifest.
_HOMES = {
    "HistoryStep": "config",
    "ImageConfig": "config",
    "chain_ids": "config",
    "new_config": "config",
    "Descriptor": "descriptor",
    "Digest": "digest",
    "digest_bytes": "digest",
    "parse_digest": "digest",
    "MAX_DOCUMENT": "document",
    "Index": "manifest",
    "Manifest": "manifest",
    "build_index": "manifest",
    "build_manifest": "manifest",
    "choose": "manifest",
    "manifests_in": "manifest",
    "parse_document": "manifest",
    "LayerCompression": "media",
    "layer_compression": "media",
    "layer_media_type": "media",
    "Platform": "platform",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return found


__all__ = [
    "MAX_DOCUMENT",
    "Descriptor",
    "Digest",
    "HistoryStep",
    "ImageConfig",
    "Index",
    "LayerCompression",
    "Manifest",
    "Platform",
    "build_index",
    "build_manifest",
    "chain_ids",
    "choose",
    "digest_bytes",
    "layer_compression",
    "layer_media_type",
    "manifests_in",
    "new_config",
    "parse_digest",
    "parse_document",
]
