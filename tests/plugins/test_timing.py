"""The timing of operations."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from cowshed import Shed
from cowshed.errors import ConfigError, NotFoundError
from cowshed_plugins.timing import collect


def test_nothing_is_printed_unless_configured(
    open_shed: Callable[..., Shed], capsys: pytest.CaptureFixture[str]
) -> None:
    open_shed().create("scratch")
    assert capsys.readouterr().err == ""


def test_every_operation_is_timed_once_configured(
    open_shed: Callable[..., Shed], capsys: pytest.CaptureFixture[str]
) -> None:
    open_shed(timing={"enabled": True}).create("scratch")
    assert re.fullmatch(r"cowshed: create took \d+\.\d{3} s\n", capsys.readouterr().err)


def test_the_environment_turns_it_on(
    open_shed: Callable[..., Shed],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COWSHED_TIMING", "1")
    with pytest.raises(NotFoundError):
        open_shed().create("nothing")
    assert "cowshed: create failed after" in capsys.readouterr().err


def test_timings_can_be_collected(open_shed: Callable[..., Shed]) -> None:
    shed = open_shed()
    with collect() as timings:
        shed.create("scratch").diff()
    assert [(one.operation, one.succeeded) for one in timings] == [("create", True), ("diff", True)]
    assert all(one.seconds > 0 for one in timings)


def test_an_unknown_setting_is_refused(open_shed: Callable[..., Shed]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'enabled'"):
        open_shed(timing={"enable": True}).create("scratch")
