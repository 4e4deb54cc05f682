"""Commands on mounts: mount, umount."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import containers as complete_containers
from .output import json_or_table, line, one_line, print_json
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..mounting import Mounted


@click.command("mount")
@click.argument("container", required=False, shell_complete=complete_containers)
@click.argument("directory", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--read-only", is_flag=True, help="Let nobody write there.")
@pass_session
def mount_command(
    session: Session, container: str | None, directory: Path | None, read_only: bool
) -> None:
    """Mount CONTAINER at DIR, or in the shed, and print where; without CONTAINER list all mounts.

    The mount stays until 'cowshed umount', whatever ends before. DIR is an empty directory.

    --json: {id, path}; of the list array of {id, name, path, how, read_only, lasting, users,
    state}.
    """
    shed = session.shed
    if container is None:
        names = {one.id: one.name for one in shed.containers()}
        json_or_table(
            session.json,
            shed.mounts(),
            lambda mount: {
                "id": mount.container,
                "name": names.get(mount.container, ""),
                "path": os.fspath(mount.path),
                "how": mount.how,
                "read_only": mount.read_only,
                "lasting": mount.lasting,
                "users": list(mount.users),
                "state": mount.state,
            },
            ("CONTAINER", "PATH", "HOW", "MODE", "USERS", "STATE"),
            lambda mount: _cells(mount, names),
        )
        return
    found = shed.container(container)
    path = found.mount(directory, read_only=read_only)
    if session.json:
        print_json({"id": found.id, "path": os.fspath(path)})
    elif not session.quiet:
        line(one_line(os.fspath(path)))


def _cells(mount: Mounted, names: Mapping[str, str]) -> tuple[str, ...]:
    return (
        names.get(mount.container, mount.container[:12]),
        one_line(os.fspath(mount.path)),
        mount.how,
        "ro" if mount.read_only else "rw",
        ",".join(map(str, mount.users)) or "-",
        mount.state,
    )


@click.command("umount")
@click.argument(
    "containers",
    nargs=-1,
    required=True,
    metavar="CONTAINER...",
    shell_complete=complete_containers,
)
@click.option("-f", "--force", is_flag=True, help="Even if processes use it.")
@pass_session
def umount_command(session: Session, containers: tuple[str, ...], force: bool) -> None:
    """Take the mounts of CONTAINERS away. What was written there is in the containers.

    --json: array of the references that were unmounted.
    """
    from .several import for_each

    done: list[str] = []

    def unmount(reference: str) -> None:
        session.shed.container(reference).unmount(force=force)
        done.append(reference)

    for_each(session, containers, unmount)
    if session.json:
        print_json(done)
    elif done and not session.quiet:
        line("\n".join(done))
