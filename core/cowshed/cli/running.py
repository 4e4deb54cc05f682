"""Commands on processes: run, exec, bundle, runtimes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import CowshedError
from .completion import containers as complete_containers
from .completion import images as complete_images
from .output import json_or_table, line, one_line, print_json
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..container import Container
    from ..running.options import Options
    from ..running.supervising import Ended, Signals, Streams

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: As Docker: the process never ran, for a reason of ours.
FAILED = 125


class _Usage(click.UsageError):
    """A wrong call of what may end with any status."""

    exit_code = FAILED

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(error.format_message(), error.ctx)


class _Command(click.Command):
    """Everything after the first argument is the process's, and a wrong call is 125: 2 may be the
    process's own."""

    def __init__(self, *arguments: Any, **details: Any) -> None:
        details["context_settings"] = {"allow_interspersed_args": False}
        super().__init__(*arguments, **details)

    def make_context(self, *arguments: Any, **details: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **details)
        except click.UsageError as error:
            raise _Usage(error) from error


def _options(*groups: list[Callable[[Decorated], Decorated]]) -> Callable[[Decorated], Decorated]:
    def decorate(function: Decorated) -> Decorated:
        for option in [option for group in groups for option in group][::-1]:
            function = option(function)
        return function

    return decorate


_STREAMS: list[Callable[[Any], Any]] = [
    click.option("-i", "--interactive", is_flag=True, help="Give it our standard input."),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
]
_PROCESS: list[Callable[[Any], Any]] = [
    click.option(
        "-e",
        "--env",
        "environment",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable; without a value it is ours.",
    ),
    click.option(
        "--env-file",
        "environment_files",
        multiple=True,
        metavar="FILE",
        help="Set variables from a file, one to a line.",
    ),
    click.option("-w", "--workdir", "directory", metavar="DIR", help="Working directory."),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers."),
]
_CONTAINER: list[Callable[[Any], Any]] = [
    click.option("--entrypoint", metavar="COMMAND", help="Instead of the image's; '' for none."),
    click.option(
        "-v",
        "--volume",
        "volumes",
        multiple=True,
        metavar="HOST:CONTAINER[:ro]",
        help="Show it a file or directory of this machine.",
    ),
    click.option("--read-only", is_flag=True, help="Let it write in volumes only."),
    click.option(
        "--network",
        type=click.Choice(["host", "none"]),
        default="host",
        help="This machine's network (the default), or none.",
    ),
    click.option("--hostname", metavar="NAME", help="By default the container's short ID."),
]
_RUNTIME: list[Callable[[Any], Any]] = [
    click.option(
        "--runtime",
        metavar="NAME",
        help="crun, runc, youki, bubblewrap or plain (COWSHED_RUNTIME); by default the first that "
        "works here.",
    ),
]


def _read(command: tuple[str, ...], tty: bool = False, **given: Any) -> Options:
    from ..running.options import Options, parse_environment, parse_volume

    entrypoint = given.get("entrypoint")
    return Options(
        command=command,
        entrypoint=None if entrypoint is None else (entrypoint,),
        environment=parse_environment(given["environment"], given["environment_files"]),
        directory=given["directory"],
        user=given["user"],
        volumes=tuple(parse_volume(text) for text in given.get("volumes", ())),
        read_only=given.get("read_only", False),
        network=given.get("network", "host"),
        hostname=given.get("hostname"),
        terminal=tty,
        runtime=given.get("runtime"),
    )


def _streams(interactive: bool) -> Streams:
    import subprocess

    from ..running.supervising import Streams

    return Streams(stdin=None if interactive else subprocess.DEVNULL, foreground=True)


def _as_docker(run: Callable[[Signals], Ended]) -> int:
    """Return the status that Docker would; every failure of ours is 125."""
    from ..running.process import CommandError
    from ..running.supervising import Interrupted, Signals
    from .failures import report

    with Signals() as signals:
        try:
            return run(signals).status
        except Interrupted as interrupted:
            return 128 + interrupted.number
        except CommandError:
            raise
        except CowshedError as error:
            error.exit_status = FAILED
            raise
        except Exception as error:
            report(error)
            return FAILED


