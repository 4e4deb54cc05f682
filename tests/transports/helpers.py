"""Images made here without any tool, and what tests ask of sources."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cowshed.archive import decompressor
from cowshed.oci import ImageConfig, digest_bytes, media, new_config
from cowshed.target import SavedImage, SavedLayer
from cowshed.transport import SourceImage, Transport
from cowshed_plugins.transports.plugin import cowshed_register_transports


def transport(name: str) -> Transport:
    (spec,) = [spec for spec in cowshed_register_transports() if spec.name == name]
    return spec.load()()


def images(reference: str, platform: Any = None) -> list[SourceImage]:
    name, _, rest = reference.partition(":")
    with transport(name).open_source(rest) as source:
        found = source.images(platform)
        for image in found:
            check(image)
        return found


def tars(reference: str) -> list[list[bytes]]:
    """Return the plain tars of every image's layers."""
    name, _, rest = reference.partition(":")
    with transport(name).open_source(rest) as source:
        return [check(image) for image in source.images()]


def check(image: SourceImage) -> list[bytes]:
    """Verify every layer to its last byte as the shed does; return the plain tars."""
    tars = []
    for layer in image.layers:
        with layer.open() as file:
            raw = file.read()
        if layer.descriptor is not None:
            assert digest_bytes(raw) == layer.descriptor.digest
            assert len(raw) == layer.descriptor.size
        plain = decompressor(io.BytesIO(raw), layer.compression).read()
        if layer.diff_id is not None:
            assert digest_bytes(plain) == layer.diff_id
        tars.append(plain)
    return tars


def make_tar(files: Mapping[str, bytes | str | None]) -> bytes:
    """Return a tar: bytes are files, text is a symbolic link, None a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def saved_image(*names: str, count: int = 2, size: int = 3000, seed: str = "") -> SavedImage:
    tars = [
        make_tar({f"file{number}": (f"{seed}{number}".encode() * size)[: size * 10]})
        for number in range(count)
    ]
    config: ImageConfig | None = None
    for tar in tars:
        config = new_config(
            config, digest_bytes(tar), created="2024-01-01T00:00:00Z", changes=["CMD /bin/true"]
        )
    assert config is not None
    return SavedImage(names=names, config=config, layers=tuple(saved_layer(tar) for tar in tars))


def saved_layer(tar: bytes) -> SavedLayer:
    def write(out: BinaryIO) -> str:
        hasher = hashlib.sha256()
        for start in range(0, len(tar), 1000):
            out.write(tar[start : start + 1000])
            hasher.update(tar[start : start + 1000])
        return f"sha256:{hasher.hexdigest()}"

    return SavedLayer(diff_id=digest_bytes(tar), write_tar=write)


def failing_layer(tar: bytes) -> SavedLayer:
    def write(out: BinaryIO) -> str:
        out.write(tar[:100])
        raise RuntimeError("interrupted")

    return SavedLayer(diff_id=digest_bytes(tar), write_tar=write)


def save(reference: str, *saved: SavedImage, **options: Any) -> None:
    name, _, rest = reference.partition(":")
    with transport(name).open_target(rest, **options) as target:
        for image in saved:
            target.write_image(image)


class Layout:
    """A layout written by hand, so that it can be wrong in any way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.entries: list[dict[str, Any]] = []
        self.write_index()

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = digest_bytes(data)
        (self.root / "blobs" / "sha256" / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[7:]

    def image(self, name: str = "", platform: str = "linux/amd64", **extra: Any) -> dict[str, Any]:
        """Add an image and return its manifest's descriptor, with its layer's as ``layer``."""
        os, architecture = platform.split("/")
        tar = make_tar({"name": f"{name} {platform}".encode()})
        layer = {"mediaType": media.OCI_LAYER_GZIP, **self.blob(gzip.compress(tar, mtime=0))}
        config = {
            "os": os,
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [digest_bytes(tar)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": {
                "mediaType": media.OCI_CONFIG,
                **self.blob(json.dumps(config).encode()),
            },
            "layers": [layer],
        }
        manifest.update(extra)
        found = {"mediaType": media.OCI_MANIFEST, **self.blob(json.dumps(manifest).encode())}
        if name:
            found["annotations"] = {"org.opencontainers.image.ref.name": name}
        return found

    def index(self, *items: dict[str, Any]) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": items}
        return {"mediaType": media.OCI_INDEX, **self.blob(json.dumps(document).encode())}

    def add(self, *items: dict[str, Any]) -> None:
        self.entries += items
        self.write_index()

    def write_index(self) -> None:
        document = {"schemaVersion": 2, "manifests": self.entries}
        (self.root / "index.json").write_text(json.dumps(document))

    def archive(self, path: Path) -> Path:
        files = {
            str(file.relative_to(self.root)): file.read_bytes()
            for file in sorted(self.root.rglob("*"))
            if file.is_file()
        }
        path.write_bytes(make_tar(files))
        return path
