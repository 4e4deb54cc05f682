from pathlib import Path

from cowshed_pigeonhole.driver import Pigeonhole
from cowshed_pigeonhole.plugin import SPEC

from cowshed.driver import Driver
from cowshed.testing import DriverConformance


class TestPigeonhole(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return Pigeonhole(root)
