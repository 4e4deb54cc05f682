"""Cowshed: copy-on-write storage for container images behind interchangeable drivers.

``Shed`` is the front door. Importing this package loads no driver and no heavy library: names are
looked up on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .container import Container
    from .driver import Capability, Driver, DriverSpec, Stage, Usage
    from .entry import Change, ChangeKind, Entry, Kind
    from .errors import CowshedError
    from .hookspecs import hookimpl
    from .image import Image
    from .layer import HistoryEntry, Layer
    from .shed import Shed
    from .tree import Tree

_HOMES = {
    "Shed": "shed", "Image": "image", "Container": "container", "Layer": "layer",
    "HistoryEntry": "layer", "Tree": "tree", "Entry": "entry", "Kind": "entry",
    "Change": "entry", "ChangeKind": "entry", "CowshedError": "errors", "Driver": "driver",
    "DriverSpec": "driver", "Stage": "driver", "Usage": "driver", "Capability": "driver",
    "hookimpl": "hookspecs",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'cowshed' has no attribute {name!r}") from None
    from importlib import import_module

    return getattr(import_module(f".{home}", __name__), name)


__all__ = [
    "Capability",
    "Change",
    "ChangeKind",
    "Container",
    "CowshedError",
    "Driver",
    "DriverSpec",
    "Entry",
    "HistoryEntry",
    "Image",
    "Kind",
    "Layer",
    "Shed",
    "Stage",
    "Tree",
    "Usage",
    "hookimpl",
]
