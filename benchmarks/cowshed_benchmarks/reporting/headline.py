"""The headline: one chart and one table for a README, from a run.

What stands in it is chosen by what a reader asks first, not by who looks good: the workloads of
``_HEADLINE`` that the run has, with every subject that did any of them, in the run's order.
"""

# matplotlib leaves keyword arguments without types, which strict pyright reports at every call.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

import attrs

from ..judging.lines import MEASURES, Key, Line, lines
from ..quantities import number, quantity, size
from ..results import Metric, Run, Subject
from .charts import short
from .drawing import colour, drawing, svg
from .palette import Style, styles, variables

#: (workload, measure, heading); where a workload was run at several sizes, the largest of those
#: that most drivers managed. What fewer than half of the drivers managed is left out.
_HEADLINE: tuple[tuple[str, Metric, str], ...] = (
    ("import-first", "wall", "first import"),
    ("import-second", "wall", "second version"),
    ("versions", "disk", "disk for {} versions"),
    ("create", "wall", "create a container"),
    ("create", "disk", "disk of a container"),
    ("first-write", "wall", "first byte in {} MB"),
    ("fork", "wall", "fork"),
    ("diff", "wall", "diff"),
)
#: Which of these the chart draws, too.
_DRAWN = (
    ("import-first", "wall"),
    ("versions", "disk"),
    ("create", "wall"),
    ("first-write", "wall"),
)
_STYLE = (
    "svg{background:var(--paper)}"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif}"
)
#: Panels side by side in the chart, each so wide; names of subjects stand left of each row.
_ACROSS = 2
_WIDTH = 860
_LINE = 17.0


@attrs.frozen
class Panel:
    """One column of the table, one panel of the chart."""

    workload: str
    heading: str
    measure: Metric
    #: Subject → value; why there is none.
    values: Mapping[str, float]
    problems: Mapping[str, str]


def panels(run: Run) -> list[Panel]:
    """Return what the run has of the headline."""
    every = lines(run, MEASURES)
    found = (_panel(run, every, *wanted) for wanted in _HEADLINE)
    return [one for one in found if one is not None]


def _panel(
    run: Run, every: Mapping[Key, Line], workload: str, measure: Metric, heading: str
) -> Panel | None:
    drivers = {one.name for one in run.subjects if one.kind == "driver"}
    own = {
        key: line for key, line in every.items() if key[1] == workload and key.measure == measure
    }
    sizes = [
        key.parameter or 0 for key, line in own.items() if key.subject in drivers and line.values
    ]
    if not sizes:
        return None
    common = max(sizes, key=lambda one: (sizes.count(one), one))
    if 2 * sizes.count(common) < len(drivers):
        return None
    rows = {key.subject: line for key, line in own.items() if (key.parameter or 0) == common}
    # What N versions take is one figure; everything else is what one operation takes.
    many = common if "{}" in heading and measure == "disk" else 1
    return Panel(
        workload,
        heading.format(common),
        measure,
        {name: line.median * many for name, line in rows.items() if line.values},
        {name: line.problem for name, line in rows.items() if line.problem},
    )


def _shown(run: Run, found: Sequence[Panel]) -> list[Subject]:
    return [one for one in run.subjects if any(one.name in panel.values for panel in found)]


