"""Configuration: built-in default → ``cowshed.toml`` → environment → arguments.

The file is ``--config FILE`` or ``COWSHED_CONFIG``, otherwise ``./cowshed.toml``, otherwise
``cowshed/cowshed.toml`` in the user's configuration directory; the first that exists is the one.

.. code-block:: toml

    driver = "chunk-dedup"
    durability = "full"
    plugins = ["my_package.my_plugin"]

    [run]
    runtime = "runc"

    [drivers.chunk-dedup]
    compression_level = 9

    [mount]
    way = "cache"
    cache_size = 20_000_000_000

    [limits]
    entries = 2_000_000

    [plugin.quota]
    max_bytes = "20 GB"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .errors import ConfigError, nearest

if TYPE_CHECKING:
    from .archive import Limits

DEFAULT_DRIVER = "chunk-dedup"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("1", "true", "yes", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of strings")
    return tuple(_text(part) for part in cast("list[object]", value))


def _count(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("must be a whole number from 0")
    return value


def _durability(value: object) -> str:
    if value not in ("full", "none"):
        raise ValueError('must be "full" or "none"')
    return str(value)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    return cast("dict[str, Any]", value)


def _tables(value: object) -> dict[str, dict[str, Any]]:
    return {name: _table(content) for name, content in _table(value).items()}


def _run(value: object) -> dict[str, Any]:
    """Read ``[run]``; the environment variable is its ``runtime`` alone."""
    table = {"runtime": value} if isinstance(value, str) else _table(value)
    for name, content in table.items():
        if name != "runtime":
            raise ValueError(f"has no setting {name!r}; there is 'runtime'")
        if not isinstance(content, str) or not content:
            raise ValueError("must have a runtime's name as 'runtime'")
    return table


def _mount(value: object) -> dict[str, Any]:
    given = _table(value)
    for name in given:
        if name not in MOUNT:
            raise ValueError(f"has no {name!r}{nearest(name, MOUNT)}")
    found = {**MOUNT, **given}
    if found["way"] not in MOUNT_WAYS:
        raise ValueError(f"way must be one of {', '.join(MOUNT_WAYS)}")
    if not isinstance(found["cache_size"], int) or isinstance(found["cache_size"], bool):
        raise ValueError("cache_size must be a whole number of bytes")
    return found


#: How a container is shown to processes if its driver has no directory for them: by the FUSE
#: server, or from a cache of whole files.
MOUNT_WAYS = ("auto", "fuse", "cache")
MOUNT: Mapping[str, Any] = {"way": "auto", "cache_size": 10_000_000_000}


class Setting(NamedTuple):
    """One setting: how it is read, and what it is when nobody says anything."""

    read: Callable[[object], Any]
    default: Any
    #: Environment variable, or "" for settings that only a file or argument can give.
    variable: str = ""
    help: str = ""


SETTINGS: Mapping[str, Setting] = {
    "root": Setting(_text, None, "COWSHED_ROOT", "directory of the shed"),
    "driver": Setting(_text, DEFAULT_DRIVER, "COWSHED_DRIVER", "driver for new layers"),
    "durability": Setting(
        _durability, "full", "COWSHED_DURABILITY", '"none" never waits for the disk'
    ),
    "keep_blobs": Setting(
        _boolean, False, "COWSHED_KEEP_BLOBS", "keep compressed layers as they came"
    ),
    "partial_days": Setting(
        _count, 7, "COWSHED_PARTIAL_DAYS", "days that a broken download is kept to be resumed"
    ),
    "partial_bytes": Setting(
        _count, 10_000_000_000, "COWSHED_PARTIAL_BYTES", "bytes that broken downloads may take"
    ),
    "platform": Setting(_text, None, "COWSHED_PLATFORM", "os/architecture[/variant] to import"),
    "plugins": Setting(_names, (), "COWSHED_PLUGINS", "modules to load as plugins"),
    "disabled_plugins": Setting(
        _names, (), "COWSHED_DISABLED_PLUGINS", "plugins not to load, by name"
    ),
    "run": Setting(_run, {}, "COWSHED_RUNTIME", "how processes run: runtime"),
    "drivers": Setting(_tables, {}, "", "options of drivers, a table each"),
    "mount": Setting(_mount, dict(MOUNT), "", "way and cache_size of mounts"),
    "limits": Setting(_table, {}, "", "bounds for untrusted layers"),
    "plugin": Setting(_tables, {}, "", "options of plugins, a table each"),
}


class Config:
    """Effective settings and where each comes from. Read one as an item: ``config["driver"]``."""

    def __init__(self, values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        self.values = values
        #: Setting → ``default``, the file's path, the variable's name or ``argument``.
        self.sources = sources

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def root(self) -> Path:
        """The shed's directory."""
        return Path(self.values["root"])

    @property
    def durable(self) -> bool:
        """Whether what is acknowledged must survive a power cut."""
        return bool(self.values["durability"] == "full")

    def driver_options(self, driver: str) -> Mapping[str, Any]:
        """Return the configured options of one driver, unvalidated."""
        options: Mapping[str, Any] = self.values["drivers"].get(driver, {})
        return options

    def plugin_options(self, plugin: str) -> Mapping[str, Any]:
        """Return the configured options of one plugin."""
        options: Mapping[str, Any] = self.values["plugin"].get(plugin, {})
        return options


