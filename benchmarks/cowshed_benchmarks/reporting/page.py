"""The page: answers first, figures after; one file that asks the network nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

import attrs

from ..judging.lines import MEASURES, Key, Line, lines, ratio_of_pairs
from ..quantities import TITLES, number, quantity, several, size, times
from ..results import Metric, Run, Subject, Workload
from .charts import Curve, Row, curve_of, ratio_chart, scaling_chart
from .decision import choices, factor
from .details import details
from .palette import Style, styles, variables


@attrs.frozen
class Figure:
    """A chart with what must be said beside it."""

    title: str
    question: str
    chart: str
    #: Failures and skips, which a chart can't show.
    remarks: tuple[str, ...] = ()
    #: Points at or below nothing, which log axes don't have.
    nothing: tuple[str, ...] = ()
    note: str = ""


def page(run: Run) -> str:
    """Return the whole page."""
    import jinja2  # with matplotlib only in cowshed[bench]

    every = lines(run, MEASURES)
    looks = styles(run.subjects)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cowshed_benchmarks.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=number, size=size, factor=factor)
    environment.tests["bad"] = _bad
    outcomes = [one.outcome for one in run.samples]
    return environment.get_template("report.html.jinja").render(
        run=run,
        command=shlex.join(run.command),
        variables=variables(),
        styles=looks,
        choices=choices(run, every),
        growth=_growth(run, every, looks),
        against=_against(run, every, looks),
        details=details(run, every),
        rounds=1 + max((one.round for one in run.samples), default=-1),
        counts={name: outcomes.count(name) for name in ("ok", "failed", "skipped")},
        shape=_shape,
    )


#: Paths of the key's marks, within ±5: the same shapes that matplotlib draws.
_SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-4-4h8v8h-8z",
    "^": "M0-5L5 4h-10z",
    "v": "M0 5L5-4h-10z",
    "<": "M-5 0L4-5v10z",
    ">": "M5 0L-4-5v10z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "d": "M0-5L3 0L0 5L-3 0z",
    "P": "M-2-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "X": "M-5-2L-2-5L0-3L2-5L5-2L3 0L5 2L2 5L0 3L-2 5L-5 2L-3 0z",
    "p": "M0-5L5-1L3 5h-6L-5-1z",
    "h": "M0-5L4.3-2.5v5L0 5L-4.3 2.5v-5z",
    ".": "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
}


def _shape(style: Style) -> str:
    return _SHAPES[style.shape]


def _bad(value: str) -> bool:
    """Say whether a remark tells of a failure."""
    return value.startswith("failed") or ": failed" in value


#: Of what a peer can't do for one and the same reason, so many are named.
_MOST_TITLES = 6


# -- how costs grow ---------------------------------------------------------------------------


def _growth(run: Run, every: Mapping[Key, Line], looks: Mapping[str, Style]) -> list[Figure]:
    found: list[Figure] = []
    for workload in run.workloads:
        if not workload.parameter:
            continue
        measures: tuple[Metric, ...] = (workload.metric, "wall", "disk")
        drawn = [_grown(run, every, looks, workload, one) for one in dict.fromkeys(measures)]
        shown = [one for one in drawn if one is not None]
        # What failed or can't be done is the same for time and disk, and said once.
        found += [*shown[:1], *(attrs.evolve(one, remarks=()) for one in shown[1:])]
    return found


def _grown(
    run: Run,
    every: Mapping[Key, Line],
    looks: Mapping[str, Style],
    workload: Workload,
    measure: Metric,
) -> Figure | None:
    curves: list[Curve] = []
    missing: dict[tuple[str, str], list[int]] = {}
    nothing: dict[tuple[str, str], list[int]] = {}
    for subject in run.subjects:
        by_size = {
            key.parameter: line
            for key, line in every.items()
            if key.parameter is not None
            and (key.subject, key.workload, key.measure) == (subject.name, workload.name, measure)
        }
        curve = curve_of(subject.name, by_size)
        if curve.points:
            curves.append(curve)
        for count, value in curve.nothing.items():
            nothing.setdefault((subject.name, quantity(measure, value)), []).append(count)
        for count, line in by_size.items():
            if line.problem:
                missing.setdefault((subject.name, line.problem), []).append(count)
    sizes = {count for curve in curves for count in curve.points}
    if len(sizes) < 2:
        return None
    chart = scaling_chart(
        f"growth-{run.workloads.index(workload)}-{measure}",
        f"{workload.title}: {TITLES[measure]}",
        measure,
        workload.parameter,
        curves,
        looks,
    )
    drivers = {one.name for one in run.subjects if one.kind == "driver"}
    return Figure(
        f"{workload.title}: {TITLES[measure]}",
        workload.question,
        chart,
        _remarks(workload, missing),
        _remarks(workload, nothing),
        _slopes([one for one in curves if one.subject in drivers]),
    )


def _remarks(workload: Workload, found: Mapping[tuple[str, str], Sequence[int]]) -> tuple[str, ...]:
    """Tell what is so of which subjects at which sizes, a line for each thing."""
    told: dict[tuple[str, str], list[str]] = {}
    for (name, what), counts in found.items():
        told.setdefault((what, _and(counts, workload.parameter)), []).append(name)
    return tuple(f"{', '.join(names)} at {sizes}: {what}" for (what, sizes), names in told.items())


def _slopes(curves: Sequence[Curve]) -> str:
    """Say by how much costs grow from the smallest to the largest size that all of them did."""
    common = [
        size
        for size in (curves[0].points if curves else ())
        if all(size in one.points for one in curves)
    ]
    if len(common) < 2:
        return ""
    low, high = min(common), max(common)
    growth = {one.subject: one.points[high][0] / one.points[low][0] for one in curves}
    least, most = min(growth, key=growth.__getitem__), max(growth, key=growth.__getitem__)
    told = f"From {number(low)} to {number(high)}, "
    if growth[most] < 1.1 * growth[least]:
        return f"{told}every driver takes {times(growth[most])} as much."
    return f"{told}{least} takes {times(growth[least])} as much, {most} {times(growth[most])}."


# -- beside each peer -------------------------------------------------------------------------


@attrs.frozen
class Against:
    """One peer: its chart and what it failed at or can't do."""

    peer: Subject
    chart: str
    remarks: tuple[str, ...]
    summary: str


