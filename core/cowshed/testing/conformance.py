"""DriverConformance: all parts of the kit in one class."""

from __future__ import annotations

from .containers import ContainerConformance
from .layers import LayerConformance


class DriverConformance(LayerConformance, ContainerConformance):
    """Inherit, implement ``open_driver``, set ``spec``; every test names the promise it checks."""
