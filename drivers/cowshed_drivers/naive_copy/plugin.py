"""Registration of naive-copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl


def _load() -> Callable[[Path, Any], Driver]:
    from .driver import NaiveCopy

    return NaiveCopy


SPEC = DriverSpec(
    name="naive-copy",
    summary="every layer and container a full copy: the baseline, needs nothing",
    load=_load,
    capabilities=frozenset({Capability.NATIVE_PATH, Capability.UNPRIVILEGED}),
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register naive-copy."""
    return [SPEC]
