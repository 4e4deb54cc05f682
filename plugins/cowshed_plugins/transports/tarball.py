"""``tar:FILE``: a root file system in a tar, as ``docker export`` writes; ``-`` is standard input.

Plain or compressed with gzip, zstd, xz or bzip2, whichever its first bytes show.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import BinaryIO, cast

from cowshed.archive.header import BLOCK
from cowshed.errors import ArchiveError, SourceError, UnsupportedError, UsageError
from cowshed.oci import Platform
from cowshed.target import Target
from cowshed.transport import Source, SourceImage, SourceLayer, Transport

from .compression import Compression, layer_bytes, sniff
from .files import open_file, whole
from .layout import title_of, valid_name


class TarballTransport(Transport):
    """Root file systems in tars; only read."""

    def open_source(self, rest: str) -> Source:
        if not rest:
            raise UsageError("a file is missing after 'tar:'")
        return TarballSource(rest)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        raise UnsupportedError(
            "an image's layers and config don't fit in the tar of a root file system; use "
            f"oci-archive:{rest} or docker-archive:{rest}, or export a container"
        )


class TarballSource(Source):
    """One image of one layer, whose diff ID nobody knows yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._where = "standard input" if path == "-" else path
        self._file: BinaryIO | None = None
        if path == "-":
            # Passed on as it comes: a pipe gives its bytes once, and a copy would cost space.
            head = cast("io.BufferedReader", sys.stdin.buffer).peek(BLOCK)
        else:
            self._file = open_file(path)
            head = os.pread(self._file.fileno(), BLOCK, 0)
        if not head:
            self.close()
            raise ArchiveError(f"{self._where} is empty; a tar was expected")
        self._compression: Compression = sniff(head)
        self._used = False

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        return [bare_image(self._path, self._where, self._compression, self._open)]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        if self._file is not None:
            return whole(self._file)
        if self._used:
            raise SourceError("standard input can be read once only")
        self._used = True
        return sys.stdin.buffer


def bare_image(
    path: str, origin: str, compression: Compression, open_layer: Callable[[], BinaryIO]
) -> SourceImage:
    """Describe a root file system that has neither config nor diff ID yet."""
    title = title_of(path)
    kind, opened = layer_bytes(compression, open_layer)
    reference = valid_name(f"{title}:latest") if title else ""
    return SourceImage(
        reference=reference,
        config=None,
        layers=(SourceLayer(diff_id=None, compression=kind, open=opened),),
        origin=origin,
    )
