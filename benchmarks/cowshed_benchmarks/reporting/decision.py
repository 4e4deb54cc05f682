"""Which driver for which work: derived from the samples, never from what we think of a driver.

A kind of work is some of the workloads. What a driver takes for it is the geometric mean over
these, so that each counts alike whether it takes seconds or microseconds. A workload that was run
at several sizes counts with the largest that two drivers managed, or one if there are no two. Where
a driver didn't get its turn before the run's time was over, a workload counts for none.

The pick takes least; whoever's ratio to it can't be told from 1 (its interval reaches it) shares
the pick. A driver that can't do all of it isn't picked, and the table says why.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from ..judging.lines import Key, Line, means_by_round, ratio, ratio_of_pairs
from ..judging.ranks import Interval
from ..quantities import quantity, several, times
from ..results import OUT_OF_TIME, Metric, Run, Workload

#: At most so many workloads speak for a pick; the details hold all.
_MOST_REASONS = 3
#: From here on another driver takes as much, whatever rounds say.
_EVEN = 1.02


@attrs.frozen
class Kind:
    """A kind of work, and which workloads belong to it."""

    title: str
    belongs: Callable[[Workload], bool]
    #: What counts; None: what leads each workload.
    measure: Metric | None = None


def _alone(*groups: str) -> Callable[[Workload], bool]:
    """Take what leads by time in these groups, but for forks and mounts, which are other work."""
    return lambda workload: (
        workload.group in groups
        and workload.metric == "wall"
        and not _forking(workload)
        and not _mounted(workload)
    )


def _forking(workload: Workload) -> bool:
    return any(word in workload.name for word in ("fork", "rollback"))


def _mounted(workload: Workload) -> bool:
    return "mount" in workload.name


KINDS = (
    Kind("Fetch images and use them", _alone("import")),
    Kind("Keep many versions on little disk", lambda workload: workload.metric == "disk"),
    Kind("Make containers by the thousand", _alone("containers")),
    Kind("Keep containers small", _alone("containers"), "disk"),
    Kind("Checkpoint and roll back", _forking),
    Kind("Write: installs, databases, big files", _alone("writing")),
    Kind("Read and walk, through the library", _alone("reading")),
    Kind("Run processes in a mount: read, walk, install", _mounted),
    Kind("Find changes, commit, export", _alone("changes")),
    Kind("Remove, and have the space back", _alone("removal")),
    Kind("Many processes at once", _alone("parallel")),
)


@attrs.frozen(kw_only=True)
class Choice:
    """What the samples say about one kind of work."""

    title: str
    #: The pick, and whoever can't be told from it.
    picks: tuple[str, ...]
    #: Figures of the pick, workload by workload.
    reasons: tuple[str, ...]
    #: The next driver that is certainly behind, and by how much.
    runner_up: str = ""
    behind: Interval | None = None
    #: The best peer, how much it takes of what the pick takes, and on how many workloads of how
    #: many both can be compared.
    peer: str = ""
    beside: Interval | None = None
    shared: tuple[int, int] = (0, 0)
    #: Drivers that can't do all of it: name → why.
    unable: Mapping[str, str] = attrs.field(factory=dict[str, str])


def choices(run: Run, lines: Mapping[Key, Line]) -> list[Choice]:
    """Return a choice for every kind of work that any driver was measured at.

    Args:
        lines: of all measures.
    """
    found = (_choice(run, lines, kind) for kind in KINDS)
    return [one for one in found if one is not None]


def _choice(run: Run, lines: Mapping[Key, Line], kind: Kind) -> Choice | None:
    drivers = [one.name for one in run.subjects if one.kind == "driver"]
    pieces = list(_pieces(run, lines, kind, drivers))
    able = {name: found for name in drivers if (found := _all_of(lines, pieces, name))}
    if not able:
        return None
    means = {name: means_by_round(found, fill=True)[0] for name, found in able.items()}
    order = sorted(able, key=lambda name: statistics.median(means[name].values()))
    best = order[0]
    ratios = {name: _beside(means[best], means[name]) for name in order[1:]}
    picks = [best, *(name for name in order[1:] if _even(ratios[name]))]
    rest = [name for name in order if name not in picks]
    peer, beside, shared = _best_peer(run, lines, pieces, best)
    if any(lines[one.key].low <= 0 for one in able[best]):
        # Of nothing there is no multiple.
        ratios, peer, beside = dict.fromkeys(ratios), "", None
    return Choice(
        title=kind.title,
        picks=tuple(picks),
        reasons=tuple(_reasons(run, lines, able[best], [able[name] for name in order[1:]])),
        runner_up=rest[0] if rest else "",
        behind=ratios[rest[0]] if rest else None,
        peer=peer,
        beside=beside,
        shared=(shared, len(pieces)),
        unable={name: _why(lines, pieces, name) for name in drivers if name not in order},
    )


def _pieces(
    run: Run, lines: Mapping[Key, Line], kind: Kind, drivers: Sequence[str]
) -> Iterable[tuple[str, int | None, Metric]]:
    """Return (workload, size, measure) for each workload that every driver had its turn at."""
    for workload in run.workloads:
        if not kind.belongs(workload):
            continue
        measure = kind.measure or workload.metric
        own = [
            line
            for key, line in lines.items()
            if (key.workload, key.measure) == (workload.name, measure) and key.subject in drivers
        ]
        unfair = {line.key.parameter for line in own if _out_of_time(line)}
        sizes = [line.key.parameter for line in own if _usable(line)]
        fair = [size for size in sizes if size not in unfair]
        if fair:
            shared = [size for size in fair if fair.count(size) > 1]
            yield workload.name, max(shared or fair, key=lambda size: size or 0), measure


def _out_of_time(line: Line) -> bool:
    return not line.values and any(reason.startswith(OUT_OF_TIME) for _, reason in line.problems)


def _usable(line: Line | None) -> bool:
    """Say whether a line can be compared; taking no disk at all can, too."""
    return line is not None and bool(line.values) and (line.low > 0 or line.key.measure == "disk")


def _all_of(
    lines: Mapping[Key, Line], pieces: Sequence[tuple[str, int | None, Metric]], subject: str
) -> list[Line]:
    """Return a subject's lines of all pieces, or none if it lacks one."""
    found = [lines.get(Key(subject, *piece)) for piece in pieces]
    return [_counted(one) for one in found if one is not None] if all(map(_usable, found)) else []


