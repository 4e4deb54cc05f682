"""Registers ``docker:``; nothing else of this package is imported before it is used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cowshed.hookspecs import hookimpl
from cowshed.transport import Transport, TransportSpec


def _docker() -> type[Transport]:
    import importlib
    import threading

    # CPython 3.11 keeps frames in pieces of 16 KiB, and calls across the end of one map and unmap
    # the next each time. urllib3's patterns, compiled as deep as a command is by now, take 3,000
    # such calls and 60 ms; a thread begins a piece of its own. Failures are the import's below.
    thread = threading.Thread(target=_quietly, args=(importlib.import_module, "urllib3"))
    thread.start()
    thread.join()
    from .transport import RegistryTransport

    return RegistryTransport


def _quietly(function: Callable[[str], object], name: str) -> None:
    with suppress(Exception):
        function(name)


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
