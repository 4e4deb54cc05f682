"""DriverConformance: all parts of the kit in one class."""

from __future__ import annotations

from .changes import ChangeConformance
from .concurrency import ConcurrencyConformance
from .containers import ContainerConformance
from .files import FileConformance
from .histories import HistoryConformance
from .isolation import IsolationConformance
from .layers import LayerConformance
from .limits import LimitConformance
from .metadata import MetadataConformance
from .names import NameConformance
from .processes import ProcessConformance
from .stages import StageConformance


class DriverConformance(
    LayerConformance,
    StageConformance,
    ContainerConformance,
    IsolationConformance,
    ChangeConformance,
    FileConformance,
    NameConformance,
    MetadataConformance,
    ConcurrencyConformance,
    ProcessConformance,
    LimitConformance,
    HistoryConformance,
):
    """Inherit, implement ``open_driver``, set ``spec``; every test names the promise it checks."""
