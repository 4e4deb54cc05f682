"""Authority: which ``Authorization`` a registry gets, and who else may see what is behind it.

Nothing is sent before it is asked for. Basic credentials go to the registry's own origin only. For
tokens (docker/distribution, "Token Authentication Specification"; OAuth 2 for refresh tokens) a
realm is asked, and it gets credentials only if it is on the registry's host, or on one that the
settings name for this registry; others are asked without (CVE-2020-15157). Docker Hub's realm is
the one that needs no setting.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlencode

import attrs

from .answer import Answer, drain, read_whole
from .challenge import Challenge
from .credentials import CredentialFiles, Credentials
from .endpoint import USER_AGENT, Scopes
from .errors import RegistryError, UnauthorisedError
from .patience import Patience
from .reference import DOCKER_HUB
from .urls import joined, origin, parsed
from .wire import Wire

_REALMS = {DOCKER_HUB: ("auth.docker.io",)}
_MAX_ANSWER = 1 << 20
_REDIRECTS = 3
#: What a token is good for if the realm doesn't say (specification: 60 s), less some margin.
_LIFE = 60.0
_MARGIN = 10.0
#: Longer than this no token is believed to be good.
_LONGEST = 86_400.0


@attrs.frozen
class _Token:
    header: str
    until: float


class Authority:
    """What one registry gets to see. Any number of threads may ask at once."""

    def __init__(
        self,
        registry: str,
        wire: Wire,
        files: CredentialFiles,
        realms: Mapping[str, tuple[str, ...]],
        patience: Patience,
    ) -> None:
        self._registry = registry
        self._wire = wire
        self._files = files
        self._patience = patience
        may_see = (*_REALMS.get(registry, ()), *realms.get(registry, ()))
        self._realms = {realm.lower() for realm in may_see}
        self._lock = threading.Lock()
        self._basic = ""
        self._tokens: dict[Scopes, _Token] = {}
        self._searched = False
        self._credentials: Credentials | None = None
        #: Why credentials weren't sent, for the message.
        self._withheld = ""

    def header(self, scopes: Scopes) -> str:
        """Return what is known to be needed; empty: nothing yet."""
        with self._lock:
            token = self._tokens.get(scopes)
            if token is not None and token.until > time.monotonic():
                return token.header
            return self._basic

    def answer(
        self, challenges: Iterable[Challenge], scopes: Scopes, base: str, refused: str
    ) -> str:
        """Return the header that the registry at ``base`` asks for; ``refused`` is what it refused.

        Raises:
            UnauthorisedError: there are no credentials, or those there are don't help.
            RegistryError: the realm can't be asked.
        """
        known = {challenge.scheme: challenge for challenge in challenges}
        with self._lock:
            credentials = self._find(scopes)
            if credentials is not None and credentials.registry_token and not refused:
                return self._keep(scopes, f"Bearer {credentials.registry_token}", _LIFE)
            if "bearer" in known:
                token = self._tokens.get(scopes)
                if token is not None and token.header != refused:
                    return token.header  # another thread was faster
                header, life = self._token(known["bearer"], scopes, base, credentials)
                if header == refused:
                    raise self.refusal("access is denied")
                return self._keep(scopes, header, life)
            if "basic" in known:
                if credentials is None or not (credentials.username or credentials.password):
                    raise self.refusal("it asks for a name and a password")
                if refused == credentials.basic:
                    raise self.refusal("name or password is wrong")
                self._basic = credentials.basic
                return self._basic
        schemes = ", ".join(sorted(known)) or "nothing known"
        raise self.refusal(f"it asks for {schemes!r}, which isn't spoken here")

    def refusal(self, why: str) -> UnauthorisedError:
        """Return the error that says why, and where credentials were looked for."""
        found = self._credentials
        if self._withheld:
            why = f"{why}; {self._withheld}"
        return UnauthorisedError(
            self._registry,
            why,
            self._files.looked or self._files.files,
            found="" if found is None else found.origin,
        )

    def _find(self, scopes: Scopes) -> Credentials | None:
        if not self._searched:
            repository = scopes[0].split(":")[1] if scopes else ""
            self._credentials = self._files.find(self._registry, repository)
            self._searched = True
        return self._credentials

    def _keep(self, scopes: Scopes, header: str, life: float) -> str:
        self._tokens[scopes] = _Token(header, time.monotonic() + max(life - _MARGIN, 1.0))
        return header

    # -- tokens -------------------------------------------------------------------------------

    def _token(
        self, challenge: Challenge, scopes: Scopes, base: str, credentials: Credentials | None
    ) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        try:
            parts = parsed(realm)
        except ValueError:
            raise RegistryError(
                self._registry, f"it names an unusable token realm {realm[:200]!r}"
            ) from None
        if credentials is not None and not self._may_see(realm, base):
            self._withheld = (
                f"its token realm is on another host, {parts.netloc}, which gets no credentials "
                "unless [plugin.registry.realms] names it for this registry"
            )
            credentials = None
        wanted = list(scopes)
        asked = challenge.parameters.get("scope", "")
        if asked and asked not in wanted and not wanted:
            wanted = [asked]
        query = [("scope", scope) for scope in wanted]
        service = challenge.parameters.get("service")
        if service:
            query.append(("service", service))
        answer = self._ask(realm, query, credentials)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not (token.isascii() and token.isprintable()):
            raise RegistryError(self._registry, f"its token realm {parts.netloc} gave no token")
        life = answer.get("expires_in")
        if not isinstance(life, (int, float)):
            life = _LIFE
        return f"Bearer {token}", float(min(life, _LONGEST))

    def _may_see(self, realm: str, base: str) -> bool:
        ours, theirs = parsed(base), parsed(realm)
        if ours.scheme == "https" and theirs.scheme != "https":
            return False
        if theirs.host == ours.host:
            return True
        return theirs.netloc.lower() in self._realms or theirs.host in self._realms

    def _ask(
        self, realm: str, query: list[tuple[str, str]], credentials: Credentials | None
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        body: bytes | None = None
        method = "GET"
        if credentials is not None and credentials.identity_token:
            form = [("scope", " ".join(value for name, value in query if name == "scope"))]
            form += [pair for pair in query if pair[0] == "service"]
            form += [("grant_type", "refresh_token"), ("client_id", "cowshed")]
            form.append(("refresh_token", credentials.identity_token))
            method, url, body = "POST", realm, urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credentials is not None:
                headers["Authorization"] = credentials.basic
                query = [*query, ("account", credentials.username)]
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        what = f"can't ask its token realm {parsed(realm).netloc}"
        data = b""

        def ask() -> Answer:
            nonlocal data
            response = self._follow(method, url, headers, body)
            try:
                data = read_whole(response, _MAX_ANSWER)
            finally:
                response.close()
            return response

        response = self._patience.run(ask, what)
        if response.status in (400, 401, 403):
            raise self.refusal(
                "the credentials are refused" if credentials is not None else "access is denied"
            )
        if response.status != 200:
            raise RegistryError(
                self._registry, f"its token realm answers with status {response.status}"
            )
        try:
            answer: object = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}

    def _follow(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """Ask, going where a redirect leads without credentials, unless the origin is the same."""
        first = origin(url)
        for _ in range(_REDIRECTS):
            response = self._sent(method, url, headers, body)
            location = response.header("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location or body:
                return response
            try:
                target = joined(url, location)
            except ValueError:
                raise RegistryError(
                    self._registry, f"its token realm redirects to {location[:200]!r}"
                ) from None
            if first.startswith("https:") and not target.startswith("https:"):
                return response
            drain(response)
            url = target
            if origin(url) != first:
                headers = {name: headers[name] for name in headers if name != "Authorization"}
        return self._sent(method, url, headers, body)

    def _sent(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        if body is None:
            return self._wire.ask(url, headers)
        return self._wire.send(method, url, headers, body)
