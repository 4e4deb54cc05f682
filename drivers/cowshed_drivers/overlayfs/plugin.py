"""Registration of overlayfs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl


def _load() -> Callable[[Path, Any], Driver]:
    from .driver import Overlayfs

    return Overlayfs


def _probe(root: Path) -> str | None:
    from .probing import probe

    return probe(root)


SPEC = DriverSpec(
    name="overlayfs",
    summary="the kernel merges layers; containers cost what is written in them, at native speed",
    load=_load,
    capabilities=frozenset(
        {
            Capability.NATIVE_PATH,
            Capability.INSTANT_PREPARE,
            Capability.INSTANT_FORK,
            Capability.NATIVE_CHANGES,
        }
    ),
    probe=_probe,
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register overlayfs."""
    return [SPEC]
