"""Commands on images: import, save, images, tag, rmi."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .completion import images as complete_images
from .output import (
    age_of_text,
    json_or_table,
    line,
    one_line,
    print_json,
    short_id,
    size,
)
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..image import Image
    from ..importing import Imported


@click.command("import")
@click.argument("source")
@click.argument("name", required=False)
@click.option("--platform", metavar="OS/ARCH", help="Platform to take from a multi-platform image.")
@pass_session
def import_command(session: Session, source: str, name: str | None, platform: str | None) -> None:
    """Import images from SOURCE and name them.

    SOURCE is oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR or tar:FILE; '-' as FILE
    is standard input. Layers that the shed has are neither read nor stored again.

    --json: array of {id, names, layers, existing, bytes_read, size}.
    """
    from .progress import import_listener

    shed = session.shed
    with import_listener(silent=session.quiet or session.json) as listener:
        imported = shed.import_image(source, name, platform=platform, listener=listener)
    if session.json:
        print_json([_imported_fields(one) for one in imported])
        return
    for one in imported:
        if session.quiet:
            line(f"sha256:{one.image.id}")
            continue
        present = f", {one.existing} already here" if one.existing else ""
        plural = "" if one.layers == 1 else "s"
        line(f"{one.layers} layer{plural}{present}, {size(one.bytes_read)} read")
        for given in one.names:
            line(f"Loaded image: {given}")
        line(
            f"Loaded image ID: sha256:{one.image.id}" if not one.names else f"sha256:{one.image.id}"
        )


def _imported_fields(one: Imported) -> dict[str, object]:
    return {
        "id": f"sha256:{one.image.id}",
        "names": list(one.names),
        "layers": one.layers,
        "existing": one.existing,
        "bytes_read": one.bytes_read,
        "size": one.image.size,
    }


@click.command("save")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images
)
@click.argument("target")
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "zstd:chunked", "none"]),
    help="How layers are compressed; without it as they came, where that is kept, or with gzip.",
)
@click.option("--level", type=int, help="Level of compression; a measured default without.")
@pass_session
def save_command(
    session: Session,
    images: tuple[str, ...],
    target: str,
    compression: str | None,
    level: int | None,
) -> None:
    """Write IMAGES to TARGET: oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE.

    Every layer's diff ID is the one that was imported.
    """
    session.shed.save(images, target, compression=compression, level=level)


@click.command("images")
@click.argument("name", required=False, shell_complete=complete_images)
@click.option("-a", "--all", "_all", is_flag=True, help="Nothing is ever hidden; for habit's sake.")
@click.option("--no-trunc", is_flag=True, help="Show IDs in full.")
@pass_session
def images_command(session: Session, name: str | None, _all: bool, no_trunc: bool) -> None:
    """List images, the newest first; with NAME those of that repository or name.

    --json: array of {id, names, created, added, size, layers, drivers, platform}.
    """
    images = [one for one in session.shed.images() if name is None or _matches(one, name)]
    if session.quiet and not session.json:
        for one in images:
            line(f"sha256:{one.id}" if no_trunc else short_id(one.id))
        return
    if session.json:
        print_json([_image_fields(one) for one in images])
        return
    now = time.time()
    rows = [(one, given) for one in images for given in one.names or ("<none>:<none>",)]
    json_or_table(
        False,
        [row for row in rows if name is None or not row[0].names or _fits(row[1], name)],
        lambda row: {},
        ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"),
        lambda row: (
            *_split(row[1]),
            f"sha256:{row[0].id}" if no_trunc else short_id(row[0].id),
            age_of_text(row[0].created, now),
            size(row[0].size),
        ),
    )


def _matches(image: Image, name: str) -> bool:
    return any(_fits(given, name) for given in image.names)


def _fits(given: str, name: str) -> bool:
    return name in (given, _split(given)[0])


def _split(name: str) -> tuple[str, str]:
    repository, _, tag = name.rpartition(":")
    return repository, tag


def _image_fields(image: Image) -> dict[str, object]:
    from .output import rfc3339

    return {
        "id": f"sha256:{image.id}",
        "names": list(image.names),
        "created": image.created,
        "added": rfc3339(image.record.added_ns),
        "size": image.size,
        "layers": len(image.record.chains),
        "drivers": list(image.record.drivers),
        "platform": image.record.platform,
    }


@click.command("tag")
@click.argument("image", shell_complete=complete_images)
@click.argument("name")
@pass_session
def tag_command(session: Session, image: str, name: str) -> None:
    """Give IMAGE the further name NAME; an image that had it loses it."""
    session.shed.tag(image, name)


@click.command("rmi")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images
)
@click.option("-f", "--force", is_flag=True, help="Even if containers use it or it has more names.")
@pass_session
def rmi_command(session: Session, images: tuple[str, ...], force: bool) -> None:
    """Remove names of images; with the last one the image and the layers no other one needs.

    --json: array of {untagged} and {deleted}.
    """
    from .several import for_each

    shed = session.shed
    lines: list[str] = []

    def remove(image: str) -> None:
        for text in shed.remove_image(image, force=force):
            lines.append(text)
            if not (session.quiet or session.json):
                line(one_line(text))

    for_each(session, images, remove)
    if session.json:
        pairs = [text.partition(": ") for text in lines]
        print_json([{what.lower(): about} for what, _, about in pairs])
