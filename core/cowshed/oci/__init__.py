"""OCI's documents: digests, descriptors, manifests, indexes and image configs.

What comes from outside is parsed and validated here, once; see ``document`` for the bounds.
"""

from __future__ import annotations

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
