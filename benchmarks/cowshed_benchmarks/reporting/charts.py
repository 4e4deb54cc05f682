"""The charts: how costs grow, and how a peer stands beside the drivers."""

# matplotlib leaves keyword arguments without types, which strict pyright reports at every call.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from ..judging.lines import Line
from ..judging.ranks import Interval
from ..quantities import TITLES, number, quantity, several, times
from ..results import Metric
from .drawing import colour, drawing, spread_out, svg
from .palette import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

#: Pixels. A phone that is 390 wide shows 358 of it, so nothing is scaled below 10 px of text.
WIDTH = 410
_LINE = 13.0
#: Between the end of the axes and the names beside it.
_APART = 12.0
#: Characters of a name that a chart has room for.
_LONGEST = 20


@attrs.frozen
class Curve:
    """What one subject takes at each size, and where it failed."""

    subject: str
    #: Size → (median, lowest, highest) of the whole sample.
    points: Mapping[int, tuple[float, float, float]]
    failed: Mapping[int, str]
    #: Where a point would lie at or below nothing, which a log axis doesn't have.
    nothing: Mapping[int, float] = attrs.field(factory=dict[int, float])
    #: Whether points are sums over as many operations as the size says.
    sums: bool = False


@attrs.frozen
class Row:
    """One workload in a chart of ratios."""

    title: str
    #: Driver → how many times as much the peer takes.
    ratios: Mapping[str, Interval]
    #: What failed, in a word or two.
    failure: str = ""


def scaling_chart(
    identity: str,
    title: str,
    measure: Metric,
    parameter: str,
    curves: Sequence[Curve],
    styles: Mapping[str, Style],
) -> str:
    """Draw what a workload takes by its size, on log axes, each line labelled at its end."""
    names = [curve.subject for curve in curves]
    label_width = _APART + 4 + 6.5 * max(len(short(name)) for name in names)
    left, top, bottom = 52.0, 22.0, 38.0
    height = max(250.0, top + bottom + 10 + _LINE * len(curves))
    tips: dict[str, str] = {}
    with drawing(WIDTH, height) as figure:
        box = (left / WIDTH, bottom / height, (WIDTH - left - label_width) / WIDTH)
        axes = figure.add_axes((*box, (height - top - bottom) / height))
        axes.set_xscale("log")
        axes.set_yscale("log")
        for at, curve in enumerate(curves):
            _draw_curve(axes, curve, styles[curve.subject], f"curve{at}")
            tips[f"curve{at}"] = _curve_tip(curve, measure, parameter)
        sizes = sorted({size for curve in curves for size in (*curve.points, *curve.failed)})
        _label_sizes(axes, sizes)
        _label_values(axes.yaxis, measure)
        axes.set_xlabel(parameter)
        figure.text(0.004, 1 - 13 / height, _axis_title(measure, curves), color=colour("muted"))
        _label_curves(axes, curves, styles, height)
        return svg(
            figure,
            identity,
            title,
            f"{TITLES[measure].capitalize()} by number of {parameter}, log axes. "
            + "; ".join(_curve_tip(curve, measure, parameter) for curve in curves),
            tips,
        )


def _axis_title(measure: Metric, curves: Sequence[Curve]) -> str:
    return f"{TITLES[measure]} for all" if any(one.sums for one in curves) else TITLES[measure]


def short(name: str) -> str:
    """Return a name that leaves room for a chart: ``c-storage (overlay)``."""
    head, bracket, tail = name.partition(" (")
    words = head.split("-")
    if len(name) <= _LONGEST or len(words) == 1:
        return name
    return "-".join([*(word[:1] for word in words[:-1]), words[-1]]) + bracket + tail


