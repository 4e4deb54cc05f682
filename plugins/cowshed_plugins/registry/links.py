"""Links: what the header of that name says about other places (RFC 8288, section 3)."""

from __future__ import annotations

import re

#: A target and its parameters, whose quoted values may hold commas.
_LINK = re.compile(r'\s*<([^<>]*)>((?:[^",<>]|"(?:[^"\\]|\\.)*")*)(?:,|$)')
_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*)))?')


def next_link(header: str) -> str | None:
    """Return the target whose relation is ``next``; ``header`` joins all Link headers.

    What isn't a link ends the search: registries send one, or none.
    """
    place = 0
    while (match := _LINK.match(header, place)) is not None:
        relations = [
            (quoted or plain).lower().split()
            for name, quoted, plain in _PARAMETER.findall(match[2])
            if name.lower() == "rel"
        ]
        if relations and "next" in relations[0]:  # the first counts, section 3.3
            return match[1]
        place = match.end()
    return None