def _against(run: Run, every: Mapping[Key, Line], looks: Mapping[str, Style]) -> list[Against]:
    peers = [one for one in run.subjects if one.kind == "peer"]
    floors = [one for one in run.subjects if one.kind == "floor"]
    return [_beside(run, every, looks, at, one) for at, one in enumerate((*peers, *floors))]


def _beside(
    run: Run, every: Mapping[Key, Line], looks: Mapping[str, Style], at: int, peer: Subject
) -> Against:
    drivers = [one.name for one in run.subjects if one.kind == "driver"]
    rows: list[Row] = []
    remarks: dict[str, list[str]] = {}
    for workload in run.workloads:
        own = _own(every, peer.name, workload)
        for problem in dict.fromkeys(line.problem for line in own if line.problem):
            remarks.setdefault(problem, []).append(_sizes(workload, own, problem))
        failure = _failure(workload, own)
        done = [line for line in own if line.values]
        if not done:
            if failure:
                rows.append(Row(workload.title, {}, failure))
            continue
        line = done[-1]
        ratios = {
            name: found
            for name in drivers
            if (other := every.get(line.key._replace(subject=name))) is not None
            and (found := ratio_of_pairs(other, line)) is not None
        }
        if ratios or failure:
            rows.append(Row(_row_title(workload, line), ratios, failure))
        if not ratios:
            reason = "no driver's figure to compare with"
            remarks.setdefault(reason, []).append(_row_title(workload, line))
    chart = ratio_chart(f"peer{at}", peer.name, rows, looks) if rows else ""
    return Against(
        peer,
        chart,
        tuple(f"{reason}: {_some(titles)}" for reason, titles in remarks.items()),
        _summary(peer, rows),
    )


def _some(titles: Sequence[str]) -> str:
    """Return titles, of many only the first few."""
    if len(titles) <= _MOST_TITLES:
        return "; ".join(titles)
    return f"{'; '.join(titles[: _MOST_TITLES - 1])} and {len(titles) - _MOST_TITLES + 1} more"


def _own(every: Mapping[Key, Line], subject: str, workload: Workload) -> list[Line]:
    """Return a subject's lines of a workload, the largest size last."""
    own = [
        line
        for key, line in every.items()
        if (key.subject, key.workload, key.measure) == (subject, workload.name, workload.metric)
    ]
    return sorted(own, key=lambda line: line.key.parameter or 0)


def _sizes(workload: Workload, own: Sequence[Line], problem: str) -> str:
    """Return a workload's title, with the sizes that have a problem if not all have it."""
    having = [line.key.parameter for line in own if line.problem == problem]
    if len(having) == len(own):
        return workload.title
    sizes = [size for size in having if size is not None]
    return f"{workload.title} at {_and(sizes, workload.parameter)}"


def _failure(workload: Workload, own: Sequence[Line]) -> str:
    failed = [line for line in own if any(outcome == "failed" for outcome, _ in line.problems)]
    sizes = [one.key.parameter for one in failed if one.key.parameter is not None]
    if not failed:
        return ""
    return f"failed at {_and(sizes, workload.parameter)}" if sizes else "failed"


def _and(sizes: Sequence[int], things: str) -> str:
    """Return ``1 and 16 layers``."""
    *first, last = sizes
    return " and ".join([*map(number, first), several(last, things)])


def _row_title(workload: Workload, line: Line) -> str:
    title = workload.title
    if line.key.parameter is not None:
        title += f", {several(line.key.parameter, workload.parameter)}"
    return title if workload.metric == "wall" else f"{title}: {TITLES[workload.metric]}"


def _summary(peer: Subject, rows: Sequence[Row]) -> str:
    compared = [row for row in rows if row.ratios]
    if not compared:
        return "Nothing to compare."
    best = [max(row.ratios.values(), key=lambda one: one.estimate) for row in compared]
    ahead = sum(one.low > 1 for one in best)
    behind = sum(one.high < 1 for one in best)
    middle = math.exp(sum(math.log(one.estimate) for one in best) / len(best))
    text = f"Of {len(compared)} workloads, the best of our drivers for each is ahead in {ahead}"
    if behind:
        text += f", behind in {behind}"
    if len(compared) - ahead - behind:
        text += f", even in {len(compared) - ahead - behind}"
    return f"{text}; {peer.name} takes {middle:.2g}× as much in the geometric mean."
