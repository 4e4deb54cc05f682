"""Streaming: requests and answers of any size, in both directions, through pooled connections."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, TypeAlias

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from .answer import (
    BROKE,
    NO_ANSWER,
    STOPPED,
    UNKNOWN_HOST,
    Answer,
    WireError,
    explained,
    last_words,
)
from .proxies import proxy_headers, proxy_of

if TYPE_CHECKING:
    from .urls import Url

Body: TypeAlias = bytes | IO[bytes] | Iterator[bytes]
_POOLED = 8
#: Bytes of an upload that are read and sent at once; urllib3 would take 16 KiB.
_BLOCK = 256 << 10

_ERRORS = (HTTPError, OSError)


class Streams:
    """Connections to any number of hosts. Any number of threads may use it at once."""

    def __init__(self, connect: float, read: float, context: Callable[[Url], ssl.SSLContext]):
        """``connect`` and ``read`` are seconds until an attempt to do so has failed."""
        self._timeout = urllib3.Timeout(connect=connect, read=read)
        self._context = context
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}

    def send(self, method: str, url: Url, headers: Mapping[str, str], body: Body | None) -> Answer:
        """Send one request.

        Raises:
            WireError: there is no answer.
        """
        try:
            response = self._pool(url).request(
                method,
                str(url),
                headers=headers,
                body=body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout,
            )
        except _ERRORS as error:
            raise _explained(error) from error
        return _Stream(response)

    def close(self) -> None:
        """Close what isn't in use."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _pool(self, url: Url) -> urllib3.PoolManager:
        with self._lock:
            pool = self._pools.get(url.origin)
            if pool is None:
                pool = self._pools[url.origin] = self._make(url)
        return pool

    def _make(self, url: Url) -> urllib3.PoolManager:
        context = self._context(url) if url.scheme == "https" else None
        proxy = proxy_of(url)
        if proxy is None:
            return urllib3.PoolManager(2, maxsize=_POOLED, ssl_context=context, blocksize=_BLOCK)
        return urllib3.ProxyManager(
            proxy.geturl(),
            2,
            maxsize=_POOLED,
            ssl_context=context,
            blocksize=_BLOCK,
            proxy_headers=proxy_headers(proxy),
        )


class _Stream(Answer):
    _errors = _ERRORS

    def header(self, name: str) -> str:
        return str(self._response.headers.get(name, ""))

    def release(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self._response.release_conn()

    def stop(self) -> None:
        with contextlib.suppress(ValueError, RuntimeError, *_ERRORS):
            if isinstance(self._response, urllib3.HTTPResponse):
                self._response.shutdown()

    def _explained(self, error: Exception) -> WireError:
        return _explained(error)


def _explained(error: Exception) -> WireError:
    return explained(error, _words, (NameResolutionError, LocationValueError))


def _words(error: BaseException) -> str | None:
    match error:
        case ProxyError():
            return f"the proxy doesn't help: {last_words(error)}"
        case NameResolutionError():
            return UNKNOWN_HOST
        case NewConnectionError():  # a kind of ConnectTimeoutError; what is below it says more
            return None
        case ConnectTimeoutError():
            return NO_ANSWER
        case ReadTimeoutError():
            return STOPPED
        case IncompleteRead():
            return BROKE
        case _:
            return None
