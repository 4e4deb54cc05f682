"""From a matplotlib figure to SVG that lives in a page: colours by CSS variable, text as text.

Matplotlib knows hexadecimal colours only, so each variable travels through it as a colour of its
own that nobody would use, ``#0000NN``, and becomes ``var(--name)`` in the text that comes out.
One unit of a drawing is one CSS pixel.
"""

# matplotlib leaves keyword arguments without types, which strict pyright reports at every call.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from .palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels; of all text in charts.
TEXT = 11.5
_NAMES = tuple(COLOURS)


def colour(name: str) -> str:
    """Return the stand-in for a variable of the palette."""
    return f"#0000{_NAMES.index(name) + 1:02x}"


@contextmanager
def drawing(width: float, height: float) -> Generator[Figure, None, None]:
    """Give a figure of so many pixels whose text, axes and ticks are dressed."""
    import matplotlib as mpl  # 1.5 s; only who draws pays
    from matplotlib.figure import Figure

    rule, muted = colour("rule"), colour("muted")
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "cowshed",
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout everywhere
        "font.size": TEXT,
        "text.parse_math": False,  # a name may have two dollar signs
        "text.color": colour("ink"),
        "axes.edgecolor": rule,
        "axes.labelcolor": muted,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": rule,
        "grid.linewidth": 0.8,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.minor.visible": False,
        "ytick.minor.visible": False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # That DejaVu lacks a character of a name only makes our idea of its width a little wrong.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def svg(
    figure: Figure,
    identity: str,
    title: str,
    description: str,
    tips: Mapping[str, str] | None = None,
    *,
    style: str = "",
) -> str:
    """Return the figure as one ``<svg>``.

    Args:
        identity: prefix of all IDs in it, so that many can live in one page.
        description: what it shows, for who can't see it.
        tips: text by ``gid``, shown where the pointer rests.
        style: CSS of its own, for an SVG file that stands alone.
    """
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r"#0000([0-9a-f]{2})\b",
        lambda found: f"var(--{_NAMES[int(found[1], 16) - 1]})",
        body,
    )
    # The page chooses the font; sizes stay.
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{identity}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{identity}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", body)
    for gid, tip in (tips or {}).items():
        group = f'<g id="{identity}-{gid}">'
        body = body.replace(group, f"{group}<title>{escape(tip)}</title>", 1)
    body = re.sub(r"\n\s*", "\n", body)
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if style else ""
    return (
        f'<svg{namespace} viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-labelledby="{identity}-title {identity}-desc">'
        f'<title id="{identity}-title">{escape(title)}</title>'
        f'<desc id="{identity}-desc">{escape(description)}</desc>'
        f"{f'<style>{style}</style>' if style else ''}{body}</svg>"
    )


def spread_out(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return places at least ``gap`` apart as near as can be to those wanted, in their order.

    Where the range is too short for all, the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    # Neighbours that would touch become a block, centred on what its members want.
    blocks: list[list[int]] = []

    def start(block: list[int]) -> float:
        middle = sum(wanted[at] for at in block) / len(block)
        length = gap * (len(block) - 1)
        return min(max(middle - length / 2, low), high - length)

    for at in order:
        blocks.append([at])
        while len(blocks) > 1 and start(blocks[-2]) + gap * len(blocks[-2]) > start(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    places = [0.0] * len(wanted)
    for block in blocks:
        first = start(block)
        for number, at in enumerate(block):
            places[at] = first + gap * number
    return places