def _counted(line: Line) -> Line:
    """Let what takes nothing, or gave something back, count as one byte: it has to have a rank."""
    if not line.values or line.low > 0:
        return line
    return attrs.evolve(line, values={at: max(value, 1.0) for at, value in line.values.items()})


def _beside(base: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    rounds = [number for number in base if number in other]
    return ratio([base[number] for number in rounds], [other[number] for number in rounds])


def _even(found: Interval | None) -> bool:
    """Say whether a ratio can't be told from 1; one round can't tell any."""
    return found is None or found.low <= 1 or found.estimate < _EVEN


def _best_peer(
    run: Run,
    lines: Mapping[Key, Line],
    pieces: Sequence[tuple[str, int | None, Metric]],
    pick: str,
) -> tuple[str, Interval | None, int]:
    """Return the peer that takes least beside the pick, of those that do most of the work."""
    best: tuple[int, float, str, Interval] | None = None
    for peer in (one.name for one in run.subjects if one.kind == "peer"):
        both = [
            piece
            for piece in pieces
            if _usable(lines.get(Key(peer, *piece))) and _usable(lines.get(Key(pick, *piece)))
        ]
        found = _beside(
            *means_by_round(
                [_counted(lines[Key(pick, *piece)]) for piece in both],
                [_counted(lines[Key(peer, *piece)]) for piece in both],
                fill=True,
            )
        )
        if found is not None:
            candidate = (-len(both), found.estimate, peer, found)
            best = min(best, candidate, key=lambda one: one[:2]) if best else candidate
    return (best[2], best[3], -best[0]) if best else ("", None, 0)


def _reasons(
    run: Run, lines: Mapping[Key, Line], best: Sequence[Line], others: Sequence[Sequence[Line]]
) -> Iterable[str]:
    """Return the pick's figures beside the next driver's, the most telling workloads first."""
    told: list[tuple[float, str]] = []
    workloads = {one.name: one for one in run.workloads}
    for at, line in enumerate(best):
        workload = workloads[line.key.workload]
        title = _title(workload, line)
        text = f"{title}: {_figure(lines[line.key])}"
        if line.operations > 1 and line.key.measure != "peak_memory":
            text += " each"
        rivals = [rival[at] for rival in others]
        if rivals:
            rival = min(rivals, key=lambda one: one.median)
            text += f" ({rival.key.subject} {_figure(lines[rival.key])})"
            between = ratio_of_pairs(line, rival)
            told.append((abs(math.log(between.estimate)) if between else 0.0, text))
        else:
            told.append((0.0, text))
    told.sort(key=lambda one: -one[0])
    yield from (text for _, text in told[:_MOST_REASONS])
    if len(told) > _MOST_REASONS:
        yield f"and {several(len(told) - _MOST_REASONS, 'more workloads')}"


def _figure(line: Line) -> str:
    return quantity(line.key.measure, line.median)


def _title(workload: Workload, line: Line) -> str:
    if line.key.parameter is None:
        return workload.title
    return f"{workload.title}, {several(line.key.parameter, workload.parameter)}"


def _why(
    lines: Mapping[Key, Line], pieces: Sequence[tuple[str, int | None, Metric]], subject: str
) -> str:
    for piece in pieces:
        line = lines.get(Key(subject, *piece))
        if line is None:
            return f"{piece[0]} wasn't measured"
        if not _usable(line):
            return f"{piece[0]} {line.problem or 'has nothing to compare'}"
    return "no round has all of it"


def factor(found: Interval | None) -> str:
    """Return ``3.1× (2.8–3.4)``, or nothing."""
    if found is None:
        return ""
    low, high = times(found.low).removesuffix("×"), times(found.high).removesuffix("×")
    return f"{times(found.estimate)} ({low} to {high})" if low != high else times(found.estimate)
