"""Referrers: signatures, statements and the like that name an image as their subject.

distribution-spec, "Listing Referrers": registries of version 1.1 keep the list themselves; on
others it is an index under the tag ``sha256-HEX`` which clients keep up to date.
"""

from __future__ import annotations

import attrs

from cowshed.errors import NotFoundError, SourceError
from cowshed.oci import Descriptor, Index, build_index, digest_bytes
from cowshed.oci.document import load
from cowshed.oci.media import OCI_INDEX

from .client import Repository


def referrers(repository: Repository, digest: str, artifact_type: str = "") -> list[Descriptor]:
    """Return what refers to ``digest``, of one type or of all."""
    pages = repository.listed_referrers(digest)
    if pages is None:
        fallback = _tagged(repository, digest)
        found = [] if fallback is None else list(fallback.manifests)
    else:
        found = [item for page in pages for item in Index.parse(page, OCI_INDEX).manifests]
    return [item for item in found if artifact_type in ("", item.artifact_type)]


def push_manifest(repository: Repository, tag: str, raw: bytes, media_type: str) -> None:
    """Store a manifest under a tag, or by its digest, and see to it that its subject knows."""
    digest = digest_bytes(raw)
    noted = repository.put_manifest(tag or digest, raw, media_type)
    fields = load(raw, "manifest")
    if noted or not fields.has("subject"):
        return
    subject = Descriptor.from_json(fields.child("subject"))
    config = fields.child("config").text("mediaType") if fields.has("config") else ""
    item = Descriptor(
        media_type=media_type,
        digest=digest,
        size=len(raw),
        artifact_type=fields.text("artifactType") or config,
        annotations=fields.texts_by_key("annotations"),
    )
    _list(repository, subject.digest, item)


def tag_of(digest: str) -> str:
    """Return the tag under which the referrers of ``digest`` are listed."""
    algorithm, _, hex = digest.partition(":")
    return f"{algorithm[:32]}-{hex[:64]}"


def _list(repository: Repository, subject: str, item: Descriptor) -> None:
    known = _tagged(repository, subject)
    manifests = [] if known is None else list(known.manifests)
    if any(one.digest == item.digest for one in manifests):
        return
    manifests.append(attrs.evolve(item, urls=()))
    annotations = None if known is None else known.annotations
    repository.put_manifest(tag_of(subject), build_index(manifests, annotations), OCI_INDEX)


def _tagged(repository: Repository, digest: str) -> Index | None:
    try:
        document = repository.manifest(tag_of(digest))
    except NotFoundError:
        return None
    try:
        return Index.parse(document.raw, document.media_type)
    except SourceError as error:
        raise SourceError(
            f"{repository.name}:{tag_of(digest)} should list referrers and doesn't: {error}"
        ) from None
