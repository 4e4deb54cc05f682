"""Conformance kit for driver authors: inherit ``DriverConformance``, say how to open your driver.

    from cowshed.testing import DriverConformance

    class TestMine(DriverConformance):
        spec = SPEC

        def open_driver(self, root: Path) -> Driver:
            return MyDriver(root)

Assertions of the kit are rewritten by pytest, so that a failure shows the values it is about.
"""

import pkgutil

import pytest

# Before the modules are imported, or their assertions would stay bare.
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    pytest.register_assert_rewrite(_module.name)

from .conformance import DriverConformance  # noqa: E402 - rewriting has to be registered first
from .memory import MemoryDriver  # noqa: E402 - as above

__all__ = ["DriverConformance", "MemoryDriver"]
