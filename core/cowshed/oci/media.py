"""Media types that are read and written (image-spec, media-types.md; Docker schema 2)."""

from __future__ import annotations

from typing import Literal

from ..errors import UnsupportedError

LayerCompression = Literal["none", "gzip", "zstd"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
DOCKER_LAYER_ZSTD = f"{DOCKER_LAYER}.zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

_LAYERS: dict[str, LayerCompression] = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_NONDISTRIBUTABLE: "none",
    f"{OCI_NONDISTRIBUTABLE}+gzip": "gzip",
    f"{OCI_NONDISTRIBUTABLE}+zstd": "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN: "none",
    f"{DOCKER_FOREIGN}.gzip": "gzip",
}
_WRITTEN: dict[LayerCompression, str] = {
    "none": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}


def layer_compression(media_type: str) -> LayerCompression:
    """Return how a layer of this media type is compressed.

    Raises:
        UnsupportedError: not a layer's media type, or an encrypted or otherwise unknown one.
    """
    compression = _LAYERS.get(media_type)
    if compression is None:
        raise UnsupportedError(
            f"layer media type {media_type!r} is not supported; "
            "tar layers, plain or with gzip or zstd, are"
        )
    return compression


def layer_media_type(compression: LayerCompression) -> str:
    """Return the OCI media type of a layer compressed that way."""
    return _WRITTEN[compression]


def is_foreign(media_type: str) -> bool:
    """Say whether layers of this type are meant to be fetched from elsewhere."""
    return media_type.startswith((OCI_NONDISTRIBUTABLE, DOCKER_FOREIGN))
