"""Settings of registries.

.. code-block:: toml

    [plugin.registry]
    plain_http = ["registry.lan:5000"]    # loopback needs no leave
    certs = "/srv/certs.d"                # besides the usual directories; see ``tls``
    auth_file = "/srv/auth.json"          # instead of the usual files; see ``credentials``
    timeout = 60                          # seconds without a byte
    retries = 4
    max_wait = 60                         # seconds that a registry may ask to wait for

    [plugin.registry.mirrors]             # asked before the registry itself, for pulls
    "docker.io" = ["mirror.lan:5000", "cache.lan/docker-hub"]

    [plugin.registry.realms]              # hosts that may see a registry's credentials besides it
    "registry.gitlab.com" = ["gitlab.com"]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from ..settings import number, read_settings, text

NAME = "registry"
_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of strings")
    return tuple(text(one) for one in cast("list[object]", value))


def _names_by_host(value: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    return {host: _names(names) for host, names in cast("dict[str, object]", value).items()}


def _seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
        raise ValueError("must be a number of seconds above 0")
    return float(value)


def _path(value: object) -> str:
    return os.path.expanduser(text(value))


class Settings(NamedTuple):
    """What ``[plugin.registry]`` says."""

    #: Registries spoken to without TLS.
    plain_http: tuple[str, ...] = ()
    certs: str = ""
    auth_file: str = ""
    #: Seconds without a byte after which a transfer counts as broken.
    timeout: float = 60.0
    #: Attempts after the first, each twice as long after the one before; a second comes first.
    retries: int = 4
    #: Seconds before the first repetition.
    pause: float = 1.0
    #: Longest time in seconds that a registry's Retry-After is obeyed for.
    max_wait: float = 60.0
    mirrors: Mapping[str, tuple[str, ...]] = _NOTHING
    realms: Mapping[str, tuple[str, ...]] = _NOTHING


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "plain_http": _names,
    "certs": _path,
    "auth_file": _path,
    "timeout": _seconds,
    "retries": number,
    "pause": _seconds,
    "max_wait": _seconds,
    "mirrors": _names_by_host,
    "realms": _names_by_host,
}


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Read the table.

    Raises:
        ConfigError: a setting there isn't, or a value that can't be one.
    """
    read: dict[str, Any] = read_settings(NAME, values, _READERS)
    return Settings(**read)
