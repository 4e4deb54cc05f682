"""What is remembered of installed plugins, and when it isn't believed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.config import load_config
from cowshed.plugin_manager import Plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.syspath_prepend(str(directory))
    # What stands first is the script's directory, which doesn't tell installations apart.
    (tmp_path / "scripts").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "scripts"))
    yield directory


def install(site: Path, name: str, body: str, module: str) -> None:
    (site / f"{module}.py").write_text(body)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cowshed]\n{name} = {module}\n")


COMMAND = """
from cowshed.hookspecs import hookimpl

@hookimpl
def cowshed_register_commands():
    return {"hello": "hello:command"}
"""


def fresh() -> Plugins:
    plugins = Plugins()
    plugins.load(load_config(environment=os.environ))
    return plugins


def test_a_plugin_installed_later_is_found_and_a_removed_one_forgotten(site: Path) -> None:
    assert "hello" not in fresh().commands()
    install(site, "greeter", COMMAND, "greeter_plugin")
    assert fresh().commands()["hello"] == "hello:command"
    assert fresh().commands()["hello"] == "hello:command"
    for path in (site / "greeter-1.0.dist-info").iterdir():
        path.unlink()
    (site / "greeter-1.0.dist-info").rmdir()
    assert "hello" not in fresh().commands()


def test_a_plugin_is_imported_only_when_its_hook_is_called(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "imported"
    body = COMMAND + f"\nopen({str(mark)!r}, 'a').write('.')\n"
    install(site, "noted", body, "noted_plugin")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    fresh()
    del sys.modules["noted_plugin"]
    mark.unlink()
    plugins = fresh()
    plugins.notify("shed_opened", shed=None)
    assert not mark.exists()
    assert plugins.commands()
    assert mark.exists()


def test_a_broken_plugin_is_tried_again_each_time_and_named(site: Path) -> None:
    install(site, "broken", "raise ValueError('no luck')", "broken_plugin")
    for _ in range(2):
        (info,) = [info for info in fresh().infos if info.name == "broken"]
        assert info.failure == "failed to import: ValueError: no luck"


def test_a_memory_that_others_can_write_is_not_believed(site: Path, tmp_path: Path) -> None:
    install(site, "greeter", COMMAND, "greeter_plugin")
    fresh()
    (memory,) = (tmp_path / "cache/cowshed").iterdir()
    memory.write_text(memory.read_text().replace("greeter_plugin", "evil_plugin"))
    os.chmod(memory, 0o666)
    assert fresh().commands()["hello"] == "hello:command"


def test_a_damaged_memory_is_replaced(site: Path, tmp_path: Path) -> None:
    install(site, "greeter", COMMAND, "greeter_plugin")
    fresh()
    (memory,) = (tmp_path / "cache/cowshed").iterdir()
    memory.write_text("{")
    assert fresh().commands()["hello"] == "hello:command"
    assert memory.read_text().startswith('{"version"')


def test_the_order_of_plugins_does_not_depend_on_what_is_called_first(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing = "@hookimpl\ndef cowshed_choose_driver(shed, image):\n    return {name!r}\n"
    head = "from cowshed.hookspecs import hookimpl\n"
    install(site, "zulu", head + choosing.format(name="zulu"), "zulu_plugin")
    install(site, "alpha", COMMAND + choosing.format(name="alpha"), "alpha_plugin")
    (site / "configured_plugin.py").write_text(head + choosing.format(name="configured"))
    for first in ("commands", "choose_driver"):
        plugins = fresh()
        if first == "commands":
            plugins.commands()
        assert plugins.choose_driver(None, "") == "zulu"  # type: ignore[arg-type]
    monkeypatch.setenv("COWSHED_PLUGINS", "configured_plugin")
    plugins = fresh()
    plugins.notify("shed_opened", shed=None)
    assert plugins.choose_driver(None, "") == "configured"  # type: ignore[arg-type]
