"""overlayfs against the kit, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.overlayfs.driver import Overlayfs
from cowshed_drivers.overlayfs.plugin import SPEC


class TestOverlayfs(DriverConformance):
    spec = SPEC

    @pytest.fixture(autouse=True)
    def where_it_can(self, tmp_path: Path) -> None:
        """An ordinary user's turn is in a user namespace: see ``test_native_unprivileged``."""
        reason = SPEC.probe(tmp_path)
        if reason:
            pytest.skip(reason)

    def open_driver(self, root: Path) -> Driver:
        return Overlayfs(root)
