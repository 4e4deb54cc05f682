"""``cowshed bench compare``: what changed between two runs, for people and for CI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cowshed.cli.output import line, one_line, print_json, table, warn
from cowshed.cli.session import Session, pass_session
from cowshed.errors import CowshedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from ..results import Metric, Run
    from .comparing import Comparison, Judged
    from .ranks import Interval

_MOST_NAMED = 5


class IncomparableError(CowshedError):
    """Two runs of different things; ``differences`` says what, a line each."""

    def __init__(self, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            "these runs didn't measure the same: "
            + "; ".join(differences)
            + " (--anyway compares nevertheless)"
        )


class SlowerError(CowshedError):
    """What CI is to fail over."""

    def __init__(self, worse: Sequence[Judged], limit: float) -> None:
        self.worse = tuple(worse)
        named = ", ".join(f"{_name(one)} {_how(one)}" for one in worse[:_MOST_NAMED])
        more = f" and {len(worse) - _MOST_NAMED} more" if len(worse) > _MOST_NAMED else ""
        super().__init__(f"worse than {limit:g}× for certain: {named}{more}")


def _factor(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not 1 <= value < math.inf:
        raise click.BadParameter("a factor from 1 on, as in 1.1")
    return value


@click.command("compare")
@click.argument("first", metavar="A.json", type=click.Path())
@click.argument("second", metavar="B.json", type=click.Path())
@click.option(
    "--measure",
    "measures",
    multiple=True,
    type=click.Choice(["wall", "cpu", "peak_memory", "disk", "inodes", "written", "syncs"]),
    help="What to compare; may be repeated. Default: what leads each workload.",
)
@click.option("--subject", "subjects", multiple=True, metavar="NAME", help="Only this; may repeat.")
@click.option(
    "--workload", "workloads", multiple=True, metavar="NAME", help="Only this; may repeat."
)
@click.option(
    "--fail-over",
    type=float,
    callback=_factor,
    metavar="FACTOR",
    help="Exit with 1 where anything fails now, or is certainly worse by more, as in 1.1.",
)
@click.option("--anyway", is_flag=True, help="Also if machine, input or workloads differ.")
@click.option("--all", "show_all", is_flag=True, help="Show what didn't change, too.")
@pass_session
def compare_command(
    session: Session,
    first: str,
    second: str,
    measures: tuple[Metric, ...],
    subjects: tuple[str, ...],
    workloads: tuple[str, ...],
    fail_over: float | None,
    anyway: bool,
    show_all: bool,
) -> None:
    """Compare two runs: by how much B takes more or less than A, and what of it is certain.

    Certain is what chance wouldn't leave among all lines compared; one comparison in twenty of
    nothing new shows any. Changes below 5 % aren't counted.

    --json: {differences, notes, subjects, lines}; ratio is {estimate, low, high, confidence}.
    """
    from ..results import load
    from .comparable import differences
    from .comparing import compare

    old, new = load(first), load(second)
    _check_names("subject", subjects, [one.name for run in (old, new) for one in run.subjects])
    _check_names("workload", workloads, [one.name for run in (old, new) for one in run.workloads])
    doubts = differences(old, new)
    if doubts and not anyway:
        raise IncomparableError([one_line(doubt) for doubt in doubts])
    found = compare(old, new, measures=measures or None, subjects=subjects, workloads=workloads)
    if not found.lines:
        raise UsageError("no line is in either run; see --subject and --workload")
    if session.json:
        print_json(_document(doubts, found))
    else:
        for doubt in doubts:
            warn(f"differs: {doubt}")
        _show(old, new, found, show_all)
    worse = found.worse_than(fail_over) if fail_over is not None else []
    if worse and fail_over is not None:
        raise SlowerError(worse, fail_over)


def _check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise NotFoundError(kind, name, known)


def _show(old: Run, new: Run, found: Comparison, show_all: bool) -> None:
    for name, run in (("A", old), ("B", new)):
        versions = ", ".join(f"{program} {version}" for program, version in run.versions.items())
        line(f"{name}  {one_line(run.started)}  {one_line(versions, 90)}")
    shown = sorted(
        (one for one in found.lines if show_all or one.verdict not in ("same", "missing")),
        key=_rank,
    )
    whole = [one for one in found.subjects if show_all or one.verdict != "same"]
    if shown or whole:
        line()
        table(
            ("SUBJECT", "WORKLOAD", "MEASURE", "A", "B", "B / A", "INTERVAL", "ROUNDS", ""),
            [_row(one) for one in (*whole, *shown)],
        )
    same = sum(one.verdict == "same" for one in found.lines)
    missing = sum(one.verdict == "missing" for one in found.lines)
    line()
    line(
        f"{len(found.lines)} lines: "
        f"{sum(one.verdict == 'certain' for one in found.lines)} changed for certain, "
        f"{sum(one.verdict == 'likely' for one in found.lines)} perhaps, {same} didn't"
        + (f", {missing} can't be compared (--all says why)" if missing else "")
    )
    for note in found.notes:
        warn(note)


def _rank(one: Judged) -> float:
    """Sort failures first, then the worst, and what can't be compared last."""
    if one.verdict == "broken":
        return -math.inf
    return math.inf if math.isnan(one.factor) else -one.factor


def _row(one: Judged) -> tuple[str, ...]:
    from ..quantities import TITLES, quantity

    whole = not one.workload
    return (
        one_line(one.subject, 30),
        "all, on the whole" if whole else one_line(_workload(one), 40),
        TITLES[one.measure],
        "" if whole else quantity(one.measure, one.before),
        "" if whole else quantity(one.measure, one.after),
        "–" if math.isnan(one.factor) else f"{one.factor:.2f}",
        _interval(one.ratio),
        f"{one.rounds[0]}, {one.rounds[1]}" if any(one.rounds) else "",
        _verdict(one),
    )


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{found.low:.2f} to {found.high:.2f} ({found.confidence:.0%})"


def _verdict(one: Judged) -> str:
    more, less = ("slower", "faster") if one.measure in ("wall", "cpu") else ("more", "less")
    direction = more if one.worse else less
    return {
        "certain": direction.upper(),
        "likely": f"{direction}?",
        "same": "",
        "broken": f"FAILS NOW: {one_line(one.reason, 80)}",
        "mended": f"works now: {one_line(one.reason, 80)}",
        "missing": one_line(one.reason, 80),
    }[one.verdict]


def _workload(one: Judged) -> str:
    return one.workload + (f" {one.parameter:,}" if one.parameter is not None else "")


def _name(one: Judged) -> str:
    where = _workload(one) if one.workload else "on the whole"
    return f"{one_line(one.subject, 30)} {one_line(where, 40)}"


def _how(one: Judged) -> str:
    return "fails" if one.verdict == "broken" else f"{one.factor:.2f}×"


def _document(doubts: Sequence[str], found: Comparison) -> dict[str, object]:
    return {
        "differences": list(doubts),
        "notes": list(found.notes),
        "subjects": [_fields(one) for one in found.subjects],
        "lines": [_fields(one) for one in found.lines],
    }


def _fields(one: Judged) -> dict[str, object]:
    import attrs

    fields = attrs.asdict(one)
    # JSON has neither; where there is no number there is null.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
