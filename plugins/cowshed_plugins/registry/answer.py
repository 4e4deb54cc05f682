"""Answer: what comes back for a request, and what may go wrong, whichever library sent it."""

from __future__ import annotations

import abc
import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable
from typing import Any, ClassVar

BROKE = "the connection broke"
ENDS_EARLY = "it ends early"
NO_ANSWER = "it doesn't answer"
STOPPED = "it has stopped sending"
UNKNOWN_HOST = "its host name isn't known"
#: What no other attempt would change.
_FINAL = (ssl.SSLCertVerificationError, socket.gaierror, ConnectionRefusedError)
_PASSED_OVER = 64 << 10


class WireError(OSError):
    """A request or the reading of its answer failed; the text says why in a few words."""

    def __init__(self, reason: str, *, passing: bool = True) -> None:
        super().__init__(reason)
        #: Whether another attempt may go well.
        self.passing = passing


class Answer(abc.ABC):
    """An answer whose body is for the caller to read, or to ``drain``."""

    #: What reading may raise.
    _errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, response: Any) -> None:
        """``response`` is a library's, made after ``http.client.HTTPResponse``."""
        self._response = response
        self.status: int = response.status

    @abc.abstractmethod
    def header(self, name: str) -> str:
        """Return a header's value, several joined by commas (RFC 9110, 5.3); empty: none."""

    @abc.abstractmethod
    def release(self) -> None:
        """Say that the body is read: the connection may be used again."""

    @abc.abstractmethod
    def _explained(self, error: Exception) -> WireError:
        """Say what kept a read from going on."""

    def read(self, amount: int) -> bytes:
        """Return ``amount`` bytes of the body, or fewer at its end.

        Raises:
            WireError: the connection broke, or nothing came for too long.
        """
        return self._taken(self._response.read, amount)

    def read1(self, amount: int) -> bytes:
        """Return what has come, at most ``amount`` bytes, and wait for more only if that is none.

        Raises:
            WireError: as ``read``.
        """
        return self._taken(self._response.read1, amount)

    def stop(self) -> None:
        """Make a read fail that waits in another thread."""
        self.close()

    def close(self) -> None:
        """Let go of the connection, unless it was released. Closing twice is fine."""
        with contextlib.suppress(*self._errors):
            self._response.close()

    def _taken(self, read: Callable[[int], bytes], amount: int) -> bytes:
        try:
            return read(amount)
        except self._errors as error:
            raise self._explained(error) from error
        except (AttributeError, ValueError) as error:
            # Closed in another thread meanwhile; or the library saw a chunk of a negative length.
            raise WireError(BROKE) from error


def read_whole(answer: Answer, most: int) -> bytes:
    """Return a body of at most ``most`` bytes, with one byte more where it is longer.

    Raises:
        WireError: it ends early, too.
    """
    raw = b""
    # A connection that was closed too early shows in the read after the last bytes only.
    while len(raw) <= most and (more := answer.read(most + 1 - len(raw))):
        raw += more
    return raw


def drain(answer: Answer) -> None:
    """Read what is left, if it is little, so that the connection can be used again."""
    try:
        answer.read(_PASSED_OVER)
        answer.release()
    except OSError:
        pass
    finally:
        answer.close()


def explained(
    error: BaseException,
    words: Callable[[BaseException], str | None] = lambda error: None,
    final: tuple[type[BaseException], ...] = (),
) -> WireError:
    """Say in a few words what a library's error comes from.

    ``words`` knows of the library's own errors and is asked first, of each in the chain of causes;
    those in ``final`` won't pass.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    passing = not any(isinstance(one, (*_FINAL, *final)) for one in chain)
    for one in chain:
        said = words(one) or _words(one)
        if said:
            return WireError(said, passing=passing)
    return WireError(last_words(error), passing=passing)


def last_words(error: BaseException) -> str:
    """Return the text of what was at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


def _words(error: BaseException) -> str | None:
    match error:
        case WireError():
            return str(error)
        case TimeoutError():
            return STOPPED
        case socket.gaierror():
            return UNKNOWN_HOST
        case ssl.SSLCertVerificationError():
            return f"its certificate isn't trusted ({error.verify_message})"
        case ssl.SSLError():
            return f"no TLS: {error.reason or error}"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case http.client.IncompleteRead() | http.client.BadStatusLine():
            return BROKE
        case _:
            return None
