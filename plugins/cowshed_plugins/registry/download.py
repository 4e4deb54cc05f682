"""Download: a blob's bytes as a file that mends broken connections by going on where they broke."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from cowshed.errors import DigestMismatchError, NotFoundError
from cowshed.oci import Descriptor

from .answer import ENDS_EARLY, Answer, WireError
from .client import Repository
from .errors import RegistryError, UnreachableError

_GIVEN_UP = "the download was given up"


class BlobReader(io.RawIOBase):
    """A blob from ``offset`` on, from the first of several repositories that gives it.

    A connection that breaks, stalls or ends early is opened again at the byte where it broke, until
    that has failed ``retries`` times in a row without a byte; then the next repository is asked.
    Closing it from another thread makes a read that waits fail at once.
    """

    def __init__(self, places: Sequence[Repository], item: Descriptor, offset: int) -> None:
        super().__init__()
        self._places = list(places)
        self._item = item
        self._offset = offset
        self._failures = 0
        self._response: Answer | None = None
        if offset < item.size or not item.size:
            self._response = self._opened()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while len(view) and self._offset < self._item.size:
            try:
                response = self._open_response()
                # What has come, without waiting for more: somebody reads behind it.
                data = response.read1(min(len(view), self._item.size - self._offset))
                if not data:
                    raise WireError(ENDS_EARLY)
            except WireError as error:
                self._broke(error)
                continue
            view[: len(data)] = data
            self._offset += len(data)
            self._failures = 0
            return len(data)
        return 0

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            if self._offset < self._item.size:
                # A read in another thread is waiting for the network, for up to a minute.
                response.stop()
            else:
                response.release()
            response.close()
        super().close()

    def _open_response(self) -> Answer:
        response = self._response
        if response is None and not self.closed:
            response = self._response = self._opened()
        if response is None or self.closed:
            self.close()  # once more, if it was opened meanwhile
            raise ValueError(_GIVEN_UP)
        return response

    def _opened(self) -> Answer:
        while not self.closed:
            try:
                response, size = self._places[0].open_blob(self._item.digest, self._offset)
            except (RegistryError, NotFoundError):
                if len(self._places) == 1:
                    raise
                self._next_place()
                continue
            except WireError as error:
                self._broke(error)
                continue
            if size is not None and size != self._item.size:
                response.close()
                if len(self._places) > 1:
                    self._next_place()
                    continue
                raise DigestMismatchError(
                    f"blob {self._item.digest}", f"{self._item.size:,} bytes", f"{size:,} bytes"
                )
            return response
        raise ValueError(_GIVEN_UP)

    def _broke(self, error: WireError) -> None:
        """Let go of a broken connection and wait, or give up."""
        response, self._response = self._response, None
        if response is not None:
            response.close()
        if self.closed:
            return
        endpoint = self._places[0].endpoint
        if self._failures >= endpoint.patience.retries:
            if len(self._places) > 1:
                self._next_place()
                return
            raise UnreachableError(
                endpoint.name,
                f"blob {self._item.digest} broke off after {self._offset:,} of "
                f"{self._item.size:,} bytes: {error}; what is here will be used next time",
            ) from error
        endpoint.patience.wait(self._failures)
        self._failures += 1

    def _next_place(self) -> None:
        self._places.pop(0)
        self._failures = 0
