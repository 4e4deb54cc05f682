"""URLs: where a request goes, read so strictly that no library can see another host there.

Parsers differ: in ``http://one\\@two/`` some see the host ``one`` and some ``two``. Credentials
belong to an origin, so what plain URLs don't have is refused.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from .answer import WireError

_PORTS = {"http": 80, "https": 443}
#: No user, no backslash, nothing escaped in the host; addresses of version 6 in brackets, no zone.
_URL = re.compile(
    r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?([/?][^#]*)?(?:#.*)?", re.I | re.A
)


class BadUrlError(WireError, ValueError):
    """Text that isn't a plain URL of HTTP."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:200]!r} is no URL to go to", passing=False)


class Url(NamedTuple):
    """Where a request goes; ``scheme`` and ``host`` in lower case."""

    scheme: str
    #: An address of version 6 stands in brackets.
    host: str
    port: int
    #: Host, and the port if one was given, as they were written.
    netloc: str
    #: Path and query, what isn't printable ASCII in them escaped.
    target: str

    @property
    def origin(self) -> str:
        """What credentials belong to (RFC 6454)."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


def parsed(url: str) -> Url:
    """Take a URL apart.

    Raises:
        BadUrlError, a ValueError: it is none of HTTP, or has user info, backslashes or control
            characters.
    """
    match = _URL.fullmatch(url)
    if match is None or "\\" in url or not url.isprintable():
        raise BadUrlError(url)
    scheme = match[1].lower()
    port = int(match[3]) if match[3] else _PORTS[scheme]
    if port > 65_535:
        raise BadUrlError(url)
    target = re.sub(r"[^!-~]+", lambda found: quote(found[0]), match[4] or "")
    host = match[2]
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise BadUrlError(url) from None
    netloc = f"{host}:{port}" if match[3] else host
    if not target.startswith("/"):
        target = f"/{target}"
    return Url(scheme, host.lower(), port, netloc, target)


def joined(url: str, location: str) -> str:
    """Return where ``location`` leads from ``url``; raises as ``parsed`` does."""
    if not location.isprintable():  # which urljoin would pass over
        raise BadUrlError(location)
    try:
        target = urljoin(url, location)
    except ValueError:
        raise BadUrlError(location) from None
    parsed(target)
    return target


def origin(url: str) -> str:
    """Return scheme, host and port of a URL; raises as ``parsed`` does."""
    return parsed(url).origin


def is_loopback(host: str) -> bool:
    """Say whether a host, perhaps with a port, is this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
