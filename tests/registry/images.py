"""Images made here and put into registries by plain requests, independently of our client."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import urllib3

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def noise(size: int, seed: object = 0) -> bytes:
    """Return bytes that don't compress, the same for the same seed."""
    return random.Random(str(seed)).randbytes(size)


def make_tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o644, 1_600_000_000
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(tar: bytes) -> bytes:
    return gzip.compress(tar, 1, mtime=0)


@attrs.frozen
class Blob:
    data: bytes = attrs.field(repr=False)
    media_type: str
    annotations: Mapping[str, str] = {}

    @property
    def digest(self) -> str:
        return digest_of(self.data)

    @property
    def descriptor(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.data),
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


@attrs.frozen
class MadeImage:
    """An image with everything it consists of."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    tars: tuple[bytes, ...] = attrs.field(repr=False)

    @property
    def id(self) -> str:
        return self.config.digest

    @property
    def diff_ids(self) -> list[str]:
        return [digest_of(tar) for tar in self.tars]

    @property
    def size(self) -> int:
        return sum(len(layer.data) for layer in self.layers)


def make_image(
    *layers: Mapping[str, bytes],
    docker: bool = False,
    platform: str = "linux/amd64",
    compress: Callable[[bytes], bytes] = zipped,
    layer_type: str = "",
    annotations: Sequence[Mapping[str, str]] = (),
    **extra: Any,
) -> MadeImage:
    """Make an image of layers given as files; ``extra`` goes into the manifest."""
    os, architecture = platform.split("/")
    tars = tuple(make_tar(files) for files in layers)
    kind = layer_type or (DOCKER_LAYER if docker else f"{OCI_LAYER}+gzip")
    blobs = tuple(
        Blob(compress(tar), kind, annotations[number] if annotations else {})
        for number, tar in enumerate(tars)
    )
    config = Blob(
        json.dumps(
            {
                "os": os,
                "architecture": architecture,
                "config": {"Cmd": ["/bin/true"]},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            }
        ).encode(),
        DOCKER_CONFIG if docker else OCI_CONFIG,
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.descriptor,
        "layers": [blob.descriptor for blob in blobs],
        **extra,
    }
    return MadeImage(Blob(json.dumps(document).encode(), media_type), config, blobs, tars)


def make_index(images: Mapping[str, MadeImage], *, docker: bool = False) -> Blob:
    """Make an index of images by platform."""
    media_type = DOCKER_INDEX if docker else OCI_INDEX
    manifests = []
    for platform, image in images.items():
        os, architecture = platform.split("/")
        manifests.append(
            {
                **image.manifest.descriptor,
                "platform": {"os": os, "architecture": architecture},
            }
        )
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return Blob(json.dumps(document).encode(), media_type)


class Publisher:
    """Puts blobs and manifests into a registry."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None, ca: str = "") -> None:
        self._base = base
        self._headers = dict(headers or {})
        self._pool = urllib3.PoolManager(**({"ca_certs": ca} if ca else {}))

    def _send(self, method: str, url: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = {**self._headers, **more.pop("headers", {})}
        answer = self._pool.request(
            method, url, headers=headers, redirect=False, retries=False, **more
        )
        assert answer.status < 300, (method, url, answer.status, answer.data)
        return answer

    def blob(self, repository: str, data: bytes) -> None:
        answer = self._send("POST", f"{self._base}/v2/{repository}/blobs/uploads/")
        where = answer.headers["Location"]
        sign = "&" if "?" in where else "?"
        self._send("PUT", f"{where}{sign}digest={digest_of(data)}", body=data)

    def manifest(self, repository: str, locator: str, manifest: Blob) -> None:
        self._send(
            "PUT",
            f"{self._base}/v2/{repository}/manifests/{locator}",
            body=manifest.data,
            headers={"Content-Type": manifest.media_type},
        )

    def image(self, repository: str, image: MadeImage, tag: str = "") -> None:
        for blob in (image.config, *image.layers):
            self.blob(repository, blob.data)
        self.manifest(repository, tag or image.manifest.digest, image.manifest)

    def get_manifest(self, repository: str, locator: str) -> Blob:
        answer = self._send(
            "GET",
            f"{self._base}/v2/{repository}/manifests/{locator}",
            headers={"Accept": ", ".join([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX])},
        )
        return Blob(answer.data, answer.headers["Content-Type"])

    def get_blob(self, repository: str, digest: str) -> bytes:
        return self._send("GET", f"{self._base}/v2/{repository}/blobs/{digest}").data
