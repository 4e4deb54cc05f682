"""Reading an OCI image layout, in a directory or in a tar (image-spec, image-layout.md)."""

from __future__ import annotations

import os
import re

from cowshed.errors import (
    DigestMismatchError,
    NotFoundError,
    SourceError,
    UnsupportedError,
    UsageError,
)
from cowshed.names import image_name
from cowshed.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    choose,
    layer_compression,
    manifests_in,
    parse_document,
)
from cowshed.oci.document import load
from cowshed.oci.media import INDEXES, MANIFESTS
from cowshed.transport import Source, SourceImage, SourceLayer

from .files import Files

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
LAYOUT_VERSION = "1.0.0"

_DIGEST_AT_END = re.compile(r"(?P<path>.+?)@(?P<digest>sha(?:256|512):[^/]*)\Z")


def split_place(rest: str) -> tuple[str, str]:
    """Split ``PLACE[:TAG]`` or ``PLACE@DIGEST``; a path that exists as it stands is no tag.

    The second half is empty, a tag, or ``@`` and a digest.
    """
    if not rest:
        raise UsageError("a path is missing after the transport's name")
    match = _DIGEST_AT_END.match(rest)
    if match is not None:
        return match["path"], f"@{Digest.parse(match['digest'])}"
    if os.path.exists(rest):
        return rest, ""
    path, _, tag = rest.partition(":")
    if not path:
        raise UsageError(f"{rest!r} names no path")
    return path, tag


class LayoutSource(Source):
    """A layout, of which ``wanted`` says which image is meant (see ``split_place``).

    Without that, there must be one image only, unless ``every`` asks for all of them.
    """

    def __init__(self, files: Files, title: str, wanted: str, *, every: bool = False) -> None:
        self._files = files
        self._title = title
        self._wanted = wanted
        self._every = every

    def close(self) -> None:
        self._files.close()

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        index = read_index(self._files)
        groups = self._groups(index)
        return [self._image(name, members, platform) for name, members in groups]

    def _groups(self, index: Index) -> list[tuple[str, list[Descriptor]]]:
        """Return what is meant: for each image its name and the descriptors that carry it."""
        if self._wanted.startswith("@"):
            return [("", [self._by_digest(index, self._wanted[1:])])]
        groups: dict[str, list[Descriptor]] = {}
        for item in index.manifests:
            if item.media_type in MANIFESTS or item.media_type in INDEXES:
                groups.setdefault(_full_name(item), []).append(item)
        names = [name or str(members[0].digest) for name, members in groups.items()]
        if self._wanted:
            for name, members in groups.items():
                if self._wanted == name:
                    return [(name, members)]
            tagged = {
                name: [item for item in members if self._wanted in names_of(item)]
                for name, members in groups.items()
            }
            found = [(name, members) for name, members in tagged.items() if members]
            if not found:
                raise NotFoundError(f"image in {self._files.where}", self._wanted, names)
            if len(found) > 1:
                raise self._several([name for name, _ in found])
            return found
        if not groups:
            raise SourceError(f"{self._files.where} holds no image")
        unnamed = groups.get("", [])
        apart = len({item.platform for item in unnamed}) < len(unnamed)
        if self._every:
            rest = [("", [item]) for item in unnamed] if apart else [("", unnamed)]
            return [*((n, m) for n, m in groups.items() if n), *(rest if unnamed else [])]
        if len(groups) > 1 or apart:
            raise self._several([n or m[0].digest for n, m in groups.items()])
        return list(groups.items())

    def _several(self, names: list[str]) -> UsageError:
        shown = ", ".join(ascii(name)[1:-1] for name in names[:10])
        more = ", …" if len(names) > 10 else ""
        return UsageError(
            f"{self._files.where} holds several images; add one of their tags after a colon: "
            f"{shown}{more}"
        )

    def _by_digest(self, index: Index, digest: str) -> Descriptor:
        for item in index.manifests:
            if item.digest == digest:
                return item
        if self._files.size(blob_name(digest)) is None:
            raise NotFoundError(f"image in {self._files.where}", digest)
        raw = self._files.read(blob_name(digest))
        document = parse_document(raw)
        return Descriptor(media_type=document.media_type, digest=digest, size=len(raw))

    def _image(
        self, name: str, members: list[Descriptor], platform: Platform | None
    ) -> SourceImage:
        only = members[0]
        if len(members) > 1 or only.media_type in INDEXES:
            only = choose(manifests_in(members, self._blob, self._files.where), platform)
        manifest = Manifest.parse(self._blob(only), only.media_type)
        config = ImageConfig.parse(self._blob(manifest.config))
        config.check_layers(len(manifest.layers))
        config.check_platform(platform, self._files.where)
        reference = self._reference(name)
        return SourceImage(
            reference=reference,
            manifest=manifest,
            config=config,
            layers=tuple(
                self._layer(layer, diff_id)
                for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
            ),
            origin=self._files.where,
        )

    def _blob(self, item: Descriptor) -> bytes:
        name = blob_name(item.digest)
        if self._files.size(name) is None:
            raise self._missing(item)
        data = self._files.read(name)
        hasher = Digest.parse(item.digest).hasher()
        hasher.update(data)
        if len(data) != item.size or hasher.hexdigest() != Digest.parse(item.digest).hex:
            raise DigestMismatchError(
                f"blob in {self._files.where}",
                f"{item.digest} of {item.size:,} bytes",
                f"{hasher.hexdigest()} of {len(data):,}",
            )
        return data

    def _layer(self, layer: Descriptor, diff_id: str) -> SourceLayer:
        name = blob_name(layer.digest)
        size = self._files.size(name)
        if size is None:
            raise self._missing(layer)
        if size != layer.size:
            raise DigestMismatchError(
                f"layer {layer.digest} in {self._files.where}",
                f"{layer.size:,} bytes",
                f"{size:,}",
            )
        return SourceLayer(
            descriptor=layer,
            diff_id=diff_id,
            compression=layer_compression(layer.media_type),
            open=lambda: self._files.open(name),
        )

    def _missing(self, item: Descriptor) -> SourceError:
        return SourceError(
            f"{self._files.where} lacks the blob {item.digest} ({item.media_type}); "
            "it is incomplete"
        )

    def _reference(self, name: str) -> str:
        """Make a name of our own: a bare tag goes behind the title of the place."""
        if "/" not in name and ":" not in name:
            name = f"{self._title}:{name or 'latest'}"
        return valid_name(familiar(name))


