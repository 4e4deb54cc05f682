"""reflink against the kit on XFS and btrfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.reflink.driver import Reflink
from cowshed_drivers.reflink.plugin import SPEC


class TestReflinkOnXfs(DriverConformance):
    spec = SPEC

    @pytest.fixture
    def tmp_path(self, xfs: Path) -> Path:
        return xfs

    def open_driver(self, root: Path) -> Driver:
        return Reflink(root)


class TestReflinkOnBtrfs(DriverConformance):
    spec = SPEC

    @pytest.fixture
    def tmp_path(self, btrfs: Path) -> Path:
        return btrfs

    def open_driver(self, root: Path) -> Driver:
        return Reflink(root)
