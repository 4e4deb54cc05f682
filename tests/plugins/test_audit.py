"""The audit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed
from cowshed.errors import ConfigError, NotFoundError


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_operation_leaves_a_line(open_shed: Callable[..., Shed], tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    shed = open_shed(audit={"file": str(path), "durable": True})
    container = shed.create("scratch", "box")
    with pytest.raises(NotFoundError):
        shed.create("nothing")
    shed.remove_containers(["box"])
    created, failed, removed = lines(path)
    assert (created["operation"], created["outcome"]) == ("create", "done")
    assert created["details"]["image"] == "scratch"
    assert created["uid"] == os.getuid()
    assert created["root"] == str(shed.root)
    assert created["seconds"] > 0
    assert (failed["outcome"], failed["error"]) == ("NotFoundError", "no such image: nothing")
    assert removed["details"]["containers"] == ["box"]
    assert container.name == "box"


def test_lines_are_appended_and_others_cannot_read_them(
    open_shed: Callable[..., Shed], tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        open_shed(audit={"file": str(path)}).create("scratch")
    assert len(lines(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_audit_that_cannot_be_written_stops_the_operation(
    open_shed: Callable[..., Shed], tmp_path: Path
) -> None:
    shed = open_shed(audit={"file": str(tmp_path / "missing/audit.jsonl")})
    with pytest.raises(ConfigError, match=r"can't write the audit to .*audit\.jsonl: No such file"):
        shed.create("scratch")
    assert shed.containers() == []


def test_a_file_must_be_named(open_shed: Callable[..., Shed]) -> None:
    with pytest.raises(ConfigError, match="file is missing"):
        open_shed(audit={"durable": True}).create("scratch")


def test_nothing_is_written_unless_configured(
    open_shed: Callable[..., Shed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_shed().create("scratch")
    monkeypatch.setenv("COWSHED_AUDIT", str(tmp_path / "audit"))
    open_shed().create("scratch")
    assert len(lines(tmp_path / "audit")) == 1
