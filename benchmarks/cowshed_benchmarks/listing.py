"""Listing: what would be measured, and who could take part here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cowshed.cli.output import line, one_line, table

from .places import why_not
from .running import Asked, candidates
from .subjects import SHARING, Candidate, peers
from .workloads import WORKLOADS

if TYPE_CHECKING:
    from cowshed.cli.session import Session


def show_list(session: Session, asked: Asked) -> None:
    """Print every workload, every driver and peer, also those that aren't installed."""
    place = asked.directory or Path(tempfile.gettempdir())
    everybody = candidates(asked, session.load_config(), place)
    known = {one.subject.name for one in everybody}
    if asked.peers is None:
        everybody += [one for one in peers(None, every=True) if one.subject.name not in known]
    if session.json:
        session.print(
            {
                "workloads": [
                    {
                        "name": name,
                        "title": work.facts.title,
                        "question": work.facts.question,
                        "through": work.through,
                        "quick": not work.thorough,
                        "quick_sizes": _sizes(work.quick),
                        "sizes": _sizes(work.full),
                    }
                    for name, work in WORKLOADS.items()
                ],
                "subjects": [
                    {
                        "name": one.subject.name,
                        "kind": one.subject.kind,
                        "version": one.subject.version,
                        "durable": one.subject.durable,
                        "plugin": one.subject.plugin,
                        "unable": one.unable,
                    }
                    for one in everybody
                ],
            }
        )
        return
    table(
        ("WORKLOAD", "QUICK", "WHAT IT ANSWERS", "ASKED OF COWSHED"),
        [
            (name, "-" if work.thorough else "yes", work.facts.question, work.through)
            for name, work in WORKLOADS.items()
        ],
    )
    line()
    table(
        ("SUBJECT", "KIND", "VERSION", "DURABLE", "HERE"),
        [
            (
                one_line(one.subject.name),
                one.subject.kind,
                one_line(one.subject.version) or "-",
                one_line(one.subject.durable),
                one_line(_here(one)),
            )
            for one in everybody
        ],
    )


def _sizes(values: tuple[int | None, ...]) -> list[int]:
    return [value for value in values if value is not None]


def _here(one: Candidate) -> str:
    if not one.unable:
        return "yes"
    if one.subject.kind == "driver" and not why_not(SHARING):
        return f"a run tries {SHARING} on a loop device: {one.unable}"
    return one.unable
