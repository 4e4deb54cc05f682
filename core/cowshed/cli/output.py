"""Output: tables, sizes, times and JSON, and text from images made safe for terminals.

File names, labels and histories come from strangers. On a terminal everything that isn't printable
is shown as an escape (an image must not be able to move the cursor or set the title); in a pipe
names go out as the bytes they are.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
#: Seconds, and what so many of them are called, as docker's go-units puts it.
_AGES = (
    (60, 1, "second"), (3600, 60, "minute"), (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"), (60 * 86400, 7 * 86400, "week"),
    (2 * 365 * 86400, 30 * 86400, "month"),
)  # fmt: skip


def prepare_streams() -> None:
    """Let standard output and error take any text: undecodable names go out as they came in."""
    _open_closed()
    codecs.register_error("cowshed", _encode_anyway)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="cowshed")


def _open_closed() -> None:
    """Let standard streams that were closed be /dev/null: else the next file that is opened, such
    as the catalog, has the number of one, and who writes to standard error writes there."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _encode_anyway(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace"), error.start + 1


def line(text: str = "") -> None:
    """Print one line of text that is our own or already escaped."""
    sys.stdout.write(f"{text}\n")


def warn(text: str) -> None:
    """Print one line of warning."""
    sys.stdout.flush()
    sys.stderr.write(f"cowshed: {escaped(text)}\n")


def name_line(prefix: str, name: str) -> None:
    """Print a file name after ``prefix``: escaped on a terminal, exact elsewhere."""
    line(prefix + (escaped(name) if sys.stdout.isatty() else name))


def escaped(text: str) -> str:
    """Return ``text`` with everything unprintable, undecodable bytes too, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def one_line(text: str, width: int | None = None) -> str:
    """Return a stranger's text for a table's cell, cut to ``width`` with ``…``."""
    text = escaped(" ".join(text.split()))
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def print_json(value: object) -> None:
    """Print JSON; ASCII only, so that nothing in it can hurt a terminal."""
    line(json.dumps(value, indent=2, ensure_ascii=True))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, three spaces apart, as Docker does. Cells are escaped already."""
    cells = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    form = "   ".join(f"{{:<{width}}}" for width in widths[:-1]) + "   {}"
    if len(headings) == 1:
        form = "{}"
    sys.stdout.write("".join(f"{form.format(*row).rstrip()}\n" for row in cells))


def size(count: int) -> str:
    """Return bytes as Docker shows them: three significant digits, powers of 1,000."""
    sign, value, unit = "-" if count < 0 else "", float(abs(count)), 0
    while value >= 999.5 and unit + 1 < len(_UNITS):
        value /= 1000
        unit += 1
    return f"{sign}{value:.3g}{_UNITS[unit]}"


def share(part: int, whole: int) -> str:
    """Return ``41.2 of 209.8 MB``: both in the unit that suits the whole."""
    value, unit = 1, 0
    while max(part, whole) >= 999.95 * value and unit + 1 < len(_UNITS):
        value *= 1000
        unit += 1
    digits = 1 if unit else 0
    return f"{part / value:.{digits}f} of {whole / value:.{digits}f} {_UNITS[unit]}"


def percentage(part: int, whole: int) -> str:
    """Return ``" (12%)"``, or nothing where there is no whole."""
    return f" ({part * 100 // whole}%)" if whole > 0 else ""


def age(seconds: float) -> str:
    """Return how long ago something was, as Docker says it."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "Less than a second ago"
    for bound, divisor, unit in _AGES:
        if whole < bound:
            count = whole // divisor
            if count == 1 and unit in ("minute", "hour"):
                return f"About {'a' if unit == 'minute' else 'an'} {unit} ago"
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return f"{whole // (365 * 86400)} years ago"


def age_of_ns(ns: int, now: float) -> str:
    """Return how long before ``now`` a moment in ns since the epoch was."""
    return age(now - ns / 1e9)


def age_of_text(moment: str, now: float) -> str:
    """Return how long ago an RFC 3339 time was; ``N/A`` where there is none."""
    from datetime import UTC, datetime

    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return "N/A"
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return age(now - parsed.timestamp())


def rfc3339(ns: int) -> str:
    """Return a moment in ns since the epoch, in UTC."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000))
    return f"{moment}.{ns % 1_000_000_000:09d}Z"


def short_id(id: str, *, whole: bool = False) -> str:
    """Return the twelve digits of an ID that people see."""
    return id if whole else id.removeprefix("sha256:")[:12]


def json_or_table(
    as_json: bool,
    items: Sequence[Any],
    fields: Callable[[Any], dict[str, object]],
    headings: Sequence[str],
    cells: Callable[[Any], Sequence[str]],
) -> None:
    """Print ``items`` as a JSON array of ``fields`` or as a table of ``cells``."""
    if as_json:
        print_json([fields(item) for item in items])
    else:
        table(headings, (cells(item) for item in items))


def discard_output() -> None:
    """Send what is still buffered nowhere: the reader of the pipe is gone."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)
