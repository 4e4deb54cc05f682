"""DriverConformance: all parts of the kit in one class."""

from __future__ import annotations

from .changes import ChangeConformance
from .concurrency import ConcurrencyConformance
from .containers import ContainerConformance
from .crashes import CrashConformance
from .declared import DeclaredConformance
from .files import FileConformance
from .fleets import FleetConformance
from .histories import HistoryConformance
from .isolation import IsolationConformance
from .keys import KeyConformance
from .layers import LayerConformance
from .limits import LimitConformance
from .metadata import MetadataConformance
from .names import NameConformance
from .processes import ProcessConformance
from .round_trips import RoundTripConformance
from .stages import StageConformance


class DriverConformance(
    LayerConformance,
    StageConformance,
    KeyConformance,
    ContainerConformance,
    IsolationConformance,
    ChangeConformance,
    FileConformance,
    NameConformance,
    MetadataConformance,
    RoundTripConformance,
    ConcurrencyConformance,
    ProcessConformance,
    CrashConformance,
    LimitConformance,
    FleetConformance,
    DeclaredConformance,
    HistoryConformance,
):
    """Inherit, implement ``open_driver``, set ``spec``; every test names the promise it checks."""
