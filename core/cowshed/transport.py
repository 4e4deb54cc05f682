"""Transport: how images come in from and go out to somewhere (``oci:``, ``docker-archive:`` …).

A transport is a plugin. It lists what a source offers and opens each layer's raw bytes; it
verifies documents but not layers: the shed does that for every transport alike, as the bytes pass
through. What goes out is in ``target``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeAlias

import attrs

from .context import Closing
from .errors import CowshedError, UsageError
from .oci import Descriptor, ImageConfig, LayerCompression, Manifest, Platform

if TYPE_CHECKING:
    from .archive.chunked import Contents
    from .target import Target

#: Gives ranges of a blob, (first byte, byte behind the last) in ascending order: pieces of them as
#: they come, each with its offset, of one range after the other. From any thread.
#: UnsupportedError: the place doesn't do ranges.
OpenRanges: TypeAlias = Callable[[Sequence[tuple[int, int]]], Iterator[tuple[int, bytes]]]


class AlreadyHereError(CowshedError):
    """Another process has brought the layer meanwhile; the shed may hold it, under any chain."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"layer {layer} was brought by another process")


@attrs.frozen(kw_only=True, eq=False)
class SourceLayer:
    """One layer that a source offers."""

    #: What its raw bytes have to be; None where the format doesn't say (``docker-archive:``).
    descriptor: Descriptor | None = None
    #: Digest of the uncompressed tar; None where only applying it tells (``tar:``, ``dir:``).
    diff_id: str | None
    compression: LayerCompression
    #: Opens the raw, compressed bytes. Nothing about them is verified yet. Standard input can be
    #: opened once only. Where it raises AlreadyHereError, a second call doesn't.
    open: Callable[[], BinaryIO]
    #: Opens the raw bytes from an offset on, from any thread: for sources that are far away, whose
    #: layers are fetched several at once, and go on where an earlier transfer broke off.
    open_at: Callable[[int], BinaryIO] | None = None
    #: Is told whether the raw bytes, once they have been read, were right. After wrong ones it
    #: returns whether reading them again may give others. Such a layer sees itself to keeping them.
    settle: Callable[[bool], bool] | None = None
    #: Gives ranges of the raw bytes: for far sources, so that layers with a table of contents come
    #: only as far as they are new. Such a source has ``open_at``, too.
    open_ranges: OpenRanges | None = None
    #: Waits until somebody brings the layer, we or another process; before its lock is taken.
    #: Raises AlreadyHereError as ``open`` does.
    ready: Callable[[], None] | None = None
    #: Opens the uncompressed tar, put together from what the shed holds and such ranges. None: that
    #: can't be or doesn't pay; ``open`` it. Raises AlreadyHereError as ``open`` does.
    assemble: Callable[[], BinaryIO | None] | None = None
    #: Is told that what ``assemble`` gave was wrong or broke off: it comes by ``open`` now.
    give_up: Callable[[], None] | None = None
    #: Returns its table of contents once the layer is read, if it has one that can be read.
    contents: Callable[[], Contents | None] | None = None


def _reference_alone(image: SourceImage) -> tuple[str, ...]:
    return (image.reference,) if image.reference else ()


@attrs.frozen(kw_only=True, eq=False)
class SourceImage:
    """One image that a source offers."""

    #: The name to give it if the user gives none; empty if nothing suggests itself.
    reference: str
    #: All names that the source gives it; the reference, where it says nothing else.
    names: tuple[str, ...] = attrs.field(default=attrs.Factory(_reference_alone, takes_self=True))
    #: The manifest it came with, digest verified; None for formats without.
    manifest: Manifest | None = None
    #: None for a bare root file system: the shed makes one.
    config: ImageConfig | None
    #: Bottom first.
    layers: tuple[SourceLayer, ...]
    #: Where it came from, as a person would recognise it; goes into a bare root's history.
    origin: str = ""


class Source(Closing):
    """An opened place that images come from; a context manager."""

    @abc.abstractmethod
    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        """Return the images that the reference means, each for ``platform``.

        None means this machine's platform where there is a choice, and any where there is none.

        Raises:
            SourceError: what is there is damaged, ambiguous or refused.
            UnsupportedError: nothing there is for ``platform``.
            NotFoundError: no image of the name given; the error knows those there are.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go, of opened layers too. Closing twice is fine."""


class Transport(abc.ABC):
    """A kind of place. ``rest`` is the reference without ``NAME:``."""

    #: Whether layers come from far away (``SourceLayer.open_at``) and ``Source.images`` reads
    #: little: the driver is opened when it is known that something has to be fetched.
    far: ClassVar[bool] = False

    def configure(  # noqa: B027  # most have no options
        self, options: Mapping[str, Any], known: Callable[[str], bytes | None] | None = None
    ) -> None:
        """Take the options of the plugin's table in ``cowshed.toml``, before anything is opened.

        ``known`` gives a small blob that the shed has, by its digest, so that it needn't be asked
        for again.

        Raises:
            ConfigError: an option the plugin doesn't have, or a value it can't use.
        """

    @abc.abstractmethod
    def open_source(self, rest: str) -> Source:
        """Open for reading.

        Raises:
            UsageError: ``rest`` can't be understood.
            NotFoundError: there is nothing.
            SourceError: what is there can't be read.
            UnsupportedError: this transport only writes.
        """

    @abc.abstractmethod
    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        """Open for writing.

        ``compression`` None means: layers as the blobs they came as, where those are kept, the
        others with gzip. ``level`` None means the compression's measured default.

        Raises:
            UsageError: ``rest``, ``compression`` or ``level`` can't be understood.
            UnsupportedError: this transport only reads.
        """


@attrs.frozen(kw_only=True)
class TransportSpec:
    """How a transport is registered: light, ``load`` imports it only when it is used."""

    #: As users write it before the first colon.
    name: str
    #: One line for ``cowshed transports``, with the form of a reference.
    summary: str
    load: Callable[[], type[Transport]]


def split_reference(text: str) -> tuple[str, str]:
    """Split ``oci:directory:tag`` into ``("oci", "directory:tag")``.

    Text without a colon is all name; whoever looks the name up knows what to suggest instead.

    Raises:
        UsageError: there is no name.
    """
    name, _, rest = text.partition(":")
    if not name:
        raise UsageError(
            f"{text!r} names no transport; write TRANSPORT:PLACE, as in oci:DIRECTORY:TAG, "
            "docker-archive:FILE or dir:DIRECTORY"
        )
    return name, rest
