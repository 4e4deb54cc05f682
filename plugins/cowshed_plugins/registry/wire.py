"""Wire: one request to one URL, through connections that are kept for the next.

Nothing here follows a redirect, repeats anything or knows credentials: that is ``endpoint``'s.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import tls
from .asking import Asker
from .proxies import proxy_of
from .urls import Url, parsed

if TYPE_CHECKING:
    from .answer import Answer
    from .streaming import Body, Streams

_CONNECT_SECONDS = 15.0


class Wire:
    """Connections to any number of hosts. Any number of threads may use it at once."""

    def __init__(self, timeout: float, certs: str = "") -> None:
        self._seconds = min(timeout, _CONNECT_SECONDS), timeout
        self._certs = certs
        self._lock = threading.RLock()
        self._asker = Asker(*self._seconds, self._context)
        self._made_streams: Streams | None = None
        self._usual: ssl.SSLContext | None = None

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
    ) -> Answer:
        """Send one request; the answer's body is for the caller to read.

        Raises:
            WireError: there is no answer, or the URL is none.
        """
        return self._streams.send(method, parsed(url), headers, body)

    def ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Get what is small and read at once.

        Raises:
            WireError: as ``send``.
        """
        place = parsed(url)
        if proxy_of(place) is not None:
            return self._streams.send("GET", place, headers, None)
        return self._asker.get(place, headers)

    def close(self) -> None:
        """Close what isn't in use."""
        self._asker.close()
        with self._lock:
            streams = self._made_streams
        if streams is not None:  # outside: they ask for contexts while they hold their own lock
            streams.close()

    @property
    def _streams(self) -> Streams:
        with self._lock:
            if self._made_streams is None:
                self._made_streams = _streams_class()(*self._seconds, self._context)
            return self._made_streams

    def _context(self, url: Url) -> ssl.SSLContext:
        places = tls.directories(url.netloc, self._certs)
        if places:
            return tls.context(places)
        with self._lock:
            if self._usual is None:  # 20 ms: the system's authorities are many
                self._usual = tls.context([])
            return self._usual


def _streams_class() -> type[Streams]:
    # CPython 3.11 keeps frames in pieces of 16 KiB, and calls across the end of one map and unmap
    # the next each time. urllib3's patterns, compiled as deep as a command is by now, take 3,000
    # such calls and 60 ms; a thread begins a piece of its own. Failures are the import's below.
    thread = threading.Thread(target=_imported)
    thread.start()
    thread.join()
    from .streaming import Streams

    return Streams


def _imported() -> None:
    import contextlib

    with contextlib.suppress(Exception):
        import urllib3  # noqa: F401  # pyright: ignore[reportUnusedImport]
