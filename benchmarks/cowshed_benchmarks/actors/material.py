"""Material: the images that everybody works on, in every form that somebody takes them in.

An OCI layout with one tag for each image. Programs that read something else get that made of it,
once, outside of every measurement.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import attrs

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@attrs.frozen
class Material:
    """What lies in one directory."""

    root: Path
    #: The OCI layout.
    layout: Path = attrs.field(
        default=attrs.Factory(lambda self: self.root / "image", takes_self=True)
    )

    def manifest(self, tag: str) -> dict[str, Any]:
        """Return the manifest that ``tag`` names."""
        index = json.loads((self.layout / "index.json").read_text())
        for descriptor in index["manifests"]:
            name = descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name")
            if name == tag:
                found: dict[str, Any] = json.loads(self.blob(descriptor["digest"]).read_bytes())
                return found
        raise KeyError(f"{self.layout} has no image {tag}")

    def blob(self, digest: str) -> Path:
        """Return where a blob lies."""
        return self.layout / "blobs" / digest.replace(":", "/")

    def config(self, tag: str) -> dict[str, Any]:
        """Return an image's config."""
        found: dict[str, Any] = json.loads(
            self.blob(self.manifest(tag)["config"]["digest"]).read_bytes()
        )
        return found

    def chain_id(self, tag: str) -> str:
        """Return the chain ID of an image's layers (image-spec, config.md, "Layer ChainID")."""
        first, *others = self.config(tag)["rootfs"]["diff_ids"]
        chain: str = first
        for diff_id in others:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
        return chain

    # -- other forms --------------------------------------------------------------------------

    def tree(self, tag: str) -> Path:
        """Return a directory with the image's files."""
        return self._made(f"trees/{tag}", lambda path: _unpack(self, tag, path))

    def tar(self, tag: str) -> Path:
        """Return a plain tar of the image's files, layers merged."""
        tree = self.tree(tag)
        return self._made(f"{tag}.tar", lambda path: _pack(tree, path))

    def archive(self, tag: str) -> Path:
        """Return an OCI archive of the image alone."""
        return self._made(f"{tag}.oci.tar", lambda path: _archive(self, tag, path))

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self.root / name
        with _locked(self.root / ".lock"):
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                aside = path.with_name(f".{path.name}.partial")
                if aside.is_dir():
                    shutil.rmtree(aside)
                make(aside)
                aside.rename(path)
        return path


@contextmanager
def _locked(path: Path) -> Generator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def open_layer(material: Material, descriptor: dict[str, Any]) -> Generator[IO[bytes]]:
    """Open the plain tar of a layer."""
    media_type: str = descriptor["mediaType"]
    with material.blob(descriptor["digest"]).open("rb") as raw:
        if media_type.endswith("gzip"):
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        elif media_type.endswith("zstd"):
            import zstandard

            yield zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        else:
            yield raw


def _unpack(material: Material, tag: str, root: Path) -> None:
    """Lay the layers over one another; the input is trusted, so this is short."""
    root.mkdir()
    for descriptor in material.manifest(tag)["layers"]:
        made: set[str] = set()
        with (
            open_layer(material, descriptor) as raw,
            tarfile.open(fileobj=raw, mode="r|", errors="surrogateescape") as tar,
        ):
            for member in tar:
                name = member.name.removeprefix("./").strip("/")
                if name not in ("", "."):
                    _lay(root, name, member, tar, made)


def _lay(
    root: Path, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile, made: set[str]
) -> None:
    head, _, leaf = name.rpartition("/")
    parent = root / head
    if leaf == _OPAQUE:
        for path in list(parent.iterdir()):
            if str(path.relative_to(root)) not in made:
                _remove(path)
        return
    if leaf.startswith(_WHITEOUT):
        _remove(parent / leaf.removeprefix(_WHITEOUT))
        return
    parent.mkdir(parents=True, exist_ok=True)
    path = root / name
    made.add(name)
    if not (member.isdir() and path.is_dir() and not path.is_symlink()):
        _remove(path)
    privileged = os.geteuid() == 0
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        os.link(root / member.linkname.removeprefix("./").strip("/"), path, follow_symlinks=False)
        return
    elif member.isfifo():
        os.mkfifo(path)
    elif member.isdev():
        if not privileged:
            return
        kind = 0o020000 if member.ischr() else 0o060000
        os.mknod(path, kind | member.mode, os.makedev(member.devmajor, member.devminor))
    else:
        content = tar.extractfile(member)
        assert content is not None
        with path.open("xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    if privileged:
        os.lchown(path, member.uid, member.gid)
    if not member.issym():
        # A directory that its owner can't enter would be in our way.
        os.chmod(path, member.mode if privileged else member.mode | 0o700)
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pack(tree: Path, out: Path) -> None:
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        tar.add(tree, arcname=".")


def _archive(material: Material, tag: str, out: Path) -> None:
    index = json.loads((material.layout / "index.json").read_text())
    index["manifests"] = [
        one
        for one in index["manifests"]
        if one.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]
    manifest = material.manifest(tag)
    wanted = [index["manifests"][0]["digest"], manifest["config"]["digest"]]
    wanted += [layer["digest"] for layer in manifest["layers"]]
    aside = out.with_name(f"{out.name}.index")
    aside.write_text(json.dumps(index))
    with tarfile.open(out, "w") as tar:
        tar.add(material.layout / "oci-layout", "oci-layout")
        tar.add(aside, "index.json")
        for digest in dict.fromkeys(wanted):
            tar.add(material.blob(digest), f"blobs/{digest.replace(':', '/')}")
    aside.unlink()
