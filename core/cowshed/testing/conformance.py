"""DriverConformance: all parts of the kit in one class."""

from __future__ import annotations

from .changes import ChangeConformance
from .containers import ContainerConformance
from .isolation import IsolationConformance
from .layers import LayerConformance


class DriverConformance(
    LayerConformance, ContainerConformance, IsolationConformance, ChangeConformance
):
    """Inherit, implement ``open_driver``, set ``spec``; every test names the promise it checks."""
