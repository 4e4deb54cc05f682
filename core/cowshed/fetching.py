"""Fetching: layers of a far source, brought here several at once while they are unpacked.

Each layer's raw bytes go into a partial file of the blob store, and whoever unpacks it reads them
from there, right behind the writer. So memory stays bounded whatever is slower, a broken or killed
transfer goes on where it broke, in this run or another, and of two processes that want one blob
the second waits and reads what the first has brought. A layer with a table of contents comes in
part, where the shed holds enough of it (see ``assembling``); its empty partial file tells other
processes that somebody is at it.

Nothing here is verified: that is the importer's, who reads every byte, and then says whether it was
right (``SourceLayer.settle``). What was right stays until the image is complete, so that a failure
in its last layer doesn't cost the others.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import attrs

from .download import Download, Told

if TYPE_CHECKING:
    from .archive import Limits
    from .assembling import Assembly
    from .blobs import BlobStore
    from .holdings import Holdings
    from .transport import SourceImage, SourceLayer

#: Transfers at once. One connection seldom fills a line, and unpacking keeps up with no more.
PARALLEL = 4


class Fetcher:
    """The layers of one image on their way; a context that stops them.

    ``wanted`` says of a layer by its position whether it still has to be fetched: others may bring
    it meanwhile.
    """

    def __init__(
        self,
        image: SourceImage,
        blobs: BlobStore,
        wanted: Callable[[int], bool],
        *,
        limits: Limits,
        holdings: Callable[[], Holdings] | None = None,
        keep: bool = False,
        told: Told = lambda index, done, complete: None,
        parallel: int = PARALLEL,
    ) -> None:
        """``holdings`` gives what the shed holds; None: whole blobs are wanted. ``keep`` them."""
        self._blobs = blobs
        self._keep = keep
        self._downloads: dict[str, Download] = {}
        layers: list[SourceLayer] = []
        for index, layer in enumerate(image.layers):
            if layer.open_at is None or layer.descriptor is None:
                layers.append(layer)
                continue
            digest = layer.descriptor.digest
            if digest not in self._downloads:
                self._downloads[digest] = Download(
                    layer.descriptor,
                    layer.open_at,
                    blobs,
                    wanted,
                    index,
                    told,
                    _assembly(layer, limits),
                    None if keep else holdings,
                    limits,
                )
            layers.append(self._wrapped(layer, self._downloads[digest]))
        #: The image with layers that are read from here.
        self.image = attrs.evolve(image, layers=tuple(layers))
        self._waiting = list(self._downloads.values())
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"cowshed-fetch-{number}", daemon=True)
            for number in range(min(parallel, len(self._waiting)))
        ]

    @property
    def received(self) -> int:
        """Bytes that came from the source."""
        return sum(download.received for download in self._downloads.values())

    def __enter__(self) -> Fetcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._waiting.clear()
        for download in self._downloads.values():
            download.stop()
        for thread in self._threads:
            thread.join(5)  # a read that waits for the network was shut down
        for download in self._downloads.values():
            download.close(done=kind is None)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                download = self._waiting.pop(0)
            download.run()

    def _wrapped(self, layer: SourceLayer, download: Download) -> SourceLayer:
        def settle(good: bool) -> bool:
            if not good:
                return download.discard()
            if self._keep:
                download.keep()
            return True

        def open_() -> BinaryIO:
            self._hurry(download)
            return download.open()

        def assemble() -> BinaryIO | None:
            self._hurry(download)
            return download.open_tar()

        return attrs.evolve(
            layer,
            open=open_,
            settle=settle,
            ready=functools.partial(self._hurry, download),
            assemble=assemble,
            give_up=download.give_up,
            contents=download.contents,
        )

    def _hurry(self, download: Download) -> None:
        """Fetch a layer that somebody is about to read, if nobody does yet; wait for its file."""
        with self._lock:
            waiting = download in self._waiting
            if waiting:
                self._waiting.remove(download)
        while waiting or download.demand():
            waiting = False
            thread = threading.Thread(target=download.run, name="cowshed-fetch-now", daemon=True)
            self._threads.append(thread)
            thread.start()


def _assembly(layer: SourceLayer, limits: Limits) -> Assembly | None:
    if layer.open_ranges is None or layer.descriptor is None or not layer.descriptor.annotations:
        return None
    from .assembling import assembly_of

    return assembly_of(layer.descriptor, layer.open_ranges, limits)
