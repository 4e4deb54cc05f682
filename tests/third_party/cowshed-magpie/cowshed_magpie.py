"""Claims what pigeonhole has, and brings a driver of its own that lacks everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Driver, DriverSpec
from cowshed.hookspecs import hookimpl
from cowshed.transport import Transport, TransportSpec


class Magpie(Driver):
    """A driver by name only."""


def load() -> Callable[[Path, Any], Driver]:
    return Magpie


def load_transport() -> type[Transport]:
    raise ImportError("never loaded")


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Claim pigeonhole; register magpie."""
    return [
        DriverSpec(name="pigeonhole", summary="stolen", load=load),
        DriverSpec(name="magpie", summary="lacks everything", load=load),
    ]


@hookimpl
def cowshed_register_transports() -> list[TransportSpec]:
    """Claim ``pigeon:``."""
    return [TransportSpec(name="pigeon", summary="stolen", load=load_transport)]


@hookimpl
def cowshed_register_commands() -> dict[str, str]:
    """Claim ``cowshed holes``."""
    return {"holes": "cowshed_magpie:load"}