def markdown(run: Run) -> str:
    """Return the table, best figures of drivers and peers in bold, and the command."""
    found = panels(run)
    best = {
        panel.heading: min(
            (
                panel.values[one.name]
                for one in run.subjects
                if one.kind != "floor" and one.name in panel.values
            ),
            default=math.nan,
        )
        for panel in found
    }
    rows = [
        ["", *(panel.heading for panel in found)],
        ["---", *("---:" for _ in found)],
    ]
    for subject in _shown(run, found):
        name = f"`{subject.name}`" if subject.kind == "driver" else subject.name
        cells = [_cell(panel, subject, best[panel.heading]) for panel in found]
        rows.append([_escaped(name), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    machine = run.machine
    rounds = 1 + max(one.round for one in run.samples)
    how = f"Medians of up to {rounds} interleaved rounds" if rounds > 1 else "One round"
    return (
        f"{table}\n\n{how}, {_input(run)}, on {_escaped(machine.cpu)}, {machine.cores} cores, "
        f"{_escaped(machine.file_system)}, Linux {_escaped(machine.kernel)}, "
        f"{run.started[:10]}: `{_command(run)}`.\n"
    )


def _input(run: Run) -> str:
    """Say what was worked on."""
    image = run.input.images[0] if run.input.images else None
    what = _escaped(run.input.title)
    if image is None:
        return what
    return f"{what} ({size(image.unpacked)} in {number(image.entries)} entries)"


def _command(run: Run) -> str:
    """Return the command but for where its results went."""
    words = list(run.command)
    while "--out" in words:
        at = words.index("--out")
        del words[at : at + 2]
    return shlex.join(word for word in words if not word.startswith("--out="))


def _cell(panel: Panel, subject: Subject, best: float) -> str:
    value = panel.values.get(subject.name)
    if value is None:
        return "failed" if panel.problems.get(subject.name, "").startswith("failed") else "–"
    text = quantity(panel.measure, value)
    return f"**{text}**" if value == best and subject.kind != "floor" else text


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def chart(run: Run) -> str:
    """Return an SVG file: a panel for each figure, dots on log axes, light and dark."""
    found = panels(run)
    found = [one for one in found if (one.workload, one.measure) in _DRAWN] or found[:1]
    subjects = _shown(run, found)
    looks = styles(run.subjects)
    # The font is whatever the reader's machine has; widths are those of DejaVu, a wide one.
    left = 14 + 6.4 * max(len(short(one.name)) for one in subjects)
    head, foot = 30.0, 14.0
    tall = head + _LINE * len(subjects) + foot
    down = math.ceil(len(found) / _ACROSS)
    height = tall * down + 14
    with drawing(_WIDTH, height) as figure:
        wide = (_WIDTH - left) / _ACROSS
        figure.text(1 - 24 / _WIDTH, 6 / height, "log scales", ha="right", color=colour("muted"))
        for at, panel in enumerate(found):
            row, column = divmod(at, _ACROSS)
            top = height - tall * row
            axes = figure.add_axes(
                (
                    (left + wide * column) / _WIDTH,
                    (top - tall + foot) / height,
                    (wide - 24) / _WIDTH,
                    _LINE * len(subjects) / height,
                )
            )
            figure.text(
                (left + wide * column) / _WIDTH, (top - 18) / height, panel.heading, weight="bold"
            )
            axes.set_axis_off()
            axes.set_xscale("log")
            axes.set_ylim(len(subjects) - 0.5, -0.5)
            values = [value for value in panel.values.values() if value > 0] or [1.0]
            low, high = min(values), max(values)
            # Room to the right for the largest value's label.
            span = max(math.log(high / low), 0.5)
            axes.set_xlim(low * math.exp(-0.05 * span), high * math.exp(0.42 * span))
            for place, subject in enumerate(subjects):
                if column == 0:
                    figure.text(
                        (left - 10) / _WIDTH,
                        (top - head - _LINE * (place + 0.5)) / height,
                        short(subject.name),
                        ha="right",
                        va="center",
                        color=colour(looks[subject.name].colour),
                    )
                _draw(axes, panel, subject.name, place, looks[subject.name])
        own = f"{variables()}{_STYLE}"
        return svg(
            figure,
            "headline",
            "Cowshed's drivers beside other tools",
            "; ".join(
                f"{panel.heading}: "
                + ", ".join(
                    f"{name} {quantity(panel.measure, value)}"
                    for name, value in panel.values.items()
                )
                for panel in found
            ),
            style=own,
        )


def _draw(axes: object, panel: Panel, name: str, place: int, style: Style) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    ink = colour(style.colour)
    low, high = axes.get_xlim()
    value = panel.values.get(name)
    axes.plot([low, high], [place, place], color=colour("rule"), linewidth=0.8)
    if value is None or value <= 0:
        failed = panel.problems.get(name, "").startswith("failed")
        text = "failed" if failed else "nothing" if value is not None else "–"
        tone = colour("bad") if failed else colour("muted")
        axes.text(low, place, f" {text}", va="center", color=tone, backgroundcolor=colour("paper"))
        return
    axes.plot([value], [place], marker=style.shape, markersize=7, color=ink, linestyle="none")
    axes.annotate(
        quantity(panel.measure, value), (value, place), xytext=(8, 0), textcoords="offset points",
        va="center", color=ink, bbox={"facecolor": colour("paper"), "edgecolor": "none", "pad": 1},
    )  # fmt: skip
