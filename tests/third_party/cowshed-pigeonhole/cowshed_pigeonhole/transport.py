"""``pigeon:TEXT``: an image of one layer of one file that says TEXT."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO

from cowshed.errors import UnsupportedError
from cowshed.oci import Platform
from cowshed.target import Target
from cowshed.transport import Source, SourceImage, SourceLayer, Transport


class PigeonTransport(Transport):
    """Pigeons only arrive."""

    def open_source(self, rest: str) -> Source:
        return Message(rest)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        raise UnsupportedError("pigeons only arrive; save to oci:DIRECTORY instead")


class Message(Source):
    """One image. Core hashes, checks and stores what ``open`` gives."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        layer = SourceLayer(diff_id=None, compression="none", open=self._tar)
        return [SourceImage(reference="message", config=None, layers=(layer,), origin="a pigeon")]

    def _tar(self) -> BinaryIO:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("message")
            info.size = len(self._text)
            tar.addfile(info, io.BytesIO(self._text))
        out.seek(0)
        return out

    def close(self) -> None:
        pass
