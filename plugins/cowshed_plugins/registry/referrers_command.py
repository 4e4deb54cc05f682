"""``cowshed referrers``: signatures, statements and the like that a registry has of an image."""

from __future__ import annotations

import click

from cowshed.cli.output import json_or_table, line, one_line, size
from cowshed.cli.session import Session, pass_session
from cowshed.oci import Descriptor

from .settings import NAME

_NAMED = "docker://"


@click.command("referrers")
@click.argument("image")
@click.option("--type", "artifact_type", metavar="TYPE", default="", help="Only of this type.")
@pass_session
def referrers_command(session: Session, image: str, artifact_type: str) -> None:
    """List what refers to IMAGE in its registry.

    IMAGE is [docker://][HOST/]NAME[:TAG][@DIGEST]. A registry that has no list of its own is asked
    for the one that clients keep under the tag sha256-HEX.

    --json: array of {digest, artifact_type, media_type, size, annotations}; -q prints digests.
    """
    from .transport import RegistryTransport, parse_rest

    reference = parse_rest(image if image.startswith("//") else f"//{image.removeprefix(_NAMED)}")
    transport = RegistryTransport()
    transport.configure(session.load_config().plugin_options(NAME))
    found = transport.referrers(reference, artifact_type)
    if session.quiet and not session.json:
        for item in found:
            line(item.digest)
        return
    json_or_table(session.json, found, _fields, ("DIGEST", "TYPE", "SIZE"), _cells)


def _fields(item: Descriptor) -> dict[str, object]:
    return {
        "digest": item.digest,
        "artifact_type": item.artifact_type,
        "media_type": item.media_type,
        "size": item.size,
        "annotations": dict(item.annotations),
    }


def _cells(item: Descriptor) -> tuple[str, ...]:
    return item.digest, one_line(item.artifact_type or item.media_type), size(item.size)
