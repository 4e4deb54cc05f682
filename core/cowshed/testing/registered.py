"""The kit on a registered driver: what ``python -m cowshed.testing DRIVER`` hands to pytest.

Other processes load this file by its path, so it imports by full names.
"""

from __future__ import annotations

import os
from pathlib import Path

from cowshed.config import load_config
from cowshed.driver import Driver, make_options
from cowshed.interface import open_driver
from cowshed.plugin_manager import Plugins
from cowshed.testing import DriverConformance
from cowshed.testing.kit import TESTED_DRIVER

_config = load_config()
_plugins = Plugins()
_plugins.load(_config)
_spec = _plugins.drivers.find(os.environ[TESTED_DRIVER])
_options = make_options(_spec, _config.driver_options(_spec.name))


class TestDriver(DriverConformance):
    """The driver, with the options that are configured for it."""

    spec = _spec

    def open_driver(self, root: Path) -> Driver:
        return open_driver(_spec, root, _options)
