"""Registration of hardlink-farm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl

from .options import FarmOptions


def _load() -> Callable[[Path, Any], Driver]:
    from .driver import HardlinkFarm

    return HardlinkFarm


SPEC = DriverSpec(
    name="hardlink-farm",
    summary="equal files are stored once; a container gets its tree of links when it is written to",
    load=_load,
    capabilities=frozenset(
        {Capability.UNPRIVILEGED, Capability.INSTANT_PREPARE, Capability.SHARES_INODES}
    ),
    options=FarmOptions,
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register hardlink-farm."""
    return [SPEC]
