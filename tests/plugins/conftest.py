"""A shed with our plugins, and none of the user's surroundings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed

OpenShed = Callable[..., Shed]


@pytest.fixture
def open_shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenShed]:
    for name in list(os.environ):
        if name.startswith("COWSHED_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ExitStack() as stack:

        def open_it(**plugins: dict[str, Any]) -> Shed:
            settings: dict[str, Any] = {"plugin": plugins, "durability": "none"}
            return stack.enter_context(
                Shed(tmp_path / "shed", driver="naive-copy", overrides=settings)
            )

        yield open_it
