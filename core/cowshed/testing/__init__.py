"""Conformance kit for driver authors: inherit ``DriverConformance``, say how to open your driver.

    from cowshed.testing import DriverConformance

    class TestMine(DriverConformance):
        spec = SPEC

        def open_driver(self, root: Path) -> Driver:
            return MyDriver(root)

Assertions of the kit are rewritten by pytest, so that a failure shows the values it is about.
"""

import importlib
import pkgutil

try:
    importlib.import_module("hypothesis")  # needed by the kit's modules, missed here
    import pytest
except ImportError as error:
    raise ImportError(
        f"the conformance kit needs {error.name}: pip install 'cowshed[testing]'", name=error.name
    ) from error

# Before the modules are imported, or their assertions would stay bare.
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    pytest.register_assert_rewrite(_module.name)

from .conformance import DriverConformance  # noqa: E402 - rewriting has to be registered first
from .memory import MemoryDriver  # noqa: E402 - as above

__all__ = ["DriverConformance", "MemoryDriver"]
