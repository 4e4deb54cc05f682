"""hardlink-farm against the kit, and what is its own."""

from __future__ import annotations

from pathlib import Path

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.hardlink_farm.driver import HardlinkFarm
from cowshed_drivers.hardlink_farm.options import FarmOptions
from cowshed_drivers.hardlink_farm.plugin import SPEC


class TestHardlinkFarm(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return HardlinkFarm(root)


class TestHardlinkFarmWithFewLinks(DriverConformance):
    """Nearly every clone meets a full inode."""

    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return HardlinkFarm(root, FarmOptions(max_links=4))
