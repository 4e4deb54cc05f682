"""``df``: where the bytes on disk are, in parts that add up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from .output import age_of_text, line, percentage, print_json, short_id, size, table
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..accounts import DiskUsage


@click.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Show every image too.")
@pass_session
def df_command(session: Session, verbose: bool) -> None:
    """Show where the bytes on disk are.

    The sizes in the first table add up to what is on disk; Partial are downloads that broke off
    and will be resumed. --json, in bytes: {total, images, containers, blobs, partial, recipes,
    catalog, temporary, other, reclaimable, image_count, active_images, container_count, drivers:
    [{name, disk, layer_count, layers, container_count, containers, shared}], image_list: [{id,
    names, created, size, unique, shared, containers}]}; total = images + containers + blobs +
    partial + recipes + catalog + temporary + other.
    """
    usage = session.shed.df()
    if session.json:
        print_json(_fields(usage))
        return
    if session.quiet:
        line(size(usage.total))
        return
    _print_parts(usage)
    line()
    table(
        ("DRIVER", "LAYERS", "UNIQUE", "CONTAINERS", "UNIQUE", "SHARED", "ON DISK"),
        (
            (
                one.name,
                str(one.layer_count),
                size(one.layers),
                str(one.container_count),
                size(one.containers),
                size(one.shared),
                size(one.disk),
            )
            for one in usage.drivers
        ),
    )
    if verbose:
        line()
        _print_images(usage)


def _in_images(usage: DiskUsage) -> int:
    """Layers, and what drivers share or need for themselves."""
    return sum(one.layers + one.shared for one in usage.drivers)


def _in_containers(usage: DiskUsage) -> int:
    return sum(one.containers for one in usage.drivers)


def _print_parts(usage: DiskUsage) -> None:
    images, containers = _in_images(usage), _in_containers(usage)
    rest = (
        ("Blobs", usage.blobs),
        ("Partial", usage.partial),
        ("Recipes", usage.recipes),
        ("Catalog", usage.catalog),
        ("Temporary", usage.temporary),
        ("Other", usage.other),
    )
    table(
        ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"),
        (
            (
                "Images",
                str(usage.image_count),
                str(usage.active_images),
                size(images),
                f"{size(usage.reclaimable)}{percentage(usage.reclaimable, images)}",
            ),
            (
                "Containers",
                str(usage.container_count),
                str(usage.container_count),
                size(containers),
                "",
            ),
            *((name, "", "", size(part), "") for name, part in rest),
            ("On disk", "", "", size(usage.total), ""),
        ),
    )


def _print_images(usage: DiskUsage) -> None:
    now = time.time()
    table(
        (
            "REPOSITORY:TAG",
            "IMAGE ID",
            "CREATED",
            "SIZE",
            "SHARED SIZE",
            "UNIQUE SIZE",
            "CONTAINERS",
        ),
        (
            (
                one.names[0] if one.names else "<none>",
                short_id(one.id),
                age_of_text(one.created, now),
                size(one.size),
                size(one.shared),
                size(one.unique),
                str(one.containers),
            )
            for one in usage.images
        ),
    )


def _fields(usage: DiskUsage) -> dict[str, Any]:
    import attrs

    fields = attrs.asdict(usage)
    listed = fields.pop("images")
    return {
        **fields,
        "images": _in_images(usage),
        "containers": _in_containers(usage),
        "image_list": listed,
    }
