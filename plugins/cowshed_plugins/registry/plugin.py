"""Registers ``docker:``; nothing else of this package is imported before it is used."""

from __future__ import annotations

from cowshed.hookspecs import hookimpl
from cowshed.transport import Transport, TransportSpec


def _docker() -> type[Transport]:
    from .transport import RegistryTransport

    return RegistryTransport


@hookimpl
def cowshed_register_transports() -> list[TransportSpec]:
    """Return the transport of this package."""
    return [
        TransportSpec(
            name="docker",
            summary="a registry: docker://[HOST/]NAME[:TAG][@DIGEST]",
            load=_docker,
        )
    ]
