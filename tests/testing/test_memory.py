"""The specification passes its own kit."""

from __future__ import annotations

from pathlib import Path

from cowshed.driver import Driver
from cowshed.testing import DriverConformance, MemoryDriver


class TestMemory(DriverConformance):
    processes = False
    on_disk = False

    def open_driver(self, root: Path) -> Driver:
        return MemoryDriver(root)
