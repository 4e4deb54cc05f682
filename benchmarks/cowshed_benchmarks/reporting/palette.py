"""Colours and shapes: each subject keeps its own throughout a report, in light and in dark.

Drivers are coloured, peers are grey and told apart by labels and shapes, the floor is dotted ink.
The colours are Okabe and Ito's hues, which people with any common kind of colour blindness can tell
apart, darkened for white and lightened for black until each has a contrast of at least 4.5 to its
ground (WCAG 2.2, 1.4.3: they are also colours of text); shapes say the same a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from ..results import Subject

#: Variable → (light, dark).
COLOURS: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14171a"),
    "ink": ("#1b1f23", "#e8eaed"),
    "muted": ("#5b636c", "#a3abb4"),
    "rule": ("#d9dde2", "#343a41"),
    "panel": ("#f5f7f9", "#1c2126"),
    "peer": ("#68707a", "#98a1ab"),
    "floor": ("#1b1f23", "#e8eaed"),
    "bad": ("#b3261e", "#ff8a80"),
    "good": ("#00694c", "#43cfa1"),
    "series-0": ("#0a66b0", "#63b3f2"),
    "series-1": ("#b84700", "#ff9a57"),
    "series-2": ("#00755a", "#3fd0a4"),
    "series-3": ("#9c3d86", "#ea8fd2"),
    "series-4": ("#7d6200", "#e3c54e"),
    "series-5": ("#7a4636", "#d8a593"),
    "series-6": ("#4f55b8", "#a5aaff"),
}
SERIES = sum(name.startswith("series-") for name in COLOURS)
#: Of matplotlib; those with an area first.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "d")


@attrs.frozen
class Style:
    """How a subject is drawn."""

    #: Name of a variable of ``COLOURS``.
    colour: str
    shape: str
    #: Dashes of its line, in points; empty: whole.
    dashes: tuple[float, ...] = ()


def styles(subjects: Sequence[Subject]) -> dict[str, Style]:
    """Give each subject its style, by its place among those of its kind."""
    found: dict[str, Style] = {}
    drivers = [one for one in subjects if one.kind == "driver"]
    for at, one in enumerate(drivers):
        found[one.name] = Style(f"series-{at % SERIES}", SHAPES[at % len(SHAPES)])
    for at, one in enumerate(one for one in subjects if one.kind == "peer"):
        shape = SHAPES[(at + len(drivers)) % len(SHAPES)]
        found[one.name] = Style("peer", shape, ((4, 2), (2, 2), (6, 2, 2, 2))[at % 3])
    for one in subjects:
        found.setdefault(one.name, Style("floor", ".", (1, 2)))
    return found


def variables() -> str:
    """Return the colours as CSS variables, light and dark by the reader's preference."""
    light, dark = (
        "".join(f"--{name}:{pair[at]};" for name, pair in COLOURS.items()) for at in (0, 1)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )
