"""Writing OCI image layouts with the standard library (image-spec, image-layout.md), so that what
is measured or checked on them doesn't rest on the code under test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import attrs

REF_NAME = "org.opencontainers.image.ref.name"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_WHEN = "2023-11-14T22:13:20Z"


@attrs.frozen
class Layer:
    """One layer of a layout."""

    descriptor: Mapping[str, Any]
    diff_id: str
    #: What the image's history says of it.
    words: str


class LayoutWriter:
    """A layout in the making, or one that gets more images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests: list[dict[str, Any]] = []
        (root / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        if (root / "index.json").exists():
            self._manifests = json.loads((root / "index.json").read_text())["manifests"]

    def layer(
        self, words: str, tar: bytes | Callable[[BinaryIO], None], *, compress: bool = True
    ) -> Layer:
        """Add a layer: the bytes of its tar, or what writes them."""
        aside = self.root / "blobs/partial"
        with aside.open("wb") as file:
            packed = _Hashing(file)
            if compress:
                with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=3, mtime=0) as out:
                    plain = _Hashing(out)
                    _write(tar, plain)
            else:
                plain = packed
                _write(tar, plain)
        digest = packed.digest
        aside.rename(self.root / "blobs/sha256" / digest.removeprefix("sha256:"))
        media_type = f"{LAYER}+gzip" if compress else LAYER
        descriptor = {"mediaType": media_type, "digest": digest, "size": packed.size}
        return Layer(descriptor, plain.digest, words)

    def image(self, tag: str, layers: Sequence[Layer]) -> None:
        """Add an image of layers that were added before."""
        config = {
            "created": _WHEN,
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Cmd": ["/srv/app/main.py"], "WorkingDir": "/srv/app"},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _WHEN, "created_by": layer.words} for layer in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._json(_CONFIG, config),
            "layers": [layer.descriptor for layer in layers],
        }
        descriptor = self._json(_MANIFEST, manifest)
        descriptor["annotations"] = {REF_NAME: tag}
        self._manifests.append(descriptor)

    def finish(self) -> None:
        """Write the index."""
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.root / "index.json").write_text(json.dumps(index))

    def _json(self, media_type: str, document: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _write(tar: bytes | Callable[[BinaryIO], None], out: BinaryIO) -> None:
    if isinstance(tar, bytes):
        out.write(tar)
    else:
        tar(out)


class _Hashing(io.RawIOBase, BinaryIO):
    """Passes on what is written, and keeps its digest and size."""

    def __init__(self, out: IO[bytes] | gzip.GzipFile) -> None:
        super().__init__()
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._hash.update(data)
        self._out.write(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """``sha256:`` and the digits."""
        return f"sha256:{self._hash.hexdigest()}"


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}.get(machine, machine)
