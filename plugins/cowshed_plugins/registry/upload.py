"""Upload: one blob on its way to a registry, in one piece or in chunks.

Whoever knows digest and size beforehand sends it in one piece, which may be sent again. Whoever
makes it as it goes sends chunks; after a failure the registry is asked how far it got.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

from cowshed.context import Closing
from cowshed.oci import Descriptor

from .answer import Answer, drain
from .endpoint import Endpoint, Scopes
from .errors import RegistryError, UnreachableError

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class LostUploadError(RegistryError):
    """The registry doesn't know the upload any more, or not up to where the sender is."""


class Upload:
    """A session that the registry has opened."""

    def __init__(
        self,
        endpoint: Endpoint,
        scopes: Scopes,
        response: Answer,
        has_blob: Callable[[Descriptor], bool],
    ) -> None:
        self._endpoint = endpoint
        self._has_blob = has_blob
        self._scopes = scopes
        self._location = ""
        self._move(response)
        least = response.header("OCI-Chunk-Min-Length")
        #: The shortest chunk that the registry takes, but for the last.
        self.least = int(least) if re.fullmatch("[0-9]{1,18}", least) else 0
        self.offset = 0

    def put(self, item: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Send a whole blob. It is opened again for each attempt, each a fresh session's first."""
        with _Opened(open_blob) as opened:
            response = self._endpoint.request(
                "PUT",
                self._closing(item.digest),
                scopes=self._scopes,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(item.size),
                },
                body=opened.again,
                expect=(201, 404),
                repeat=False,
            )
        drain(response)
        if response.status == 404:
            raise LostUploadError(self._endpoint.name, "the upload is gone", passing=True)

    def write(self, chunk: bytes) -> None:
        """Send the next chunk, the rest of it again if the registry got only a part.

        Raises:
            LostUploadError: begin a new upload with the first byte.
        """
        start = self.offset
        end = start + len(chunk)
        attempt = 0
        while self.offset < end:
            rest = chunk[self.offset - start :]
            try:
                response = self._endpoint.request(
                    "PATCH",
                    self._location,
                    scopes=self._scopes,
                    headers={
                        "Content-Type": "application/octet-stream",
                        "Content-Range": f"{self.offset}-{end - 1}",
                        "Content-Length": str(len(rest)),
                    },
                    body=rest,
                    expect=(202, 204, 404, 416, 500, 502, 503, 504),
                    repeat=False,
                )
            except UnreachableError:
                if attempt >= self._endpoint.patience.retries:
                    raise
                response = None
            if response is not None:
                drain(response)
                if response.status in (202, 204):
                    self._move(response)
                    self.offset = end
                    return
                if response.status == 404:
                    raise LostUploadError(self._endpoint.name, "the upload is gone")
                if attempt >= self._endpoint.patience.retries:
                    raise RegistryError(
                        self._endpoint.name, f"an upload failed: status {response.status}"
                    )
            self._endpoint.patience.wait(attempt)
            attempt += 1
            self._ask(start, end)

    def finish(self, digest: str) -> None:
        """End a chunked upload; the registry compares the digest.

        Raises:
            LostUploadError: begin a new upload with the first byte.
        """
        response = self._endpoint.request(
            "PUT",
            self._closing(digest),
            scopes=self._scopes,
            headers={"Content-Length": "0"},
            body=b"",
            expect=(201, 404),
        )
        drain(response)
        if response.status == 404:
            # An answer that was lost may have said 201: there is no upload then, but a blob.
            item = Descriptor(
                media_type="application/octet-stream", digest=digest, size=self.offset
            )
            if not self._has_blob(item):
                raise LostUploadError(self._endpoint.name, "the upload is gone")

    def cancel(self) -> None:
        """Tell the registry that nothing more comes; what it says to that doesn't matter."""
        try:
            response = self._endpoint.request(
                "DELETE",
                self._location,
                scopes=self._scopes,
                expect=range(100, 600),
                repeat=False,
            )
        except RegistryError:
            return
        drain(response)

    # -- parts --------------------------------------------------------------------------------

    def _move(self, response: Answer) -> None:
        location = response.header("Location")
        if not location:
            if self._location:
                return
            raise RegistryError(self._endpoint.name, "it doesn't say where an upload goes")
        self._location = self._endpoint.target(self._location or self._endpoint.base, location)

    def _closing(self, digest: str) -> str:
        separator = "&" if "?" in self._location else "?"
        return f"{self._location}{separator}digest={quote(digest, safe='')}"

    def _ask(self, start: int, end: int) -> None:
        """Find out how far the registry got."""
        response = self._endpoint.request(
            "GET", self._location, scopes=self._scopes, expect=(200, 202, 204, 404)
        )
        drain(response)
        match = _RANGE.fullmatch(response.header("Range"))
        if response.status == 404 or match is None:
            raise LostUploadError(self._endpoint.name, "the upload is gone")
        # "0-0" is one byte by the specification, and none as docker-registry writes it.
        last = int(match[1])
        reached = last + 1 if last else 0
        if not start <= reached <= end:
            raise LostUploadError(self._endpoint.name, "the upload went astray")
        self._move(response)
        self.offset = reached


class _Opened(Closing):
    """A file opened anew each time it is asked for, and closed in the end."""

    def __init__(self, open_file: Callable[[], BinaryIO]) -> None:
        self._open = open_file
        self._file: BinaryIO | None = None

    def again(self) -> BinaryIO:
        self.close()
        self._file = self._open()
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