@click.command("run", cls=_Command)
@click.argument("image", shell_complete=complete_images)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="The container's; one such as calm_hopper is made up without.")
@click.option("--rm", is_flag=True, help="Remove the container in the end.")
@_options(_STREAMS, _PROCESS, _CONTAINER, _RUNTIME)
@pass_session
def run_command(
    session: Session,
    /,
    image: str,
    command: tuple[str, ...],
    name: str | None,
    rm: bool,
    interactive: bool,
    tty: bool,
    **given: Any,
) -> int:
    """Run COMMAND, or what the image says, in a new container on IMAGE, and wait for its end.

    Entry point, command, environment, directory and user are the image's where nothing else is
    said, and the status is the process's: 128+n after signal n, 127 if there is no such command,
    126 if it can't be executed, 125 if we couldn't run it. Signals go to the process; the third
    Ctrl-C kills it. It uses this machine's network, or none.
    """

    def run(signals: Signals) -> Ended:
        options = _read(command, tty, **given)
        session.runs = True
        shed = session.shed
        with ExitStack() as stack:
            stack.callback(signals.over)
            with signals.held():
                if rm:
                    container = stack.enter_context(shed.temporary(image, name))
                else:
                    container = shed.create(image, name)
            stack.callback(signals.over)
            signals.deliver()
            streams = _streams(interactive)
            return _operate(session, "run", container, options, streams, signals, discard=rm)

    return _as_docker(run)


@click.command("exec", cls=_Command)
@click.argument("container", shell_complete=complete_containers)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_options(_STREAMS, _PROCESS, _RUNTIME)
@pass_session
def exec_command(
    session: Session,
    /,
    container: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    **given: Any,
) -> int:
    """Run COMMAND in CONTAINER and wait for its end.

    Beside the container's process if that runs, else as its process: there is no daemon that would
    keep one running for it. The image's entry point isn't used. Statuses are those of 'run'.
    """

    def run(signals: Signals) -> Ended:
        options = _read(command, tty, entrypoint="", **given)
        session.runs = True
        found = session.shed.container(container)
        return _operate(session, "exec", found, options, _streams(interactive), signals)

    return _as_docker(run)


def _operate(
    session: Session,
    verb: str,
    container: Container,
    options: Options,
    streams: Streams,
    signals: Signals,
    *,
    discard: bool = False,
) -> Ended:
    starter = session.shed.running.starter
    act = partial(starter.run, discard=discard) if verb == "run" else starter.exec
    return session.shed.operate(
        verb,
        {"container": container.id, "command": options.command},
        lambda: act(container, options, streams, signals),
    )


@click.command("bundle", cls=_Command)
@click.argument("container", shell_complete=complete_containers)
@click.argument("target", metavar="DIRECTORY", type=click.Path(path_type=Path))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@_options(_PROCESS, _CONTAINER)
@pass_session
def bundle_command(
    session: Session,
    /,
    container: str,
    target: Path,
    command: tuple[str, ...],
    tty: bool,
    **given: Any,
) -> None:
    """Make DIRECTORY, new or empty, an OCI runtime bundle of CONTAINER, for others to run.

    Its file system is mounted there until 'cowshed umount'; what a process writes in it is the
    container's. Mount points that the image lacks are made, and go when it is unmounted.

    --json: {id, path}.
    """
    options = _read(command, tty, **given)
    found = session.shed.container(container)
    path = session.shed.running.starter.bundle(found, target, options)
    if session.json:
        print_json({"id": found.id, "path": str(path)})
    elif not session.quiet:
        line(one_line(str(path)))


@click.command("runtimes")
@pass_session
def runtimes_command(session: Session) -> None:
    """List what can run processes here, in the order in which they are preferred.

    --json: array of {name, path, problem}.
    """
    from ..running.choosing import describe

    json_or_table(
        session.json,
        list(describe()),
        lambda one: {"name": one[0], "path": one[1], "problem": one[2]},
        ("RUNTIME", "PROGRAM", "HERE"),
        lambda one: (one[0], one[1] or "-", one[2] or "works"),
    )
