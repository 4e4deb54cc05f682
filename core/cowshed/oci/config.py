"""Image configs: what an image runs, and which layers in which order (image-spec, config.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import attrs

from ..errors import SourceError, UnsupportedError, UsageError
from .digest import Digest, digest_bytes, parse_digest
from .document import Fields, dump, load
from .platform import Platform

#: What Docker once wrote about the container an image came from; stale in any image made of it.
_STALE = ("container", "container_config", "docker_version", "id", "parent", "parent_id")


class HistoryStep(NamedTuple):
    """One step of an image's making. All of it is untrusted text."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    #: The step changed the config only and brought no layer.
    empty_layer: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the object that stands in a config."""
        values = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {name: value for name, value in values.items() if value}


@attrs.frozen(kw_only=True)
class ImageConfig:
    """An image's config; ``raw`` are its exact bytes, whose digest is the image's ID."""

    raw: bytes = attrs.field(repr=False)
    created: str | None
    author: str
    platform: Platform
    #: What containers run: Cmd, Entrypoint, Env, Labels, User, WorkingDir …
    config: Mapping[str, object]
    #: Digests of the uncompressed layers, bottom first.
    diff_ids: tuple[str, ...]
    history: tuple[HistoryStep, ...]

    @property
    def digest(self) -> str:
        """The image ID."""
        return digest_bytes(self.raw)

    @property
    def os(self) -> str:
        """Operating system the image is for."""
        return self.platform.os

    @property
    def architecture(self) -> str:
        """CPU architecture the image is for."""
        return self.platform.architecture

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Read a config.

        Raises:
            LimitExceededError: more than 4 MiB.
            UnsupportedError: a root file system that doesn't consist of layers.
            SourceError: malformed, or a diff ID that is no digest.
        """
        fields = load(raw, "image config")
        rootfs = fields.child("rootfs")
        if rootfs.text("type", "layers") != "layers":
            raise UnsupportedError(
                f"image config has a root file system of type {rootfs.text('type')!r}"
            )
        return cls(
            raw=raw,
            created=fields.text("created") or None,
            author=fields.text("author"),
            platform=Platform.from_json(fields),
            config=fields.mapping("config"),
            diff_ids=tuple(parse_digest(text) for text in rootfs.texts("diff_ids")),
            history=tuple(_step(item) for item in fields.objects("history")),
        )

    def check_layers(self, count: int) -> None:
        """Raise SourceError unless the config has a diff ID for each of ``count`` layers."""
        if count != len(self.diff_ids):
            raise SourceError(
                f"the image has {count} layers, but its config has {len(self.diff_ids)} diff IDs"
            )

    def check_platform(self, wanted: Platform | None, where: str) -> None:
        """Raise UnsupportedError unless the image, which is ``where``'s, is for what is wanted."""
        if wanted is not None and not wanted.matches(self.platform):
            there = ascii(str(self.platform))[1:-1]
            raise UnsupportedError(f"no image for platform {wanted}; {where} is for {there}")

    def steps(self) -> tuple[tuple[HistoryStep, str | None], ...]:
        """Pair each step with the diff ID it brought, None for steps without a layer.

        Real histories are sometimes too short or too long. Each layer appears exactly once, on a
        step without text where history lacks one; surplus steps count as empty.
        """
        rest = list(self.diff_ids[::-1])
        paired = [
            (step, None if step.empty_layer or not rest else rest.pop()) for step in self.history
        ]
        return (*paired, *((HistoryStep(), diff_id) for diff_id in rest[::-1]))


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ChainID of each prefix of ``diff_ids`` (config.md, "Layer ChainID").

    The lowest is its diff ID; each further one is SHA-256 of ``CHAIN_ID_BELOW " " DIFF_ID``.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        name = parse_digest(diff_id)
        if chain:
            name = digest_bytes(f"{chain[-1]} {name}".encode())
        elif Digest.parse(name).algorithm != "sha256":
            raise UnsupportedError(f"diff ID {name} doesn't use sha256")
        chain.append(name)
    return tuple(chain)


def new_config(
    base: ImageConfig | None,
    diff_id: str | None,
    *,
    created: str,
    author: str = "",
    comment: str = "",
    created_by: str = "",
    changes: Sequence[str] = (),
    platform: Platform | None = None,
) -> ImageConfig:
    """Return the config of ``base`` with one more step and, unless None, one more layer.

    ``changes`` are Dockerfile instructions, as ``docker commit --change`` takes them. Fields that
    aren't known here are kept as ``base`` has them.

    Raises:
        UsageError: an instruction that isn't one of those, or malformed.
    """
    document: dict[str, Any] = {}
    history: list[HistoryStep] = []
    diff_ids: list[str] = []
    if base is not None:
        document = {
            name: value
            for name, value in load(base.raw, "image config").values.items()
            if name not in _STALE
        }
        # Padded where it is too short, so that the new step pairs with the new layer.
        history = [
            step if diff_id or step.empty_layer else step._replace(empty_layer=True)
            for step, diff_id in base.steps()
        ]
        diff_ids = list(base.diff_ids)
        author = author or base.author
    else:
        document.update((platform or Platform.host()).to_json())
    history.append(
        HistoryStep(
            created=created,
            created_by=created_by,
            author=author,
            comment=comment,
            empty_layer=diff_id is None,
        )
    )
    if diff_id is not None:
        diff_ids.append(parse_digest(diff_id))
    document["created"] = created
    if author:
        document["author"] = author
    from . import instructions  # which whoever only reads images has no use for

    document["config"] = instructions.apply(
        cast("Mapping[str, object]", document.get("config") or {}), changes
    )
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    document["history"] = [step.to_json() for step in history]
    try:
        return ImageConfig.parse(dump(document))
    except UnicodeEncodeError:
        raise UsageError("author, comment and changes must be valid Unicode") from None


def _step(fields: Fields) -> HistoryStep:
    return HistoryStep(
        created=fields.text("created") or None,
        created_by=fields.text("created_by"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        empty_layer=fields.boolean("empty_layer"),
    )
