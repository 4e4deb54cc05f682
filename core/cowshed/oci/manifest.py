"""Manifests and indexes: OCI 1.1 and Docker schema 2 (image-spec, manifest.md, image-index.md).

A document is either a manifest or an index, and what it says of itself has to agree with what
was said about it and with what it contains (CVE-2021-41190): otherwise two programs could see two
images behind one digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from ..errors import SourceError, UnsupportedError
from . import media
from .descriptor import Descriptor
from .digest import digest_bytes
from .document import MAX_DOCUMENT, Fields, dump, load
from .platform import Platform

#: BuildKit's mark on manifests that are statements about an image (attestations), not images.
_REFERENCE_TYPE = "vnd.docker.reference.type"
#: Indexes inside indexes: one level is what multi-platform images need.
_MAX_DEPTH = 4
#: All of them together. Each may have 4 MiB.
_MAX_INDEXES = 64
#: Platforms named where none fits.
_NAMED = 50


@attrs.frozen(kw_only=True)
class Manifest:
    """One image for one platform: its config and its layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    #: The exact bytes, of which ``digest`` is made.
    raw: bytes = attrs.field(repr=False)

    @property
    def digest(self) -> str:
        """Digest of the manifest itself."""
        return digest_bytes(self.raw)

    @classmethod
    def parse(cls, raw: bytes, media_type: str | None = None) -> Manifest:
        """Read a manifest; ``media_type`` is what its descriptor or server called it.

        Raises:
            LimitExceededError: more than 4 MiB.
            UnsupportedError: schema 1, an artifact, or layers of a kind that isn't read.
            SourceError: malformed, ambiguous or not what ``media_type`` says.
        """
        fields = load(raw, "image manifest")
        found = _media_type(fields, media_type, media.MANIFESTS, media.OCI_MANIFEST)
        config = Descriptor.from_json(fields.child("config"))
        if config.media_type not in media.CONFIGS:
            kind = fields.text("artifactType") or config.media_type
            raise UnsupportedError(f"this is an artifact of type {kind!r}, not a container image")
        if config.size > MAX_DOCUMENT:
            raise SourceError(f"image config claims {config.size:,} bytes; 4 MiB is the most")
        layers = tuple(Descriptor.from_json(layer) for layer in fields.objects("layers"))
        for layer in layers:
            if media.is_foreign(layer.media_type) and layer.urls:
                raise UnsupportedError(
                    f"layer {layer.digest} is foreign ({layer.media_type}): it would have to "
                    "come from another server, which isn't contacted"
                )
            media.layer_compression(layer.media_type)
        return cls(
            media_type=found,
            config=config,
            layers=layers,
            annotations=fields.texts_by_key("annotations"),
            raw=raw,
        )


@attrs.frozen(kw_only=True)
class Index:
    """Several manifests, usually one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    raw: bytes = attrs.field(repr=False)

    @property
    def digest(self) -> str:
        """Digest of the index itself."""
        return digest_bytes(self.raw)

    @classmethod
    def parse(cls, raw: bytes, media_type: str | None = None) -> Index:
        """Read an index or Docker manifest list; errors as ``Manifest.parse``."""
        fields = load(raw, "image index")
        found = _media_type(fields, media_type, media.INDEXES, media.OCI_INDEX)
        return cls(
            media_type=found,
            manifests=tuple(Descriptor.from_json(item) for item in fields.objects("manifests")),
            annotations=fields.texts_by_key("annotations"),
            raw=raw,
        )

    def choose(self, platform: Platform | None = None) -> Descriptor:
        """Return the manifest that runs best on ``platform``, by default on this machine."""
        return choose(self.manifests, platform)


def parse_document(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read whichever of the two ``raw`` is."""
    if "manifests" in load(raw, "image document").values or media_type in media.INDEXES:
        return Index.parse(raw, media_type)
    return Manifest.parse(raw, media_type)


def manifests_in(
    items: Iterable[Descriptor], read: Callable[[Descriptor], bytes], what: str
) -> Iterator[Descriptor]:
    """Yield the manifests among ``items`` and those in indexes among them, one index at a time.

    ``read`` gives the bytes of an index, ``what`` names the image in errors.

    Raises:
        SourceError: there are more indexes, or deeper ones, than an image can need.
    """
    seen: set[str] = set()

    def within(items: Iterable[Descriptor], depth: int) -> Iterator[Descriptor]:
        for item in items:
            if item.media_type not in media.INDEXES:
                yield item
            elif item.digest not in seen:
                seen.add(item.digest)
                if depth >= _MAX_DEPTH or len(seen) > _MAX_INDEXES:
                    raise SourceError(f"{what}: indexes are nested too deeply")
                yield from within(Index.parse(read(item), item.media_type).manifests, depth + 1)

    return within(items, 0)


def choose(offered: Iterable[Descriptor], platform: Platform | None = None) -> Descriptor:
    """Return the descriptor that runs best on ``platform``; of equals the first.

    Descriptors that name no platform come last, as nothing speaks against them. None but the best
    is kept: there may be millions.

    Raises:
        UnsupportedError: none runs there; the message lists what there is.
    """
    wanted = platform or Platform.host()
    names: set[str] = set()
    best: tuple[int, Descriptor] | None = None
    for item in offered:
        if _is_statement(item):
            continue
        if len(names) < _NAMED:
            names.add(ascii(str(item.platform))[1:-1])
        rank = 1000 if item.platform is None else wanted.rank(item.platform)
        if rank is not None and (best is None or rank < best[0]):
            best = rank, item
    if best is None:
        there = ", ".join(sorted(names)) or "no images at all"
        raise UnsupportedError(f"no image for platform {wanted}; there is {there}")
    return best[1]


def build_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """Return an OCI manifest as canonical JSON: equal arguments give equal bytes."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return dump(document)


def build_index(
    manifests: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> bytes:
    """Return an OCI index as canonical JSON."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return dump(document)


def _media_type(fields: Fields, given: str | None, allowed: frozenset[str], default: str) -> str:
    """Return the document's media type once everything that was said about it agrees."""
    stated = fields.text("mediaType")
    if (
        stated in media.SCHEMA_1
        or given in media.SCHEMA_1
        or fields.values.get("schemaVersion") == 1
        or "fsLayers" in fields.values
    ):
        raise UnsupportedError(
            "the manifest has Docker's schema 1, which was retired in 2019; push the image again "
            "with a current tool, or convert it with 'skopeo copy --format v2s2'"
        )
    if fields.integer("schemaVersion") != 2:
        raise UnsupportedError(f"{fields.what} has an unknown schemaVersion")
    if stated and given and stated != given:
        raise SourceError(f"{fields.what} calls itself {stated!r} but was announced as {given!r}")
    is_index = "manifests" in fields.values
    if is_index and ("config" in fields.values or "layers" in fields.values):
        raise SourceError(f"{fields.what} is ambiguous: both manifest and index")
    found = stated or given or default
    if found not in allowed:
        raise UnsupportedError(f"{fields.what} has the media type {found!r}, which isn't read here")
    if is_index != (found in media.INDEXES):
        raise SourceError(f"{fields.what} doesn't contain what its media type {found!r} says")
    return found


def _is_statement(item: Descriptor) -> bool:
    return (
        item.annotations.get(_REFERENCE_TYPE) is not None
        or (item.artifact_type != "" and item.artifact_type not in media.CONFIGS)
        or (item.platform is not None and item.platform.os == "unknown")
    )
