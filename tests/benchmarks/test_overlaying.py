"""The measurement of overlayfs beside bare system calls does what it measures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cowshed_benchmarks import overlaying
from cowshed_drivers.overlayfs.probing import probe


def test_it_shows_driver_and_bare_calls_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = probe(tmp_path)
    status = overlaying.main(["--rounds", "2", "--work", str(tmp_path)])
    said = capsys.readouterr()
    if reason:
        assert (status, said.out, len(said.err.splitlines())) == (1, "", 1)
        return
    assert status == 0
    rows = said.out.splitlines()[1:]
    assert [row[:32].split("  ")[0] for row in rows] == ["prepare and mount", "fork"] * 2
    for row in rows:
        assert re.search(r" +\d+\.\d{3} +\d+\.\d{3}   \d+\.\d\d×$", row), row
    assert list(tmp_path.iterdir()) == [], "what it made is gone"
