"""What else a distribution may bring: a transport and a command."""

from __future__ import annotations

from cowshed.hookspecs import hookimpl
from cowshed.transport import Transport, TransportSpec


def load() -> type[Transport]:
    from .transport import PigeonTransport

    return PigeonTransport


@hookimpl
def cowshed_register_transports() -> list[TransportSpec]:
    """Register ``pigeon:``."""
    return [TransportSpec(name="pigeon", summary="a message as an image: pigeon:TEXT", load=load)]


@hookimpl
def cowshed_register_commands() -> dict[str, str]:
    """Register ``cowshed holes``."""
    return {"holes": "cowshed_pigeonhole.command:holes"}
