"""Endpoint: one registry or mirror, spoken to with patience and with suspicion.

A request goes through here in this order: the scheme is settled (TLS, or plain HTTP for loopback
and where the settings say so), what is known of the authorisation is added, redirects are followed
with the authorisation left behind at the border of the origin, a challenge is answered once, and
what may pass is repeated (see ``patience``). The rest is an error that names the registry.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast
from urllib.parse import urljoin, urlsplit

from . import tls
from .answer import STOPPED, Answer, WireError, drain
from .errors import RegistryError
from .patience import PASSING, Patience
from .reference import DOCKER_HUB
from .settings import Settings
from .urls import is_loopback, joined, origin, parsed
from .wire import Wire

if TYPE_CHECKING:
    from .authority import Authority
    from .streaming import Body

#: What is asked of a token realm (docker/distribution, "Token Scope Documentation").
Scopes: TypeAlias = tuple[str, ...]
USER_AGENT = "cowshed"
_HUB = "registry-1.docker.io"
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 6
_MAX_MESSAGE = 64 << 10
_TLS_WANTED = b"HTTP request to an HTTPS server"


class _Wanted(NamedTuple):
    """One request, before it is known where it leads and what it needs to show."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Callable[[], Body] | bytes | None
    #: What comes back is small and read at once.
    asks: bool


