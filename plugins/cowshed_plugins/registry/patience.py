"""Patience: which failures are worth another attempt, and how long to wait before it.

No connection, 408, 425 and 5xx may pass: they are waited for twice as long each time, and never in
step with others. Whoever names a time (Retry-After) is obeyed, unless that is too long.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection

from .answer import Answer, WireError, drain
from .errors import RateLimitedError, UnreachableError
from .settings import Settings

#: 500 is what registries say when their storage hiccups.
PASSING = frozenset({408, 425, 500, 502, 503, 504})


class Patience:
    """With one registry, and with whoever gives tokens for it. Any number of threads may use it."""

    def __init__(self, registry: str, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings

    @property
    def retries(self) -> int:
        """How often a failure may be repeated."""
        return self._settings.retries

    def wait(self, attempt: int) -> None:
        """Wait before the next attempt; ``attempt`` counts from 0."""
        time.sleep(self._settings.pause * 2**attempt * random.uniform(0.7, 1.3))

    def run(
        self,
        send: Callable[[], Answer],
        what: str,
        *,
        expect: Collection[int] = (),
        repeat: bool = True,
    ) -> Answer:
        """Send until there is an answer that is expected, or that no further attempt would change.

        ``what`` says in an error what fails.

        Raises:
            UnreachableError: no answer after all attempts.
            RateLimitedError: it asks to wait for too long.
        """
        attempt = 0
        while True:
            last = not repeat or attempt >= self.retries
            try:
                response = send()
            except WireError as error:
                if last or not error.passing:
                    raise UnreachableError(self._registry, f"{what}: {error}") from error
                self.wait(attempt)
            else:
                status = response.status
                if status in expect:
                    return response
                if status == 429 or (status == 503 and response.header("Retry-After")):
                    self._obey(response, attempt, last)
                elif status in PASSING and not last:
                    drain(response)
                    self.wait(attempt)
                else:
                    return response
            attempt += 1

    def _obey(self, response: Answer, attempt: int, last: bool) -> None:
        asked = retry_after(response.header("Retry-After"))
        drain(response)
        if last or (asked is not None and asked > self._settings.max_wait):
            raise RateLimitedError(self._registry, asked)
        if asked is None:
            self.wait(attempt)
        else:
            time.sleep(asked)


def retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After means (RFC 9110, 10.2.3); None: it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
