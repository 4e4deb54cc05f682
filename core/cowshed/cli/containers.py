"""Commands on containers: create, ps, diff, commit, fork, rename, rm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..errors import CowshedError, NotFoundError
from .completion import containers as complete_containers
from .completion import images as complete_images
from .output import age_of_ns, line, name_line, print_json, rfc3339, short_id, size, table
from .session import Session, pass_session
from .statuses import Statuses

if TYPE_CHECKING:
    from ..container import Container
    from ..driver import Usage
    from ..shed import Shed


@click.command("create")
@click.argument("image", shell_complete=complete_images)
@click.option("--name", help="Its name; one such as calm_hopper is made up without.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Create N in one batch, all or none; with --name they are NAME-1 … NAME-N.",
)
@pass_session
def create_command(session: Session, image: str, name: str | None, count: int) -> None:
    """Create containers on IMAGE ('scratch': on nothing) and print their IDs.

    --json: array of {id, name, image, driver, created}.
    """
    names = [name] if name else None
    if name and count > 1:
        names = [f"{name}-{number}" for number in range(1, count + 1)]
    made = session.shed.create_many(image, count, names=names)
    if session.json:
        print_json(
            [
                {
                    "id": one.id,
                    "name": one.name,
                    "image": f"sha256:{one.image_id}" if one.image_id else "",
                    "driver": one.driver,
                    "created": rfc3339(one.created_ns),
                }
                for one in made
            ]
        )
        return
    line("\n".join(one.id for one in made))


@click.command("ps")
@click.option("-a", "--all", "_all", is_flag=True, help="All are shown anyway; for habit's sake.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Show sizes (asks the drivers).")
@click.option("--no-trunc", is_flag=True, help="Show IDs in full.")
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The N newest only.")
@click.option("-l", "--latest", is_flag=True, help="The newest only.")
@pass_session
def ps_command(
    session: Session, _all: bool, sizes: bool, no_trunc: bool, last: int, latest: bool
) -> None:
    """List containers, the newest first.

    --json: array of {id, name, image, image_names, driver, created, status, exit_code}, with -s
    also {size_rw, size_virtual, size_on_disk}.
    """
    shed = session.shed
    containers = shed.containers()
    if latest:
        last = 1
    if last >= 0:
        containers = containers[:last]
    if session.quiet and not session.json:
        if containers:
            line("\n".join(short_id(one.id, whole=no_trunc) for one in containers))
        return
    names: dict[str, list[str]] = {}
    virtual: dict[str, int] = {}
    with shed.catalog.read() as transaction:
        for name, id in transaction.image_names():
            names.setdefault(id, []).append(name)
        if sizes:
            virtual = {image.id: image.size for image in transaction.images()}
    usages = _usages(shed, containers) if sizes else {}
    if sizes:
        containers = [one for one in containers if one.id in usages]
    statuses = Statuses(shed)
    if session.json:
        print_json([_fields(one, names, usages, virtual, statuses) for one in containers])
        return
    now = time.time()
    ages: dict[int, str] = {}  # of a batch of 10,000 all have one
    headings = (
        "CONTAINER ID",
        "IMAGE",
        "DRIVER",
        "CREATED",
        "STATUS",
        "NAMES",
        *(("SIZE",) if sizes else ()),
    )
    rows: list[tuple[str, ...]] = []
    for one in containers:
        created = one.created_ns
        if created not in ages:
            ages[created] = age_of_ns(created, now)
        row: tuple[str, ...] = (
            short_id(one.id, whole=no_trunc),
            _image(one, names, no_trunc),
            one.driver,
            ages[created],
            statuses.text(one.id, now),
            one.name,
        )
        if sizes:
            usage = usages[one.id]
            whole = usage.apparent + virtual.get(one.image_id, 0)
            row = (*row, f"{size(usage.apparent)} (virtual {size(whole)})")
        rows.append(row)
    table(headings, rows)


def _usages(shed: Shed, containers: Sequence[Container]) -> dict[str, Usage]:
    """Return what each costs; those that somebody removed since they were listed are left out."""
    usages: dict[str, Usage] = {}
    for one in containers:
        try:
            usages[one.id] = one.usage()
        except NotFoundError:
            with shed.catalog.read() as transaction:
                if transaction.container(one.id) is not None:
                    raise
    return usages


def _image(container: Container, names: dict[str, list[str]], whole: bool) -> str:
    if not container.image_id:
        return "scratch"
    named = names.get(container.image_id)
    if named is None:
        return short_id(container.image_id, whole=whole)
    return named[0].removesuffix(":latest")


def _fields(
    container: Container,
    names: dict[str, list[str]],
    usages: dict[str, Usage],
    virtual: dict[str, int],
    statuses: Statuses,
) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": container.id,
        "name": container.name,
        "image": f"sha256:{container.image_id}" if container.image_id else "",
        "image_names": names.get(container.image_id, []),
        "driver": container.driver,
        "created": rfc3339(container.created_ns),
        **statuses.fields(container.id),
    }
    usage = usages.get(container.id)
    if usage is not None:
        fields["size_rw"] = usage.apparent
        fields["size_virtual"] = usage.apparent + virtual.get(container.image_id, 0)
        fields["size_on_disk"] = usage.exclusive
    return fields


@click.command("diff")
@click.argument("container", shell_complete=complete_containers)
@pass_session
def diff_command(session: Session, container: str) -> None:
    """Show what changed in CONTAINER since it was created: A added, C changed, D deleted.

    --json: array of {kind, path}; undecodable bytes of a path are lone surrogates.
    """
    changes = session.shed.container(container).diff()
    if session.json:
        print_json([{"kind": one.kind.value, "path": f"/{one.path}"} for one in changes])
        return
    for one in changes:
        name_line(f"{one.kind.value} ", f"/{one.path}")


@click.command("commit")
@click.argument("container", shell_complete=complete_containers)
@click.argument("name", required=False)
@click.option("-a", "--author", default="", help="Who made it.")
@click.option("-m", "--message", default="", help="What was done.")
@click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    help="Dockerfile instruction to apply, as in 'ENV PATH=/opt/bin'; may be repeated.",
)
@pass_session
def commit_command(
    session: Session,
    container: str,
    name: str | None,
    author: str,
    message: str,
    changes: tuple[str, ...],
) -> None:
    """Make an image of CONTAINER: its image's layers and one of what changed. Prints its ID.

    --json: {id, names}.
    """
    image = session.shed.container(container).commit(
        name, author=author, message=message, changes=changes
    )
    if session.json:
        print_json({"id": f"sha256:{image.id}", "names": list(image.names)})
    else:
        line(f"sha256:{image.id}")


@click.command("fork")
@click.argument("container", shell_complete=complete_containers)
@click.option("--name", help="Name of the new container.")
@pass_session
def fork_command(session: Session, container: str, name: str | None) -> None:
    """Create a container equal to CONTAINER as it is now, and print its ID.

    --json: {id, name}.
    """
    made = session.shed.container(container).fork(name)
    if session.json:
        print_json({"id": made.id, "name": made.name})
    else:
        line(made.id)


@click.command("rename")
@click.argument("container", shell_complete=complete_containers)
@click.argument("name")
@pass_session
def rename_command(session: Session, container: str, name: str) -> None:
    """Give CONTAINER the name NAME."""
    session.shed.container(container).rename(name)


@click.command("rm")
@click.argument(
    "containers",
    nargs=-1,
    required=True,
    metavar="CONTAINER...",
    shell_complete=complete_containers,
)
@click.option("-f", "--force", is_flag=True, help="Even if another process is writing in it.")
@pass_session
def rm_command(session: Session, containers: tuple[str, ...], force: bool) -> None:
    """Remove CONTAINERS, each with exactly its read-write layer.

    --json: array of the references that were removed.
    """
    from .several import for_each

    shed = session.shed
    removed: list[str] = []

    def remove(*references: str) -> None:
        removed.extend(shed.remove_containers(references, force=force))

    try:
        remove(*containers)  # one transaction, however many
    except CowshedError:
        if len(containers) == 1:
            raise
        for_each(session, containers, remove)
    if session.json:
        print_json(removed)
    elif removed and not session.quiet:
        line("\n".join(removed))
