"""Asking: small questions without a body, whose answers are read at once.

The standard library is enough for them. To import urllib3, which streams (see ``streaming``), takes
longer than to find out that all of an image is here already.
"""

from __future__ import annotations

import http.client
import select
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .answer import BROKE, NO_ANSWER, Answer, WireError, explained

if TYPE_CHECKING:
    from .urls import Url


_ERRORS = (OSError, http.client.HTTPException)


class Asker:
    """Connections for questions. Any number of threads may use it at once."""

    def __init__(self, connect: float, read: float, context: Callable[[Url], ssl.SSLContext]):
        """``connect`` and ``read`` are seconds until an attempt to do so has failed."""
        self._connect = connect
        self._read = read
        self._context = context
        self._lock = threading.Lock()
        self._idle: dict[str, http.client.HTTPConnection] = {}
        self._closed = False

    def get(self, url: Url, headers: Mapping[str, str]) -> Answer:
        """Ask one question.

        Raises:
            WireError: there is no answer.
        """
        connection = self._known(url) or self._made(url)
        try:
            connection.request("GET", url.target, headers=dict(headers))
            response = connection.getresponse()
        except _ERRORS as error:
            connection.close()
            raise explained(error) from error
        return _Asked(self, url, connection, response)

    def keep(self, url: Url, connection: http.client.HTTPConnection) -> None:
        """Take a connection back for the next question."""
        with self._lock:
            if self._closed:
                before: http.client.HTTPConnection | None = connection
            else:
                before = self._idle.get(url.origin)
                self._idle[url.origin] = connection
        if before is not None:
            before.close()

    def close(self) -> None:
        """Close what isn't in use, and what is once it comes back."""
        with self._lock:
            self._closed = True
            idle = list(self._idle.values())
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _known(self, url: Url) -> http.client.HTTPConnection | None:
        with self._lock:
            connection = self._idle.pop(url.origin, None)
        if connection is None or connection.sock is None:
            return None
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        if poll.poll(0):  # nothing was asked: it has been closed at the other end
            connection.close()
            return None
        return connection

    def _made(self, url: Url) -> http.client.HTTPConnection:
        host = url.host.strip("[]")
        if url.scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, url.port, timeout=self._connect, context=self._context(url)
            )
        else:
            made = http.client.HTTPConnection(host, url.port, timeout=self._connect)
        try:
            made.connect()
        except TimeoutError as error:
            made.close()
            raise WireError(NO_ANSWER) from error
        except UnicodeError as error:  # labels that are empty or too long
            made.close()
            raise WireError(f"{host!r} is no host name", passing=False) from error
        except _ERRORS as error:
            made.close()
            raise explained(error) from error
        made.sock.settimeout(self._read)
        return made


class _Asked(Answer):
    _errors = _ERRORS

    def __init__(
        self,
        asker: Asker,
        url: Url,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        super().__init__(response)
        self._asker = asker
        self._url = url
        self._connection: http.client.HTTPConnection | None = connection

    def header(self, name: str) -> str:
        return ", ".join(self._response.headers.get_all(name, ()))

    def read(self, amount: int) -> bytes:
        data = super().read(amount)
        if not data and amount and self._response.length:
            raise WireError(BROKE)  # which the library leaves to its caller to see
        return data

    def release(self) -> None:
        connection = self._connection
        if connection is not None and self._response.isclosed() and connection.sock is not None:
            self._connection = None
            self._asker.keep(self._url, connection)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        super().close()
        if connection is not None:
            connection.close()

    def _explained(self, error: Exception) -> WireError:
        return explained(error)
