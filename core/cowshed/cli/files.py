"""Commands on files in containers: ls, cat, cp, export."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import click

from ..errors import StoreError, UsageError
from .completion import containers as complete_containers
from .output import name_line, print_json, rfc3339, warn
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..entry import Entry
    from ..shed import Shed
    from ..tree import Tree

STANDARD = "-"


def split_place(text: str, path: str | None = None, default: str | None = None) -> tuple[str, str]:
    """Split ``CONTAINER:PATH``, or take the path from the next argument.

    Raises:
        UsageError: no path, or two.
    """
    container, colon, inside = text.partition(":")
    if colon and path is not None:
        raise UsageError(f"{text!r} names a path already; what is {path!r}?")
    found = inside if colon else path
    if not found:
        found = default
    if found is None or not container:
        raise UsageError("say which file: CONTAINER PATH or CONTAINER:PATH")
    return container, found


@click.command("ls")
@click.argument("place", metavar="CONTAINER[:PATH]", shell_complete=complete_containers)
@click.argument("path", required=False)
@click.option("-l", "--long", is_flag=True, help="Show mode, links, owner, size and time too.")
@click.option("-a", "--all", "hidden", is_flag=True, help="Show names that begin with a dot too.")
@pass_session
def ls_command(session: Session, place: str, path: str | None, long: bool, hidden: bool) -> None:
    """List files in CONTAINER: what directory PATH holds, or PATH itself.

    --json: array of {path, kind, mode, uid, gid, size, mtime, target, links}.
    """
    from ..copying import naming

    container, inside = split_place(place, path, "/")
    with session.shed.container(container).tree() as tree:
        with naming(inside):
            at = tree.resolve(inside)
            top = tree.stat(at)
        if top.kind.value == "directory":
            entries = [one for one in tree.scandir(at) if hidden or not one.name.startswith(".")]
        else:
            entries = [top]
    if session.json:
        print_json([_fields(one) for one in entries])
        return
    digits = max((len(str(one.size)) for one in entries), default=0)
    for one in entries:
        _print_entry(one, long, digits, one.name or inside)


def _print_entry(entry: Entry, long: bool, digits: int, name: str) -> None:
    if not long:
        name_line("", name)
        return
    import stat
    import time

    moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.mtime_ns // 1_000_000_000))
    prefix = (
        f"{stat.filemode(entry.st_mode)} {entry.links} {entry.uid} {entry.gid} "
        f"{entry.size:>{digits}} {moment} "
    )
    name_line(prefix, f"{name} -> {entry.target}" if entry.kind.value == "symlink" else name)


def _fields(entry: Entry) -> dict[str, object]:
    return {
        "path": f"/{entry.path}",
        "kind": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": rfc3339(entry.mtime_ns),
        "target": entry.target,
        "links": entry.links,
    }


@click.command("cat")
@click.argument("place", metavar="CONTAINER[:PATH]", shell_complete=complete_containers)
@click.argument("path", required=False)
@pass_session
def cat_command(session: Session, place: str, path: str | None) -> None:
    """Print the file PATH of CONTAINER as it is."""
    from ..copying import naming

    container, inside = split_place(place, path)
    with session.shed.container(container).tree() as tree:
        with naming(inside):
            file = tree.open(tree.resolve(inside))
        with file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)


@click.command("cp")
@click.argument("source")
@click.argument("destination")
@click.option("-a", "--archive", is_flag=True, help="Keep owners, and all mode bits and xattrs.")
@click.option("-L", "--follow-link", is_flag=True, help="If SOURCE is a symbolic link, follow it.")
@pass_session
def cp_command(
    session: Session, source: str, destination: str, archive: bool, follow_link: bool
) -> None:
    """Copy between a container and here; one of SOURCE and DESTINATION is CONTAINER:PATH.

    A directory is copied into an existing directory, or becomes a new one; DIR/. means what it
    holds. '-' as the other side is a tar, on standard input to be unpacked in a directory, or on
    standard output. Without -a what is copied in belongs to 0:0 and what is copied out to you.
    """
    from_container, to_container = _in_container(source), _in_container(destination)
    if from_container is None and to_container is None:
        raise UsageError("one of SOURCE and DESTINATION must be CONTAINER:PATH")
    if from_container and to_container:
        raise UsageError(
            "copying between containers isn't supported; pipe a tar: cp A:P - | cp - B:Q"
        )
    if from_container:
        _copy_out(session.shed, *from_container, destination, archive, follow_link)
    elif to_container:
        _copy_in(session.shed, source, *to_container, archive, follow_link)


def _in_container(text: str) -> tuple[str, str] | None:
    """Split ``CONTAINER:PATH``; a path of the host with a colon is written with a slash first."""
    container, colon, path = text.partition(":")
    if not colon or not container or "/" in container or container.startswith("."):
        return None
    return container, path or "/"


def _copy_out(
    shed: Shed, name: str, path: str, destination: str, archive: bool, follow: bool
) -> None:
    from ..copying import copy_out

    container = shed.container(name)

    def run() -> None:
        with container.tree() as tree:
            if destination == STANDARD:
                _write_tar(tree, path, follow)
            else:
                copy_out(tree, path, destination, archive=archive, follow=follow, warn=warn)

    shed.operate("cp", {"container": container.id, "path": path, "target": destination}, run)


def _write_tar(tree: Tree, path: str, follow: bool) -> None:
    from ..archive import write_tree
    from ..copying import naming

    with naming(path):
        at = tree.resolve(path, follow=follow)
        tree.stat(at)
    write_tree(tree, _tar_output(), at)


def _copy_in(shed: Shed, source: str, name: str, path: str, archive: bool, follow: bool) -> None:
    from ..copying import copy_in, unpack_tar

    container = shed.container(name)

    def run() -> None:
        with container.tree(writable=True) as tree:
            if source == STANDARD:
                unpack_tar(
                    sys.stdin.buffer,
                    tree,
                    path,
                    limits=shed.limits,
                    archive=archive,
                    scratch=str(shed.home.temporary),
                )
            else:
                copy_in(tree, source, path, archive=archive, follow=follow, warn=warn)

    shed.operate("cp", {"container": container.id, "path": path, "source": source}, run)


def _tar_output() -> BinaryIO:
    if sys.stdout.isatty():
        raise UsageError("a tar doesn't belong on a terminal; redirect the output or name a file")
    return sys.stdout.buffer


@click.command("export")
@click.argument("container", shell_complete=complete_containers)
@click.argument("file", required=False)
@click.option("-o", "--output", metavar="FILE", help="The same as the argument FILE.")
@pass_session
def export_command(session: Session, container: str, file: str | None, output: str | None) -> None:
    """Write CONTAINER's file system as a tar to FILE, or to standard output ('-' or no FILE)."""
    if file is not None and output is not None:
        raise UsageError("name the file once: as argument or with --output")
    found = session.shed.container(container)
    target = file or output or STANDARD
    if target == STANDARD:
        found.export(_tar_output())
        return
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as out:  # a device or fifo: nothing to be put in its place
            found.export(out)
        return
    if not os.path.isdir(parent := os.path.dirname(os.path.abspath(target))):
        raise StoreError(f"directory {parent} doesn't exist; make it first")
    aside = f"{target}.{os.urandom(4).hex()}"
    try:
        with open(aside, "xb") as out:
            found.export(out)
        os.replace(aside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    if session.json:
        print_json({"file": target, "size": os.path.getsize(target)})
