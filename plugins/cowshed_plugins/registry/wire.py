"""Wire: one request to one URL, through pooled connections, a proxy if the environment names one.

Nothing here follows a redirect, repeats anything or knows credentials: that is ``endpoint``'s.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import IO, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.util import Url, parse_url

from . import tls

Response: TypeAlias = urllib3.BaseHTTPResponse
Body: TypeAlias = bytes | IO[bytes] | Iterator[bytes]
#: What a request or the reading of its answer may fail with; ``reason`` puts it in words.
FAILURES = (HTTPError, OSError)
_CONNECT_SECONDS = 15.0
_POOLED = 8
#: Bytes of an upload that are read and sent at once; urllib3 would take 16 KiB.
_BLOCK = 256 << 10
_PORTS = {"http": 80, "https": 443}


class Wire:
    """Connections to any number of hosts. Any number of threads may use it at once."""

    def __init__(self, timeout: float, certs: str = "") -> None:
        self._timeout = urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout)
        self._certs = certs
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._usual: ssl.SSLContext | None = None

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
    ) -> Response:
        """Send one request; the answer's body is for the caller to read, or to ``drain``.

        Raises:
            HTTPError, OSError: one of ``FAILURES``.
        """
        return self._pool(url).request(
            method,
            url,
            headers=headers,
            body=body,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout,
        )

    def close(self) -> None:
        """Close what isn't in use."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        place = origin(url)
        with self._lock:
            pool = self._pools.get(place)
            if pool is None:
                pool = self._pools[place] = self._make(urlsplit(url))
        return pool

    def _make(self, parts: SplitResult) -> urllib3.PoolManager:
        context = self._context(parts.netloc) if parts.scheme == "https" else None
        proxy = _proxy(parts)
        if proxy is None:
            return urllib3.PoolManager(2, maxsize=_POOLED, ssl_context=context, blocksize=_BLOCK)
        return urllib3.ProxyManager(
            proxy.geturl(),
            2,
            maxsize=_POOLED,
            ssl_context=context,
            blocksize=_BLOCK,
            proxy_headers=_proxy_headers(proxy),
        )

    def _context(self, host: str) -> ssl.SSLContext:
        places = tls.directories(host, self._certs)
        if places:
            return tls.context(places)
        if self._usual is None:  # 20 ms: the system's authorities are many
            self._usual = tls.context([])
        return self._usual


def parsed(url: str) -> Url:
    """Take a URL apart with the parser that decides where urllib3 connects to.

    Another one may see another host in it: in ``http://one\\@two/`` urllib3 sees ``one`` and Python
    ``two``. So what plain URLs don't have is refused as well.

    Raises:
        LocationParseError, a ValueError: it is none of HTTP, or has user info, backslashes or
            control characters.
    """
    parts = parse_url(url)
    if (
        parts.scheme not in _PORTS
        or not parts.host
        or parts.auth is not None
        or "\\" in url
        or not url.isprintable()
    ):
        raise LocationParseError(url[:200])
    return parts


def joined(url: str, location: str) -> str:
    """Return where ``location`` leads from ``url``; raises as ``parsed`` does."""
    if not location.isprintable():  # which urljoin would pass over
        raise LocationParseError(location[:200])
    target = urljoin(url, location)
    parsed(target)
    return target


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: credentials belong to one of these.

    Raises:
        LocationParseError: see ``parsed``.
    """
    parts = parsed(url)
    return f"{parts.scheme}://{parts.host}:{parts.port or _PORTS[parts.scheme or '']}"


def is_loopback(host: str) -> bool:
    """Say whether a host, perhaps with a port, is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_whole(response: Response, most: int) -> bytes:
    """Return a body of at most ``most`` bytes, with one byte more where it is longer.

    Raises:
        HTTPError, OSError: one of ``FAILURES``; it ends early, too.
    """
    raw = b""
    # A connection that was closed too early shows in the read after the last bytes only.
    while len(raw) <= most and (more := response.read(most + 1 - len(raw))):
        raw += more
    return raw


def drain(response: Response) -> None:
    """Read what is left, if it is little, so that the connection can be used again."""
    try:
        response.read(64 << 10)
        response.release_conn()
    except FAILURES:
        pass
    finally:
        response.close()


def reason(error: BaseException) -> str:
    """Say in a few words why there is no answer."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ProxyError():
                return f"the proxy doesn't help: {_last(cause)}"
            case NameResolutionError():
                return "its host name isn't known"
            case NewConnectionError():
                pass  # what is below it says more
            case ConnectTimeoutError():
                return "it doesn't answer"
            case ReadTimeoutError() | TimeoutError():
                return "it has stopped sending"
            case ssl.SSLCertVerificationError():
                return f"its certificate isn't trusted ({cause.verify_message})"
            case ssl.SSLError():
                return f"no TLS: {cause.reason or cause}"
            case OSError() if cause.strerror:
                return cause.strerror.lower()
            case IncompleteRead() | http.client.IncompleteRead() | http.client.BadStatusLine():
                return "the connection broke"
            case _:
                pass
        cause = cause.__cause__ or cause.__context__
    return _last(error)


def _last(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


def _proxy(parts: SplitResult) -> SplitResult | None:
    if not any(name.lower().endswith("_proxy") and os.environ[name] for name in os.environ):
        return None
    if is_loopback(parts.netloc):
        return None  # another machine's loopback is never meant
    from urllib.request import getproxies, proxy_bypass

    found = getproxies().get(parts.scheme) or getproxies().get("all")
    if not found or proxy_bypass(parts.netloc):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _proxy_headers(proxy: SplitResult) -> dict[str, str] | None:
    if proxy.username is None:
        return None
    from urllib.parse import unquote

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=pair))
