"""Commands that look closely: inspect, history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ..errors import CowshedError, NotFoundError
from .completion import anything, images
from .output import age_of_text, line, one_line, print_json, short_id, size, table, warn
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..layer import HistoryEntry
    from ..shed import Shed

_CREATED_BY_WIDTH = 45


@click.command("inspect")
@click.argument("references", nargs=-1, required=True, metavar="REF...", shell_complete=anything)
@click.option(
    "--type", "kind", type=click.Choice(["container", "image"]), help="Look for this kind only."
)
@pass_session
def inspect_command(session: Session, references: tuple[str, ...], kind: str | None) -> None:
    """Show all about containers and images, as a JSON array with Docker's field names."""
    found: list[dict[str, Any]] = []
    for reference in references:
        try:
            found.append(_inspect(session.shed, reference, kind))
        except CowshedError as error:
            warn(str(error))
            session.exit_status = error.exit_status
    print_json(found)


def _inspect(shed: Shed, reference: str, kind: str | None) -> dict[str, Any]:
    if kind != "image":
        try:
            return shed.container(reference).inspect()
        except NotFoundError:
            if kind == "container":
                raise
    try:
        return shed.image(reference).inspect()
    except NotFoundError as error:
        if kind == "image":
            raise
        names = [container.name for container in shed.containers()[:1000]]
        raise NotFoundError("container or image", reference, (*names, *error.known)) from None


@click.command("history")
@click.argument("image", shell_complete=images)
@click.option("--no-trunc", is_flag=True, help="Show commands and IDs in full.")
@click.option(
    "-H", "--human/--no-human", default=True, help="Sizes and times for people (the default)."
)
@pass_session
def history_command(session: Session, image: str, no_trunc: bool, human: bool) -> None:
    """Show how IMAGE was made, the last step first. Steps without a layer have 0 bytes.

    --json: array, the first step first, of {created, created_by, author, comment, size, layer}.
    """
    steps = session.shed.image(image).history()
    if session.json:
        print_json([_fields(step) for step in steps])
        return
    steps.reverse()
    if session.quiet:
        for step in steps:
            line(_layer(step, no_trunc))
        return
    now = time.time()
    table(
        ("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"),
        (
            (
                _layer(step, no_trunc),
                age_of_text(step.created, now) if human else one_line(step.created) or "N/A",
                one_line(step.created_by, None if no_trunc else _CREATED_BY_WIDTH),
                size(step.size) if human else str(step.size),
                one_line(step.comment),
            )
            for step in steps
        ),
    )


def _layer(step: HistoryEntry, whole: bool) -> str:
    if step.layer is None:
        return "<none>"
    return short_id(step.layer.diff_id, whole=whole)


def _fields(step: HistoryEntry) -> dict[str, object]:
    return {
        "created": step.created,
        "created_by": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "size": step.size,
        "layer": None if step.layer is None else step.layer.diff_id,
    }
