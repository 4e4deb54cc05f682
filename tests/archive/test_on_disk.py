"""What a layer's model keeps on disk goes with it."""

from __future__ import annotations

import io
from pathlib import Path
from sqlite3 import ProgrammingError

import pytest

from archive.helpers import directory, file, tar
from cowshed import sqlite
from cowshed.archive import apply_layer, directories
from cowshed.errors import ArchiveError
from cowshed.sqlite import Connection
from cowshed.testing.memory import MemoryDriver


def test_a_failing_layer_lets_go_of_its_file(tmp_path: Path) -> None:
    bad = tar(directory("d"), *(file(f"d/{n}", b"x") for n in range(10)), file("d/0/below", b"x"))
    with (
        pytest.MonkeyPatch.context() as patch,
        MemoryDriver(tmp_path / "store").stage(None) as stage,
    ):
        patch.setattr(directories, "_NEAR", 1)
        opened: list[Connection] = []
        nameless = sqlite.nameless

        def noting(path: str, *schema: str) -> Connection:
            opened.append(nameless(path, *schema))
            return opened[-1]

        patch.setattr(sqlite, "nameless", noting)
        with pytest.raises(ArchiveError, match="Not a directory"):
            apply_layer(io.BytesIO(bad), stage, None, scratch=str(tmp_path))
    [database] = opened
    with pytest.raises(ProgrammingError, match="closed"):
        database.execute("SELECT 1")
