"""Descriptor: what points at a blob (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..errors import SourceError
from .digest import parse_digest
from .document import Fields
from .platform import Platform


def _no_annotations() -> Mapping[str, str]:
    return {}


@attrs.frozen(kw_only=True)
class Descriptor:
    """Media type, digest and size of a blob; the digest is valid by construction."""

    media_type: str
    digest: str = attrs.field(converter=parse_digest)
    size: int
    #: Untrusted text, as all of it: escape before printing.
    annotations: Mapping[str, str] = attrs.field(factory=_no_annotations)
    #: Never followed; they are only kept.
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    artifact_type: str = ""

    @classmethod
    def from_json(cls, fields: Fields) -> Descriptor:
        """Read one from a parsed document.

        Raises:
            SourceError: a field is missing, of the wrong type, or no valid digest.
        """
        digest = fields.text("digest", None)
        try:
            parse_digest(digest)
        except SourceError as error:
            raise SourceError(f"{fields.what}: {error}") from None
        return cls(
            media_type=fields.text("mediaType", None),
            digest=digest,
            size=fields.integer("size"),
            annotations=fields.texts_by_key("annotations"),
            urls=fields.texts("urls"),
            platform=(
                Platform.from_json(fields.child("platform")) if fields.has("platform") else None
            ),
            artifact_type=fields.text("artifactType"),
        )

    def to_json(self) -> dict[str, object]:
        """Return the object that stands in a manifest or index."""
        found: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.urls:
            found["urls"] = list(self.urls)
        if self.platform is not None:
            found["platform"] = self.platform.to_json()
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found