def read_index(files: Files) -> Index:
    """Check that this is a layout of a known version and return its ``index.json``."""
    if files.size("oci-layout") is None:
        raise SourceError(f"{files.where} is not an OCI image layout: it has no file 'oci-layout'")
    version = load(files.read("oci-layout"), "oci-layout").text("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise UnsupportedError(f"{files.where} is an OCI layout of unknown version {version!r}")
    return Index.parse(files.read("index.json"))


def blob_name(digest: str) -> str:
    """Return where a layout keeps a blob."""
    parsed = Digest.parse(digest)
    return f"blobs/{parsed.algorithm}/{parsed.hex}"


def names_of(item: Descriptor) -> tuple[str, ...]:
    """Return every name that an index's entry answers to."""
    full = item.annotations.get(CONTAINERD_NAME, "")
    return tuple(filter(None, (full, item.annotations.get(REF_NAME), familiar(full))))


def familiar(name: str) -> str:
    """Return a Docker Hub name as people write it, without what goes without saying."""
    return name.removeprefix("docker.io/library/").removeprefix("docker.io/")


def qualified(name: str) -> str:
    """Return a name in full, as containerd wants it."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    host = "." in first or ":" in first or first == "localhost"
    return name if host else f"docker.io/{name}"


def _full_name(item: Descriptor) -> str:
    names = names_of(item)
    return names[0] if names else ""


def valid_name(name: str) -> str:
    """Return a foreign name if it can be an image's here, else nothing."""
    try:
        return image_name(name)
    except UsageError:
        return ""


def title_of(path: str) -> str:
    """Return a file's or directory's name without endings, for naming what is in it."""
    if path == "-":
        return ""
    name = os.path.basename(os.path.abspath(path)).lower()
    for ending in (".gz", ".zst", ".xz", ".bz2", ".tgz", ".tar", ".oci"):
        name = name.removesuffix(ending)
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")
