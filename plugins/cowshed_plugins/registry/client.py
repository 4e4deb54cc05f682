"""Client: one repository of one registry, as distribution-spec 1.1 has it.

Everything that comes in is bounded or streamed, and documents are verified; layers are verified by
whoever unpacks them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from cowshed.errors import DigestMismatchError, LimitExceededError, NotFoundError
from cowshed.oci import MAX_DOCUMENT, Descriptor, Digest, digest_bytes
from cowshed.oci.media import INDEXES, MANIFESTS, OCI_INDEX, SCHEMA_1

from .answer import Answer, WireError, drain, read_whole
from .endpoint import Endpoint, Scopes
from .errors import RegistryError
from .urls import joined, origin, parsed

if TYPE_CHECKING:
    from .upload import Upload

_ACCEPTED = ", ".join([*sorted(MANIFESTS), *sorted(INDEXES)])
_TYPES = MANIFESTS | INDEXES | SCHEMA_1
#: Numbers with as many digits as are sensible; int() refuses 4,301 of them.
CONTENT_RANGE = r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)"
_READ = 256 << 10
_MAX_PAGES = 100


class Document(NamedTuple):
    """A manifest or index as the registry holds it."""

    raw: bytes
    #: What the registry called it; None where it called it nothing in particular.
    media_type: str | None
    digest: str


class Repository:
    """One repository at one endpoint. Any number of threads may use it at once."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = f"{endpoint.prefix}{name}"
        self._pull: Scopes = (f"repository:{self.name}:pull",)
        self._push: Scopes = (f"repository:{self.name}:pull,push",)

    def _path(self, kind: str, what: str = "") -> str:
        return f"/v2/{self.name}/{kind}/{quote(what, safe=':')}"

    # -- documents ----------------------------------------------------------------------------

    def manifest(self, locator: str, *, pushing: bool = False) -> Document:
        """Return the manifest or index behind a tag or digest.

        Raises:
            NotFoundError: there is none.
            LimitExceededError: it has more than 4 MiB.
            DigestMismatchError: its bytes aren't what was asked for.
        """
        where = f"{self.endpoint.name}/{self.name}"
        response, raw = self._whole(
            self._path("manifests", locator),
            f"manifest of {where}",
            {"Accept": _ACCEPTED},
            scopes=self._push if pushing else self._pull,
        )
        if response.status == 404:
            drain(response)
            separator = "@" if ":" in locator else ":"
            raise NotFoundError("image", f"{where}{separator}{locator}")
        digest = digest_bytes(raw)
        if ":" in locator:
            check_digest(raw, locator, f"manifest of {where}")
            digest = locator
        else:
            stated = response.header("Docker-Content-Digest")
            if stated.startswith("sha256:") and stated != digest:
                raise DigestMismatchError(f"manifest of {where}", stated, digest)
        media_type = response.header("Content-Type").partition(";")[0].strip()
        return Document(
            raw=raw, media_type=media_type if media_type in _TYPES else None, digest=digest
        )

    def put_manifest(self, locator: str, raw: bytes, media_type: str) -> bool:
        """Store a manifest or index; return whether the registry took note of its subject."""
        response = self.endpoint.request(
            "PUT",
            self._path("manifests", locator),
            scopes=self._push,
            headers={"Content-Type": media_type},
            body=raw,
            expect=(200, 201, 202),
        )
        drain(response)
        return bool(response.header("OCI-Subject"))

    def document(self, item: Descriptor) -> bytes:
        """Return a small blob such as a config, verified.

        Raises:
            NotFoundError: the registry lacks it.
            DigestMismatchError: its bytes are others.
        """
        what = f"blob {item.digest} of {self.endpoint.name}/{self.name}"
        if item.size > MAX_DOCUMENT:
            raise LimitExceededError(what, MAX_DOCUMENT)
        response, raw = self._whole(self._path("blobs", item.digest), what)
        if response.status == 404:
            drain(response)
            raise self._no_blob(item.digest)
        if len(raw) != item.size:
            raise DigestMismatchError(what, f"{item.size:,} bytes", f"{len(raw):,}")
        check_digest(raw, item.digest, what)
        return raw

    def _whole(
        self,
        path: str,
        what: str,
        headers: dict[str, str] | None = None,
        scopes: Scopes | None = None,
    ) -> tuple[Answer, bytes]:
        """Return an answer of status 200 with its body, or one of status 404."""
        raw = b""

        def take(response: Answer) -> None:
            nonlocal raw
            try:
                if (_length(response) or 0) > MAX_DOCUMENT:
                    raise LimitExceededError(what, MAX_DOCUMENT)
                raw = read_whole(response, MAX_DOCUMENT)
                if len(raw) > MAX_DOCUMENT:
                    raise LimitExceededError(what, MAX_DOCUMENT)
                response.release()
            finally:
                response.close()

        response = self.endpoint.request(
            "GET", path, scopes=scopes or self._pull, headers=headers, expect=(200, 404), take=take
        )
        return response, raw

    # -- blobs --------------------------------------------------------------------------------

    def has_blob(self, item: Descriptor) -> bool:
        """Say whether the registry has the blob in this repository."""
        response = self.endpoint.request(
            "HEAD", self._path("blobs", item.digest), scopes=self._push, expect=(200, 404)
        )
        drain(response)
        length = _length(response)
        if response.status == 200 and length is not None and length != item.size:
            raise DigestMismatchError(
                f"blob {item.digest} at {self.endpoint.name}", f"{item.size:,} bytes", f"{length:,}"
            )
        return response.status == 200

    def open_blob(self, digest: str, offset: int = 0) -> tuple[Answer, int | None]:
        """Begin to read a blob; return the answer, whose body starts at ``offset``, and the blob's
        whole size if the registry says it.

        Raises:
            NotFoundError: the registry lacks it.
            WireError: the connection broke before ``offset``, as the registry sends all.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._get_blob(digest, headers)
        if response.status == 206:
            match = re.fullmatch(CONTENT_RANGE, response.header("Content-Range"))
            if match is None or int(match[1]) != offset:
                response.close()
                raise RegistryError(self.endpoint.name, f"blob {digest}: another range came")
            return response, int(match[3]) if match[3].isdigit() else None
        try:
            _skip(response, offset)
        except WireError:
            response.close()
            raise
        return response, _length(response)

    def open_ranges(self, digest: str, ranges: Sequence[tuple[int, int]]) -> Answer:
        """Ask for ranges of a blob; the answer has status 206 if the registry gives ranges.

        Raises:
            NotFoundError: the registry lacks the blob.
        """
        text = ",".join(f"{start}-{end - 1}" for start, end in ranges)
        return self._get_blob(digest, {"Range": f"bytes={text}"}, (400, 416))

    def _get_blob(self, digest: str, headers: dict[str, str], also: tuple[int, ...] = ()) -> Answer:
        response = self.endpoint.request(
            "GET",
            self._path("blobs", digest),
            scopes=self._pull,
            headers=headers,
            expect=(200, 206, 404, *also),
        )
        if response.status == 404:
            drain(response)
            raise self._no_blob(digest)
        return response

    def _no_blob(self, digest: str) -> NotFoundError:
        return NotFoundError("blob", f"{self.endpoint.name}/{self.name}@{digest}")

    # -- uploads ------------------------------------------------------------------------------

    def start_upload(self, mount: str = "", source: str = "") -> Upload | None:
        """Begin an upload; None if the blob ``mount`` could be taken over from ``source`` instead.

        ``source`` is another repository of this registry.
        """
        scopes = self._push
        query = ""
        if mount:
            scopes = (*self._push, f"repository:{source}:pull")
            query = f"?{urlencode({'mount': mount, 'from': source})}"
        response = self.endpoint.request(
            "POST",
            f"{self._path('blobs', 'uploads')}/{query}",
            scopes=scopes,
            headers={"Content-Length": "0"},
            body=b"",
            expect=(201, 202),
        )
        drain(response)
        if response.status == 201:
            return None
        from .upload import Upload

        return Upload(self.endpoint, self._push, response, self.has_blob)

    # -- what refers to an image --------------------------------------------------------------

    def listed_referrers(self, digest: str) -> list[bytes] | None:
        """Return the pages of the referrers API; None: the registry doesn't have it.

        Raises:
            RegistryError: they don't end, or lead elsewhere. A part of them would look like all.
        """
        path: str | None = self._path("referrers", digest)
        what = f"referrers of {digest} at {self.endpoint.name}"
        pages: list[bytes] = []
        while path is not None:
            if len(pages) == _MAX_PAGES:
                raise RegistryError(self.endpoint.name, f"{what} have more than {_MAX_PAGES} pages")
            response, raw = self._whole(path, what, {"Accept": OCI_INDEX})
            if response.status == 404:
                drain(response)
                return None
            pages.append(raw)
            path = self._next_page(response, path)
        return pages

    def _next_page(self, response: Answer, path: str) -> str | None:
        """Return where a Link header says the next page is; None: this was the last."""
        from .links import next_link  # few lists have pages

        link = next_link(response.header("Link"))
        if link is None:
            return None
        home = self.endpoint.base
        try:
            target = joined(f"{home}{path}", link)
            next_path = parsed(target).target
            # Behind two slashes begins another host, once it is joined to ours.
            if origin(target) != origin(home) or next_path.startswith("//"):
                raise ValueError(target)
        except ValueError:
            raise RegistryError(
                self.endpoint.name, f"its next page would be at {link[:200]!r}"
            ) from None
        return next_path


def _length(response: Answer) -> int | None:
    text = response.header("Content-Length")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _skip(response: Answer, count: int) -> None:
    """Pass over what is here already: not every registry knows ranges."""
    while count and (data := response.read(min(count, _READ))):
        count -= len(data)


def check_digest(raw: bytes, digest: str, what: str) -> None:
    """Raise DigestMismatchError unless ``raw`` has that digest."""
    expected = Digest.parse(digest)
    hasher = expected.hasher()
    hasher.update(raw)
    if hasher.hexdigest() != expected.hex:
        raise DigestMismatchError(what, digest, f"{expected.algorithm}:{hasher.hexdigest()}")
