"""The ``cowshed`` command: finds the command's module when it is called, and turns every error
into one line and an exit status.

``--help`` needs no module of any command: names and one-line helps stand in the table below.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from .session import Session, add_global_options

#: Section → command → (module in this package, one line of help). The function is named after
#: the command, with an underscore where Python needs one.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Images": {
        "import": ("images", "Import images from an OCI layout, an archive or a directory"),
        "save": ("images", "Write images to an OCI layout or an archive"),
        "pull": ("transfers", "Fetch an image from a registry, as far as it isn't here"),
        "push": ("transfers", "Send an image to a registry, as far as it isn't there"),
        "copy": ("transfers", "Copy images between registries, layouts and archives"),
        "images": ("images", "List images"),
        "inspect": ("inspecting", "Show all about images and containers, as JSON"),
        "history": ("inspecting", "Show how an image was made"),
        "tag": ("images", "Give an image another name"),
        "rmi": ("images", "Remove images"),
    },
    "Containers": {
        "run": ("running", "Run a process in a new container"),
        "exec": ("running", "Run a process in a container"),
        "create": ("containers", "Create containers on an image"),
        "ps": ("containers", "List containers"),
        "ls": ("files", "List files in a container"),
        "cat": ("files", "Print a container's file"),
        "cp": ("files", "Copy files between a container and here"),
        "diff": ("containers", "Show what changed in a container"),
        "commit": ("containers", "Make an image of a container"),
        "export": ("files", "Write a container's file system as a tar"),
        "fork": ("containers", "Create a container equal to another as it is now"),
        "mount": ("mounts", "Make a container a directory that processes can use, or list those"),
        "umount": ("mounts", "Take containers' mounts away"),
        "bundle": ("running", "Make a container an OCI runtime bundle for others to run"),
        "rename": ("containers", "Give a container another name"),
        "rm": ("containers", "Remove containers"),
    },
    "The shed": {
        "df": ("usage", "Show where the bytes on disk are"),
        "gc": ("store", "Remove what nothing refers to and give the space back"),
        "check": ("store", "Look for damage"),
        "migrate": ("store", "Move images and containers to another driver"),
        "drivers": ("store", "List drivers and what they can do here"),
        "runtimes": ("running", "List what can run processes here"),
        "plugins": ("store", "List plugins"),
        "config": ("store", "Show the effective settings and where each comes from"),
        "completion": ("completion", "Print the completion script for a shell"),
    },
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = [name for commands in COMMANDS.values() for name in commands]
        return own + [name for name in sorted(_plugin_commands(ctx)) if name not in own]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in COMMANDS.values():
            if cmd_name in commands:
                from importlib import import_module

                module, short_help = commands[cmd_name]
                found = getattr(import_module(f".{module}", __package__), _function(cmd_name))
                assert isinstance(found, click.Command)
                found.short_help = short_help
                return add_global_options(found)
        value = _plugin_command(ctx, cmd_name)
        if value is None:
            return None
        from ..plugin_loader import load_object

        try:
            command: object = load_object(value)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            raise click.ClickException(
                f"the plugin's command {cmd_name!r} failed to import ({value}): {error}"
            ) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"the plugin's command {cmd_name!r} is no click command")
        return add_global_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            from ..errors import nearest

            raise click.UsageError(
                f"no such command: {name}{nearest(name, self.list_commands(ctx))}", ctx
            )
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, help) for name, (_, help) in commands.items()])
        others = sorted(set(_plugin_commands(ctx)) - set(self.list_commands_of_core()))
        if others:
            with formatter.section("Plugins"):
                formatter.write_dl([(name, f"see 'cowshed {name} --help'") for name in others])

    @staticmethod
    def list_commands_of_core() -> list[str]:
        """Return the commands that no plugin can replace."""
        return [name for commands in COMMANDS.values() for name in commands]


def _function(command: str) -> str:
    """Return the name of the object that a command's module gives it."""
    return f"{command}_command"


def _plugin_commands(context: click.Context) -> dict[str, str]:
    from ..errors import CowshedError

    try:
        return context.ensure_object(Session).plugins().commands()
    except CowshedError:
        return {}  # a wrong configuration: the command that needs it says so


def _plugin_command(context: click.Context, name: str) -> str | None:
    """Return a plugin's command; PluginError where two claim the name."""
    from ..errors import ConfigError, NotFoundError

    try:
        return context.ensure_object(Session).plugins().command_register.find(name).value
    except (NotFoundError, ConfigError):
        return None  # a wrong configuration: the command that needs it says so


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"cowshed {version('cowshed')}")
        except PackageNotFoundError:
            click.echo("cowshed (not installed)")
        context.exit()


cli = add_global_options(
    LazyGroup(
        "cowshed",
        help="Copy-on-write storage for container images behind interchangeable drivers.",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_version,
                help="Show the version.",
            )
        ],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
        subcommand_metavar="COMMAND [ARGUMENT]…",
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    from .failures import report
    from .output import prepare_streams

    prepare_streams()
    session = Session()
    try:
        try:
            result: Any = cli.main(
                args=list(sys.argv[1:] if arguments is None else arguments),
                prog_name="cowshed",
                standalone_mode=False,
                obj=session,
            )
        finally:
            session.close()
        sys.stdout.flush()
    except BaseException as error:
        if os.environ.get("COWSHED_DEBUG", "") not in ("", "0"):
            import traceback

            traceback.print_exc()
        return report(error)
    return result if isinstance(result, int) and result else session.exit_status
