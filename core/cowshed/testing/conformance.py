"""DriverConformance: all parts of the kit in one class."""

from __future__ import annotations

from .changes import ChangeConformance
from .containers import ContainerConformance
from .files import FileConformance
from .isolation import IsolationConformance
from .layers import LayerConformance
from .metadata import MetadataConformance


class DriverConformance(
    LayerConformance,
    ContainerConformance,
    IsolationConformance,
    ChangeConformance,
    FileConformance,
    MetadataConformance,
):
    """Inherit, implement ``open_driver``, set ``spec``; every test names the promise it checks."""
