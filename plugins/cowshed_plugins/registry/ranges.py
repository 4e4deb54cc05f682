"""Ranges: parts of a blob, many with one request where the registry can do that (RFC 9110, 14)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from email.message import Message

from cowshed.errors import NotFoundError, UnsupportedError
from cowshed.oci import Descriptor

from .answer import ENDS_EARLY, Answer, WireError, drain
from .client import CONTENT_RANGE, Repository
from .errors import RegistryError, UnreachableError

#: Ranges of one request: their header stays below the 4 KiB that the strictest servers take.
_BATCH = 96
_READ = 256 << 10
_MAX_LINE = 4 << 10
_MAX_HEADERS = 32

Range = tuple[int, int]


def read_ranges(
    places: Sequence[Repository], item: Descriptor, ranges: Sequence[Range]
) -> Iterator[tuple[int, bytes]]:
    """Yield what comes of ``ranges``, ascending and apart, in pieces with their offsets.

    A connection that breaks is opened again for what is missing, ``retries`` times in a row without
    a byte; then the next place is asked.

    Raises:
        UnsupportedError: no place does ranges.
        RegistryError: it can't be reached or refuses.
    """
    reader = _Reader(item, ranges)
    for number, place in enumerate(places):
        try:
            yield from reader.read(place)
            return
        except (RegistryError, NotFoundError, UnsupportedError):
            if number + 1 == len(places):
                raise


class _Reader:
    def __init__(self, item: Descriptor, ranges: Sequence[Range]) -> None:
        self._item = item
        self._left = list(ranges)
        #: Ranges of a request; 1 where a registry answers several with everything.
        self._batch = _BATCH

    def read(self, place: Repository) -> Iterator[tuple[int, bytes]]:
        failures = 0
        while self._left:
            before = self._left[0]
            try:
                yield from self._request(place)
            except WireError as error:
                if self._left and self._left[0] == before:
                    if failures >= place.endpoint.patience.retries:
                        raise UnreachableError(
                            place.endpoint.name,
                            f"ranges of blob {self._item.digest} don't come: {error}",
                        ) from error
                    place.endpoint.patience.wait(failures)
                    failures += 1
                    continue
            failures = 0

    def _request(self, place: Repository) -> Iterator[tuple[int, bytes]]:
        asked = self._left[: self._batch]
        rest = len(self._left) - len(asked)
        response = place.open_ranges(self._item.digest, asked)
        try:
            if response.status != 206:
                if len(asked) == 1:
                    raise UnsupportedError(f"{place.endpoint.name} doesn't give ranges of blobs")
                self._batch = 1
                return
            # At most what is between them comes, too, and a head for each part.
            body = _Body(response, asked[-1][1] - asked[0][0] + (len(asked) + 1) * _MAX_LINE)
            if response.header("Content-Type").startswith("multipart/byteranges"):
                parts = _parts(body, _boundary(response), len(asked))
            else:
                parts = iter([_range(response.header("Content-Range"))])
            came = False
            for start, end in parts:
                for offset, data in body.pieces(start, end):
                    for wanted in self._cut(offset, data):
                        came = True
                        yield wanted
                    if len(self._left) <= rest:
                        drain(response)
                        return
            if not came:
                # An answer that has nothing of what was asked for won't get better.
                raise UnsupportedError(f"{place.endpoint.name} gives other ranges than asked for")
            response.release()
        finally:
            response.close()

    def _cut(self, offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield those of the bytes that are missing."""
        while data and self._left:
            start, end = self._left[0]
            if offset + len(data) <= start:
                return
            if offset < start:
                data, offset = data[start - offset :], start
            if offset != start:
                return  # a part that stands in a wrong place
            piece, data = data[: end - start], data[end - start :]
            offset += len(piece)
            if offset == end:
                self._left.pop(0)
            else:
                self._left[0] = offset, end
            yield start, piece


class _Body:
    """An answer's body, by lines and by pieces. Of more than ``most`` bytes no part is taken."""

    def __init__(self, response: Answer, most: int) -> None:
        self._response = response
        self._most = most
        self._buffer = b""

    def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise WireError("it sends what is no part of a multipart answer")
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of a part."""
        while start < end:
            if not self._buffer:
                self._fill()
            data, self._buffer = self._buffer[: end - start], self._buffer[end - start :]
            yield start, data
            start += len(data)

    def _fill(self) -> None:
        if not self._most:
            raise WireError("it sends more than it was asked for")
        # Not more than that: what comes behind it is nobody's business, however fast it comes.
        data = self._response.read1(min(_READ, self._most))
        if not data:
            raise WireError(ENDS_EARLY)
        self._most -= len(data)
        self._buffer += data


def _boundary(response: Answer) -> bytes:
    message = Message()
    message["Content-Type"] = response.header("Content-Type")
    boundary = message.get_boundary("")
    if not boundary:
        raise WireError("it sends a multipart answer without a boundary")
    try:
        return b"--" + boundary.encode("latin-1")
    except UnicodeEncodeError:
        raise WireError("it sends a multipart answer with a boundary that can't be one") from None


def _parts(body: _Body, boundary: bytes, most: int) -> Iterator[Range]:
    """Yield the range of each part; its bytes are to be taken before the next is asked for."""
    for _ in range(2 * (most + 1)):  # a boundary has an empty line before it
        line = body.line()
        if line == boundary + b"--":
            return
        if line != boundary:
            if line:
                raise WireError("it sends what is no part of a multipart answer")
            continue
        found = ""
        for _ in range(_MAX_HEADERS):
            line = body.line()
            if not line:
                break
            key, _, value = line.decode("latin-1").partition(":")
            if key.lower() == "content-range":
                found = value.strip()
        yield _range(found)
    raise WireError("it sends more parts than it was asked for")


def _range(text: str) -> Range:
    match = re.fullmatch(CONTENT_RANGE, text)
    if match is None:
        raise WireError("it doesn't say which range it sends")
    return int(match[1]), int(match[2]) + 1