class Endpoint:
    """One registry or mirror. Any number of threads may use it at once."""

    def __init__(self, place: str, settings: Settings, wire: Wire) -> None:
        """``place`` is a host with its port, for mirrors perhaps with a path behind it."""
        host, _, prefix = place.partition("/")
        self.name = host
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.patience = Patience(host, settings)
        self._settings = settings
        self._wire = wire
        self._known_authority: Authority | None = None
        self._schemes = self._possible_schemes(host)
        self._lock = threading.Lock()

    @property
    def _authority(self) -> Authority:
        """What to show; made when the registry asks, as many never do."""
        with self._lock:
            if self._known_authority is None:
                from .authority import Authority
                from .credentials import CredentialFiles

                files = CredentialFiles(self._settings.auth_file)
                self._known_authority = Authority(
                    self.name, self._wire, files, self._settings.realms, self.patience
                )
            return self._known_authority

    def _possible_schemes(self, host: str) -> list[str]:
        if host in self._settings.plain_http:
            return ["http"]
        # Nobody listens in on loopback, and without certificates of its own a registry there has
        # none: plain HTTP is tried first, which takes a tenth of a handshake.
        if is_loopback(host) and not tls.directories(host, self._settings.certs):
            return ["http", "https"]
        return ["https"]

    @property
    def base(self) -> str:
        """Scheme and host, as far as they are settled."""
        return f"{self._schemes[0]}://{_HUB if self.name == DOCKER_HUB else self.name}"

    def request(
        self,
        method: str,
        path: str,
        *,
        scopes: Scopes = (),
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Body] | bytes | None = None,
        expect: Collection[int] = (200,),
        repeat: bool = True,
        take: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Send a request and return the answer, its body unread, if its status is expected.

        ``path`` begins with ``/v2/`` or is an absolute URL that the registry named. ``body`` is
        called anew for every attempt. ``take`` reads the body of an answer with status 200, to a
        ``GET`` without a body of its own: where that breaks, it is an attempt that failed.

        Raises:
            UnreachableError: no answer after all attempts.
            UnauthorisedError: it refuses what credentials there are.
            RateLimitedError: it asks to wait for too long.
            RegistryError: any other status.
        """

        wanted = _Wanted(method, path, headers or {}, body, take is not None)

        def send() -> Answer:
            response = self._authorised(wanted, scopes)
            if take is not None and response.status == 200:
                take(response)
            return response

        response = self.patience.run(
            send,
            "can't be reached",
            expect=expect,
            repeat=repeat,
        )
        if response.status in expect:
            return response
        raise self.failure(response, f"{method} {urlsplit(path).path}")

    def failure(self, response: Answer, about: str) -> RegistryError:
        """Return the error for an answer that nobody expected; reads its body."""
        said = _message(response)
        status = response.status
        if status in (401, 403):
            return self._authority.refusal(said or f"status {status}")
        return RegistryError(
            self.name,
            f"{about}: status {status}{f' ({said})' if said else ''}",
            passing=status in PASSING,
        )

    # -- parts --------------------------------------------------------------------------------

    def _authorised(self, wanted: _Wanted, scopes: Scopes) -> Answer:
        header = self._authority.header(scopes) if self._known_authority else ""
        response, home = self._settled(wanted, header)
        # A second refusal of a token is final, one of a token that had grown old isn't.
        for _ in range(2):
            if response.status != 401 or not home:
                break
            from .challenge import parse_challenges

            challenges = parse_challenges(response.header("WWW-Authenticate"))
            if not challenges:
                break
            drain(response)
            header = self._authority.answer(challenges, scopes, self.base, header)
            response, home = self._settled(wanted, header)
        return response

    def _settled(self, wanted: _Wanted, header: str) -> tuple[Answer, bool]:
        """Send, finding out first whether it is TLS that is spoken."""
        if len(self._schemes) > 1:
            with self._lock:
                if len(self._schemes) > 1:
                    self._schemes = [self._spoken()]
        return self._redirected(wanted, header)

    def _spoken(self) -> str:
        """Return the first scheme in which anything answers."""
        failure: WireError | None = None
        for scheme in self._schemes:
            try:
                response = self._wire.ask(f"{scheme}://{self.name}/v2/", _common())
                wrong = response.status == 400 and _TLS_WANTED in response.read(1024)
                drain(response)
            except WireError as error:
                if failure is None:
                    failure = error
                if str(error) in ("connection refused", STOPPED):
                    break
                continue
            if not wrong:
                return scheme
        assert failure is not None
        raise failure

    def _redirected(self, wanted: _Wanted, header: str) -> tuple[Answer, bool]:
        """Send and go where redirects lead; say whether the answer is the registry's own."""
        url = urljoin(self.base, wanted.path)
        home = origin(self.base)
        for _ in range(_MAX_REDIRECTS):
            sent = {**_common(), **wanted.headers}
            if header and origin(url) == home:
                sent["Authorization"] = header
            if wanted.asks:
                response = self._wire.ask(url, sent)
            else:
                body = wanted.body() if callable(wanted.body) else wanted.body
                response = self._wire.send(wanted.method, url, sent, body)
            location = response.header("Location")
            moved = response.status in (307, 308) or wanted.method in ("GET", "HEAD")
            if response.status not in _REDIRECTS or not location or not moved:
                return response, origin(url) == home
            drain(response)
            url = self.target(url, location)
        raise RegistryError(self.name, f"it redirects more than {_MAX_REDIRECTS} times")

    def target(self, url: str, location: str) -> str:
        """Return where a redirect or ``Location`` leads.

        Raises:
            RegistryError: nowhere, to another scheme, or from TLS to plain HTTP.
        """
        try:
            target = joined(url, location)
            parts = parsed(target)
        except ValueError:
            raise RegistryError(self.name, f"it redirects to {location[:200]!r}") from None
        if parts.scheme == "http" and self.base.startswith("https:"):
            raise RegistryError(self.name, f"it redirects from TLS to plain HTTP ({parts.netloc})")
        return target


def _common() -> dict[str, str]:
    return {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}


def _message(response: Answer) -> str:
    """Return what the registry says about an error (distribution-spec, "Error Codes")."""
    try:
        data = response.read(_MAX_MESSAGE)
    except WireError:
        return ""
    finally:
        response.close()
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    errors = cast("dict[str, Any]", document).get("errors")
    if not isinstance(errors, list):
        return ""
    said: list[str] = []
    for error in cast("list[object]", errors)[:3]:
        if isinstance(error, dict):
            fields = cast("dict[str, Any]", error)
            text = fields.get("message") or fields.get("code")
            if isinstance(text, str):
                said.append(" ".join(text.split())[:200])
    return "; ".join(said)
