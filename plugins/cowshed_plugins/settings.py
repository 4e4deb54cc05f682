"""Settings of our plugins: a table ``[plugin.NAME]`` read with the checks that drivers' have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cowshed.errors import ConfigError, nearest
from cowshed.shed import Shed

Value = TypeVar("Value")

_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def settings_of(shed: Shed, plugin: str) -> Mapping[str, Any] | None:
    """Return what is configured for ``plugin``; None: nothing, so it stays out of the way."""
    tables: Mapping[str, Mapping[str, Any]] = shed.config["plugin"]
    return tables.get(plugin)


def read_settings(
    plugin: str, values: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Value]]
) -> dict[str, Value]:
    """Read every setting by its reader.

    Raises:
        ConfigError: a setting the plugin doesn't have, or a value its reader refuses.
    """
    where = f"[plugin.{plugin}]"
    read: dict[str, Value] = {}
    for name, value in values.items():
        if name not in readers:
            raise ConfigError(f"unknown setting {name!r}{nearest(name, readers)}", where)
        try:
            read[name] = readers[name](value)
        except ValueError as error:
            raise ConfigError(f"{name} {error}, not {value!r}", where) from None
    return read


def boolean(value: object) -> bool:
    """Read ``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def text(value: object) -> str:
    """Read a string that isn't empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


def number(value: object) -> int:
    """Read a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("must be a whole number from 0")
    return value


def byte_count(value: object) -> int:
    """Read bytes: a number, or one with a unit such as ``"20 GB"`` or ``"512 MiB"``."""
    if isinstance(value, str):
        digits = value.strip().rstrip("BKMGTibkmgt ")
        unit = value.strip()[len(digits) :].strip().upper()
        try:
            return number(int(float(digits.replace("_", "")) * _UNITS[unit]))
        except (KeyError, ValueError, OverflowError):
            raise ValueError('must be bytes, as in "20 GB"') from None
    return number(value)
