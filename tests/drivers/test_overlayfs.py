"""overlayfs against the kit, and what is its own."""

from __future__ import annotations

from pathlib import Path

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.overlayfs.driver import Overlayfs
from cowshed_drivers.overlayfs.plugin import SPEC


class TestOverlayfs(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return Overlayfs(root)
