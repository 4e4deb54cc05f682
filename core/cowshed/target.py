"""Target: where images go out to, and what of them it gets: the other half of a transport.

It gets layers as functions that write the exact tar.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import BinaryIO

import attrs

from .oci import Descriptor, ImageConfig, Manifest


@attrs.frozen(kw_only=True, eq=False)
class SavedLayer:
    """One layer to write."""

    diff_id: str
    #: Writes the exact uncompressed tar and returns its diff ID; from any thread.
    write_tar: Callable[[BinaryIO], str]
    #: The blob that it came as, if that is known; a target that has it needs no bytes.
    descriptor: Descriptor | None = None
    #: Opens that blob, if it was kept. The target verifies it.
    open_blob: Callable[[], BinaryIO] | None = None
    #: Names of images that hold that blob: a registry may take it over from their repositories.
    seen_in: tuple[str, ...] = ()


def _no_annotations() -> Mapping[str, str]:
    return {}


@attrs.frozen(kw_only=True, eq=False)
class SavedImage:
    """One image to write."""

    names: tuple[str, ...]
    config: ImageConfig
    #: Bottom first; one for each diff ID of the config.
    layers: tuple[SavedLayer, ...]
    annotations: Mapping[str, str] = attrs.field(factory=_no_annotations)
    #: What it came with. Where all layers are written as the blobs that it names, it goes along
    #: byte for byte, and the image has the digest that it had.
    manifest: Manifest | None = None


@attrs.frozen(kw_only=True)
class SavedEvent:
    """News of one layer while an image is written; perhaps from another thread."""

    #: ``exists`` (there), ``mounted`` (taken over from another repository), ``sending``, ``sent``.
    state: str
    layer: str
    #: Position, from 0, and how many there are.
    index: int
    count: int
    #: Bytes written so far and, where it is known, how many there are.
    done: int = 0
    total: int | None = None


@attrs.frozen(kw_only=True)
class Written:
    """One image as it was written."""

    manifest: Descriptor
    #: The manifest's bytes.
    raw: bytes = attrs.field(repr=False)
    layers: int
    #: How many of them were there already.
    existing: int
    #: Bytes of layers that were sent, of how many they have together.
    sent: int
    total: int


def _nobody(event: SavedEvent) -> None:
    pass


class Target(abc.ABC):
    """An opened place that images go to; a context manager.

    Nothing is visible there before ``commit``, which leaving the context without an error calls;
    after an error nothing remains.
    """

    #: Told of layers as they are written, by targets that take long.
    listener: Callable[[SavedEvent], None] = staticmethod(_nobody)

    def written(self) -> Sequence[Written]:
        """Return what was written, after ``commit``; nothing if the target doesn't keep count."""
        return ()

    def has_layer(self, diff_id: str) -> bool:
        """Say whether the layer is there already, so that ``write_tar`` won't be called."""
        return False

    @abc.abstractmethod
    def write_image(self, image: SavedImage) -> None:
        """Take in one image."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Publish everything written, at once and durably."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go; what isn't committed vanishes. Closing twice is fine."""

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()
