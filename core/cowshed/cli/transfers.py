"""Commands between the shed and registries: pull, push, copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .completion import images as complete_images
from .output import line, print_json, share
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..importing import Imported
    from ..target import Written

_FORMATS = ("gzip", "zstd", "zstd:chunked", "none")
_platform = click.option(
    "--platform", metavar="OS/ARCH", help="Platform to take from a multi-platform image."
)
_format = click.option(
    "--format",
    "compression",
    type=click.Choice(_FORMATS),
    help="How layers are compressed; without it as they came, where that is kept, or with gzip. "
    "zstd:chunked has a table of contents, by which later pulls fetch only what is new.",
)
_level = click.option("--level", type=int, help="Level of compression; a measured default without.")


@click.command("pull")
@click.argument("reference")
@click.argument("name", required=False)
@_platform
@pass_session
def pull_command(session: Session, reference: str, name: str | None, platform: str | None) -> None:
    """Fetch the image REFERENCE from a registry, as far as it isn't here, and name it.

    REFERENCE is [HOST/]NAME[:TAG][@DIGEST] as Docker reads it, or has a transport, as for import.

    --json: array of {id, names, layers, existing, received, total, size, manifest}.
    """
    from .progress import import_listener

    shed = session.shed
    with import_listener(silent=session.quiet or session.json) as listener:
        pulled = shed.pull(reference, name, platform=platform, listener=listener)
    if session.json:
        print_json([_pulled_fields(one) for one in pulled])
        return
    for one in pulled:
        if session.quiet:
            line(f"sha256:{one.image.id}")
            continue
        for given in one.names:
            line(f"Loaded image: {given}")
        line(f"sha256:{one.image.id}")
        fetched = one.layers - one.existing
        received, total = (one.received, one.total) if one.total else (one.bytes_read,) * 2
        line(_summary(one.layers, one.existing, "here", fetched, "fetched", received, total))


def _pulled_fields(one: Imported) -> dict[str, object]:
    return {
        "id": f"sha256:{one.image.id}",
        "names": list(one.names),
        "layers": one.layers,
        "existing": one.existing,
        "received": one.received if one.total else one.bytes_read,
        "total": one.total or one.bytes_read,
        "size": one.image.size,
        "manifest": one.image.manifest,
    }


@click.command("push")
@click.argument("image", shell_complete=complete_images)
@click.argument("target", required=False)
@_format
@_level
@pass_session
def push_command(
    session: Session,
    image: str,
    target: str | None,
    compression: str | None,
    level: int | None,
) -> None:
    """Send IMAGE to the registry that its name or TARGET says.

    TARGET is [HOST/]NAME[:TAG], or has a transport, as for save. Layers that the registry has
    aren't sent.

    --json: {manifest, layers, existing, sent, total}.
    """
    from .progress import sending_listener

    with sending_listener(silent=session.quiet or session.json) as listener:
        written = session.shed.push(
            image, target, compression=compression, level=level, listener=listener
        )
    if written is not None:
        _print_written(session, [written])


@click.command("copy")
@click.argument("source")
@click.argument("target")
@_platform
@_format
@_level
@pass_session
def copy_command(
    session: Session,
    source: str,
    target: str,
    platform: str | None,
    compression: str | None,
    level: int | None,
) -> None:
    """Copy images from SOURCE to TARGET without taking them into the shed.

    Both are as for pull and push. Layers are copied as they are unless --format says otherwise.

    --json: array of {manifest, layers, existing, sent, total}.
    """
    from .progress import sending_listener

    with sending_listener(silent=session.quiet or session.json) as listener:
        written = session.shed.copy(
            source, target, platform=platform, compression=compression, level=level,
            listener=listener,
        )  # fmt: skip
    _print_written(session, written, listed=True)


def _print_written(session: Session, written: Sequence[Written], *, listed: bool = False) -> None:
    if session.json:
        fields: list[dict[str, object]] = [
            {
                "manifest": one.manifest.digest,
                "layers": one.layers,
                "existing": one.existing,
                "sent": one.sent,
                "total": one.total,
            }
            for one in written
        ]
        print_json(fields if listed else fields[0])
        return
    for one in written:
        line(one.manifest.digest)
        if not session.quiet:
            went = one.layers - one.existing
            line(_summary(one.layers, one.existing, "there", went, "sent", one.sent, one.total))


def _summary(
    layers: int, existing: int, where: str, others: int, done: str, moved: int, total: int
) -> str:
    plural = "" if layers == 1 else "s"
    return (
        f"{layers} layer{plural}: {existing} {where} already, {others} {done}; "
        f"{share(moved, total)} transferred"
    )
