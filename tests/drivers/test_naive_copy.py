"""naive-copy against the kit, and what is its own."""

from __future__ import annotations

from pathlib import Path

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.naive_copy.driver import NaiveCopy
from cowshed_drivers.naive_copy.plugin import SPEC


class TestNaiveCopy(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return NaiveCopy(root)
