"""Registers what this distribution brings; light, so that listing it imports nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl


@attrs.frozen(kw_only=True)
class Options:
    """What ``[drivers.pigeonhole]`` in cowshed.toml may say."""

    #: A fork's holes are links to its origin's, not copies.
    link_forks: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


def load() -> Callable[[Path, Any], Driver]:
    from .driver import Pigeonhole

    return Pigeonhole


def probe(root: Path) -> str | None:
    """Say in one sentence why the driver can't keep its data at ``root``; None if it can."""
    longest = os.pathconf(root, "PC_NAME_MAX")
    if longest < 64:  # a digest in hex
        return f"names on the file system of {root} are {longest} bytes at most"
    return None


SPEC = DriverSpec(
    name="pigeonhole",
    summary="an index for each tree, and holes that never change",
    load=load,
    capabilities=frozenset({Capability.UNPRIVILEGED, Capability.INSTANT_PREPARE}),
    probe=probe,
    options=Options,
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register pigeonhole."""
    return [SPEC]
