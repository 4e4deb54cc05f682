"""Challenges: what a ``WWW-Authenticate`` header asks for (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"[,\s]*({_TOKEN})(?:\s+|\Z|,)")
_PARAMETER = re.compile(rf'[,\s]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')


@attrs.frozen
class Challenge:
    """One scheme, in lower case, with its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges of a header, or of several joined by commas; what isn't one ends it."""
    found: list[Challenge] = []
    at = 0
    while match := _SCHEME.match(header, at):
        scheme = match[1].lower()
        at = match.end()
        parameters: dict[str, str] = {}
        while match := _PARAMETER.match(header, at):
            quoted: str | None = match[2]
            value = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(match[1].lower(), value)
            at = match.end()
        found.append(Challenge(scheme, parameters))
    return found