def _draw_curve(axes: Axes, curve: Curve, style: Style, gid: str) -> None:
    sizes = sorted(curve.points)
    middles = [curve.points[size][0] for size in sizes]
    # Whiskers from the lowest to the highest sample: with a handful, that is what there is to show.
    axes.vlines(
        sizes,
        [curve.points[size][1] for size in sizes],
        [curve.points[size][2] for size in sizes],
        color=colour(style.colour),
        linewidth=1,
        alpha=0.6,
    )
    (drawn,) = axes.plot(
        sizes,
        middles,
        color=colour(style.colour),
        marker=style.shape,
        markersize=5,
        linewidth=1.8 if style.colour.startswith("series") else 1.1,
        gid=gid,
    )
    if style.dashes:
        drawn.set_dashes(style.dashes)
    for size in curve.failed:
        axes.plot(
            [size], [1.0], marker="x", markersize=7, markeredgewidth=2, clip_on=False,
            color=colour(style.colour), transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _curve_tip(curve: Curve, measure: Metric, parameter: str) -> str:
    parts = [
        f"{several(size, parameter)} {quantity(measure, middle)}"
        for size, (middle, _, _) in sorted(curve.points.items())
    ]
    parts += [f"{several(size, parameter)} failed" for size in sorted(curve.failed)]
    return f"{curve.subject}: {', '.join(parts)}"


def _label_curves(
    axes: Axes, curves: Sequence[Curve], styles: Mapping[str, Style], height: float
) -> None:
    """Write each subject's name beside the end of its line, moved as far as others need room."""
    low, high = axes.get_ylim()
    inside = axes.get_position().height * height
    beside = 1 + _APART / (axes.get_position().width * WIDTH)

    def place(value: float) -> float:
        return inside * math.log(value / low) / math.log(high / low)

    ends = [curve.points[max(curve.points)][0] for curve in curves]
    wanted = [place(end) for end in ends]
    for curve, size, end, at in zip(
        curves,
        [max(curve.points) for curve in curves],
        ends,
        spread_out(wanted, _LINE, -8, inside + 4),
        strict=True,
    ):
        style = styles[curve.subject]
        axes.annotate(
            short(curve.subject),
            (size, end),
            xytext=(beside, at / inside),
            textcoords="axes fraction",
            color=colour(style.colour),
            va="center",
            annotation_clip=False,
            arrowprops={
                # As faint as the grid, so that nobody takes the way to a name for measured.
                "arrowstyle": "-",
                "color": colour("rule"),
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


def _label_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    # Sizes that stand too near to each other on a log axis keep their place, not their label.
    shown: list[int] = []
    span = math.log(max(sizes) / min(sizes)) if len(sizes) > 1 else 1.0
    for size in reversed(sizes):
        if not shown or math.log(shown[-1] / size) > 0.14 * span:
            shown.append(size)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.tick_params(length=0)


def _label_values(axis: Axis, measure: Metric) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    # Every power of ten, or every so many; below two decades the steps between, too.
    if decades > 2:
        locator = LogLocator(10.0 ** max(1, math.ceil(decades / 6)))
    else:
        locator = LogLocator(10.0, subs=(1.0, 2.0, 5.0))
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(measure, value, bare=True)))


def ratio_chart(identity: str, peer: str, rows: Sequence[Row], styles: Mapping[str, Style]) -> str:
    """Draw how many times as much a peer takes as each driver: a row for each workload."""
    drivers = [name for name in styles if any(name in row.ratios for row in rows)]
    step, head, gap = 7.5, 16.0, 9.0
    tops: list[float] = []
    height = 44.0
    for row in rows:
        tops.append(height)
        height += head + (step * len(drivers) if row.ratios else 4) + gap
    height += 6
    ends = [end for row in rows for one in row.ratios.values() for end in (one.low, one.high)]
    low, high = min([0.8, *ends]) / 1.15, max([1.25, *ends]) * 1.15
    tips: dict[str, str] = {}
    with drawing(WIDTH, height) as figure:
        axes = figure.add_axes((8 / WIDTH, 0, (WIDTH - 16) / WIDTH, (height - 38) / height))
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(height, 38)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.yaxis.set_visible(False)
        _label_ratios(axes, low, high)
        axes.axvline(1, color=colour("muted"), linewidth=1.2)
        for at, (row, y) in enumerate(zip(rows, tops, strict=True)):
            if at:
                axes.axhline(y - gap / 2, color=colour("rule"), linewidth=0.8)
            # On paper of its own, so that the lines behind don't cross it.
            axes.text(
                0, y + 5, row.title, transform=axes.get_yaxis_transform(), va="center",
                bbox={"facecolor": colour("paper"), "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            if row.failure:
                axes.text(
                    1, y + 5, f"✕ {row.failure}", transform=axes.get_yaxis_transform(), va="center",
                    ha="right", color=colour("bad"),
                )  # fmt: skip
            for place, name in enumerate(drivers):
                if name in row.ratios:
                    gid = f"dot{at}x{place}"
                    _draw_ratio(
                        axes, row.ratios[name], y + head + step * (place + 0.5), styles[name], gid
                    )
                    tips[gid] = _ratio_tip(peer, row.title, name, row.ratios[name])
        return svg(
            figure,
            identity,
            f"{peer} beside each driver",
            "How many times as much it takes, log axis, with intervals. "
            + "; ".join(
                _ratio_tip(peer, row.title, name, found)
                for row in rows
                for name, found in row.ratios.items()
            ),
            tips,
        )


def _draw_ratio(axes: Axes, found: Interval, y: float, style: Style, gid: str) -> None:
    axes.plot(
        [found.low, found.high], [y, y], color=colour(style.colour), linewidth=1.6,
        solid_capstyle="round",
    )  # fmt: skip
    axes.plot(
        [found.estimate], [y], marker=style.shape, markersize=5.5, color=colour(style.colour),
        gid=gid, linestyle="none",
    )  # fmt: skip


def _ratio_tip(peer: str, title: str, driver: str, found: Interval) -> str:
    return (
        f"{title}: {peer} takes {times(found.estimate)} what {driver} takes "
        f"({times(found.low)} to {times(found.high)})"
    )


def _label_ratios(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    decades = math.log10(high / low)
    candidates = (
        [10.0**power for power in range(-9, 10, max(1, round(decades / 7)))]
        if decades > 2.5
        else [base * 10.0**power for power in range(-3, 4) for base in (1, 2, 5)]
        if decades > 0.8
        else [0.5, 0.7, 1, 1.5, 2, 3, 4, 5]
    )
    # At the very edge there is no room for a label.
    inner = (high / low) ** 0.05
    shown = [one for one in candidates if low * inner <= one <= high / inner]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: times(value, bare=True)))
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)


def curve_of(subject: str, by_size: Mapping[int, Line]) -> Curve:
    """Return the curve of one subject's lines: what all of a size take together.

    Where a sample does as many operations as its size says, that is the value of one times the
    size: a single container is created twenty times over to measure it, and counts once.
    """
    counted = all(
        line.operations == size for size, line in by_size.items() if size > 1 and line.values
    )
    points: dict[int, tuple[float, float, float]] = {}
    failed: dict[int, str] = {}
    nothing: dict[int, float] = {}
    sums = counted and any(size > 1 and line.values for size, line in by_size.items())
    for size, line in by_size.items():
        many = size if sums and line.key.measure != "peak_memory" else 1
        if line.values and line.low > 0 and size > 0:
            points[size] = line.median * many, line.low * many, line.high * many
        elif line.values:
            nothing[size] = line.median * many
        elif line.problem.startswith("failed"):
            failed[size] = line.problem
    return Curve(subject, points, failed, nothing, sums)
