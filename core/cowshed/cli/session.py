"""Session: the global options of one call, and the shed that its command works on.

Global options may stand before or after the command; after it they win.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .output import print_json

if TYPE_CHECKING:
    from ..config import Config
    from ..plugin_manager import Plugins
    from ..shed import Shed

AnyCommand = TypeVar("AnyCommand", bound=click.Command)


class Session:
    """What the global options said; opens the shed when a command asks for it."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.driver: str | None = None
        self.config_file: str | None = None
        self.quiet = False
        self.json = False
        self.overrides: dict[str, Any] = {}
        #: Becomes 1 where a command went on after an error it has reported.
        self.exit_status = 0
        #: Whether the command starts processes.
        self.runs = False
        self._shed: Shed | None = None

    @property
    def shed(self) -> Shed:
        """The shed, opened on first use."""
        if self._shed is None:
            if os.geteuid():
                self._become_root()
            from ..shed import Shed

            self._shed = Shed(
                self.root, driver=self.driver, config=self.config_file, overrides=self.overrides
            )
        return self._shed

    def _become_root(self) -> None:
        """Let an ordinary user mount what is to be run, or look at what is mounted."""
        config = self.load_config()
        root = config.root
        if self.runs or config["driver"] == "overlayfs" or _is_in_namespace(os.fspath(root)):
            from ..running.namespace import enter

            if enter(root):
                self.root = os.fspath(root)

    def load_config(self) -> Config:
        """Return the configuration without opening a shed."""
        from ..config import load_config

        arguments = {"root": self.root, "driver": self.driver}
        return load_config(arguments, file=self.config_file, overrides=self.overrides)

    def plugins(self) -> Plugins:
        """Return the plugins without opening a shed."""
        if self._shed is not None:
            return self._shed.plugins
        from ..plugin_manager import Plugins

        plugins = Plugins()
        plugins.load(self.load_config())
        return plugins

    def existing_shed(self) -> Shed | None:
        """Return the shed if there is one; completion must not make one."""
        root = self.load_config().root
        return self.shed if os.path.exists(os.path.join(root, "cowshed.json")) else None

    def print(self, value: object) -> None:
        """Print JSON."""
        print_json(value)

    def close(self) -> None:
        """Close the shed, if it was opened."""
        if self._shed is not None:
            self._shed.close()


def _is_in_namespace(root: str) -> bool:
    """Say whether somebody is mounted in a namespace, or was, so that nobody outside could look at
    what processes wrote there, or whether a whole store belongs to one."""
    try:
        mounted = bool(os.listdir(os.path.join(root, "mounts")))
    except OSError:
        mounted = False
    return mounted or os.path.exists(os.path.join(root, "drivers", "overlayfs"))


pass_session = click.make_pass_decorator(Session, ensure=True)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.ensure_object(Session)
    if value is None or value is False or value == ():
        return
    if parameter.name == "overrides":
        session.overrides.update(parse_setting(text) for text in value)
    else:
        assert parameter.name is not None
        setattr(session, parameter.name, value)


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``KEY=VALUE``; the value is TOML, or the text itself where it isn't.

    Raises:
        UsageError: there is no key or no ``=``.
    """
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise click.UsageError(f"--set takes KEY=VALUE, as in durability=none, not {text!r}")
    import tomllib

    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _complete_drivers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    from .completion import drivers

    return drivers(context, parameter, incomplete)


def _global_options() -> list[click.Option]:
    def option(*declarations: str, **details: Any) -> click.Option:
        return click.Option(declarations, expose_value=False, callback=_remember, **details)

    return [
        option("--root", metavar="DIR", help="Directory of the shed (COWSHED_ROOT)."),
        option(
            "--driver",
            metavar="NAME",
            help="Driver for new layers and containers (COWSHED_DRIVER).",
            shell_complete=_complete_drivers,
        ),
        option(
            "--config",
            "config_file",
            metavar="FILE",
            help="Configuration file (COWSHED_CONFIG).",
            type=click.Path(),
        ),
        option(
            "--set",
            "overrides",
            metavar="KEY=VALUE",
            multiple=True,
            help="Override one setting, as in drivers.chunk-dedup.compression_level=9.",
        ),
        option("-q", "--quiet", is_flag=True, help="Print only IDs, or nothing."),
        option("--json", is_flag=True, help="Print JSON: sizes in bytes, IDs in full."),
    ]


def add_global_options(command: AnyCommand) -> AnyCommand:
    """Let ``command`` take every global option whose names it doesn't use itself."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in _global_options():
        if taken.isdisjoint(option.opts):
            command.params.append(option)
    return command