def load_config(
    arguments: Mapping[str, Any] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read and validate the configuration.

    ``arguments`` whose value is None count as not given. ``overrides`` holds dotted names
    (``"drivers.chunk-dedup.compression_level"``) and goes over everything.

    Raises:
        ConfigError: the file is missing or isn't TOML, a name is unknown, or a value is unusable.
    """
    environment = os.environ if environment is None else environment
    path = _file_path(file, environment)
    in_file = {} if path is None else _read_file(path)
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    _refuse_unknown(in_file, str(path))
    _refuse_unknown(given, "arguments")

    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        value, source = (
            (given[name], "argument") if name in given else
            (environment[setting.variable], setting.variable)
                if setting.variable and environment.get(setting.variable) else
            (in_file[name], str(path)) if name in in_file else
            (setting.default, "default")
        )  # fmt: skip
        if source != "default":
            try:
                value = setting.read(value)
            except ValueError as error:
                raise ConfigError(f"{name} {error}, not {value!r}", source) from None
        values[name], sources[name] = value, source
    for dotted, value in (overrides or {}).items():
        _override(values, sources, dotted, value)
    if values["root"] is None:
        values["root"] = default_root(environment)
    values["root"] = str(_expanded(values["root"]).absolute())
    return Config(values, sources)


def limits_from(config: Config) -> Limits:
    """Return the bounds for untrusted layers with the configured ones in place.

    Raises:
        ConfigError: a limit that doesn't exist or isn't a positive whole number.
    """
    import attrs

    from .archive import Limits

    values: dict[str, Any] = config["limits"]
    known = {field.name for field in attrs.fields(Limits)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown limit {name!r}{nearest(name, known)}", "limits")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} must be a positive whole number, not {value!r}", "limits")
    return Limits(**values)


def default_root(environment: Mapping[str, str]) -> str:
    """Return the shed's place in the user data directory (XDG Base Directory Specification)."""
    home = environment.get("XDG_DATA_HOME")
    return str((Path(home) if home else _expanded("~/.local/share")) / "cowshed")


def _file_path(file: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Path | None:
    named = file or environment.get("COWSHED_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError("no such configuration file", str(path))
        return path
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for path in (Path("cowshed.toml"), Path(home) / "cowshed" / "cowshed.toml"):
        if path.is_file():
            return path
    return None


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no HOME, and nobody in the user database
        raise ConfigError(f"can't tell where {text} is; say where with COWSHED_ROOT") from None


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib  # 6 ms, and most calls have no file

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", str(path)) from None
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", str(path)) from None


def _refuse_unknown(values: Mapping[str, Any], where: str) -> None:
    for name in values:
        if name not in SETTINGS:
            raise ConfigError(f"unknown setting {name!r}{nearest(name, SETTINGS)}", where)


def _override(values: dict[str, Any], sources: dict[str, str], dotted: str, value: Any) -> None:
    name, *rest = dotted.split(".")
    _refuse_unknown({name: value}, "--set")
    for part in reversed(rest):
        value = {part: value}
    if rest:
        value = _merged(values[name] if isinstance(values[name], dict) else {}, value)
    try:
        values[name] = SETTINGS[name].read(value)
    except ValueError as error:
        raise ConfigError(f"{dotted} {error}, not {value!r}", "--set") from None
    sources[name] = "--set"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            value = _merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value))
        merged[name] = value
    return merged
