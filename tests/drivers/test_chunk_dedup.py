"""chunk-dedup against the kit."""

from __future__ import annotations

from pathlib import Path

from cowshed.driver import Driver
from cowshed.testing import DriverConformance
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.options import Options
from cowshed_drivers.chunk_dedup.plugin import SPEC


class TestChunkDedup(DriverConformance):
    spec = SPEC

    def open_driver(self, root: Path) -> Driver:
        return ChunkDedup(root, Options())
