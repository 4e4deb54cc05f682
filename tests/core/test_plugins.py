"""Plugins: loaded one by one, clashes and failures named, hooks combined as documented."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cowshed import Shed
from cowshed.config import load_config
from cowshed.driver import DriverSpec
from cowshed.errors import NotFoundError, PluginError, VetoError
from cowshed.hookspecs import hookimpl
from cowshed.plugin_manager import Plugins
from cowshed.transport import TransportSpec

SHED: Any = SimpleNamespace()


def brings(*names: str) -> object:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [DriverSpec(name=name, summary="", load=lambda: None) for name in names]  # type: ignore[arg-type,return-value]

    return Plugin()


def test_a_plugin_that_fails_to_import_is_named_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_one.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "good_one.py").write_text(
        "from cowshed.hookspecs import hookimpl\n"
        "@hookimpl\ndef cowshed_register_commands(): return {'hello': 'x:y'}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = Plugins()
    plugins.load(load_config({"plugins": ["broken_one", "good_one"]}, environment={}))
    broken = next(info for info in plugins.infos if info.name == "broken_one")
    assert "no_such_module_anywhere" in broken.failure
    assert "cowshed: plugin broken_one failed to import" in capsys.readouterr().err
    assert plugins.commands()["hello"] == "x:y"
    sys.modules.pop("good_one", None)


def test_two_plugins_that_claim_one_name_are_an_error_naming_both() -> None:
    plugins = Plugins()
    plugins.register(brings("mine", "shared"), "first")
    plugins.register(brings("shared", "yours"), "second")
    assert plugins.drivers.find("mine").name == "mine"
    with pytest.raises(PluginError, match=r"claimed by both .*(first|second).*(first|second)"):
        plugins.drivers.find("shared")


def test_two_plugins_that_claim_one_transport_are_an_error_naming_both(tmp_path: Path) -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_transports(self) -> list[TransportSpec]:
            return [TransportSpec(name="oci", summary="Mine.", load=lambda: None)]  # type: ignore[arg-type,return-value]

    with Shed(tmp_path / "shed", plugins={"other-oci": Plugin()}) as shed:
        assert "oci" not in shed.plugins.transports
        with pytest.raises(PluginError, match="transport 'oci' is claimed by both") as caught:
            shed.import_image("oci:somewhere")
        assert "other-oci" in str(caught.value) and "transports" in str(caught.value)
        assert shed.plugins.transports.find("dir").name == "dir"


def test_two_plugins_that_claim_one_command_are_an_error_naming_both() -> None:
    class Plugin:
        def __init__(self, *names: str) -> None:
            self.names = names

        @hookimpl
        def cowshed_register_commands(self) -> dict[str, str]:
            return dict.fromkeys(self.names, "module:attribute")

    plugins = Plugins()
    plugins.register(Plugin("hello", "mine"), "first")
    plugins.register(Plugin("hello", "yours"), "second")
    assert set(plugins.commands()) == {"mine", "yours"}
    with pytest.raises(PluginError, match=r"command 'hello' is claimed by both (first|second) and"):
        plugins.command_register.find("hello")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("mine", "module", "it is 'module', not \"module:attribute\""),
        ("mine", None, "it is None"),
        ("two words", "a:b", "its name must be letters"),
        (3, "a:b", "its name is int, not a string"),
    ],
)
def test_a_command_that_breaks_the_interface_is_refused(name: Any, value: Any, shown: str) -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_commands(self) -> dict[str, str]:
            return {name: value, "sound": "module:attribute"}

    plugins = Plugins()
    plugins.register(Plugin(), "stranger")
    assert set(plugins.commands()) == {"sound"}
    (info,) = plugins.infos
    assert shown in info.failure


def test_two_plugins_of_one_name_are_named_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("plugin_one", "plugin_two"):
        (tmp_path / f"{module}.py").write_text(
            "from cowshed.hookspecs import hookimpl\n"
            f"@hookimpl\ndef cowshed_register_commands(): return {{'{module}': 'x:y'}}\n"
        )
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cowshed]\ncommon = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):  # looked up, then remembered
        plugins = Plugins()
        plugins.load(load_config(environment={}))
        assert "plugin_one" in plugins.commands() and "plugin_two" not in plugins.commands()
        failures = [info.failure for info in plugins.infos if info.name == "common"]
        assert failures == ["", "plugin name 'common' is claimed by both plugin_one and plugin_two"]
        assert "claimed by both plugin_one and plugin_two" in capsys.readouterr().err
        for module in ("plugin_one", "plugin_two"):
            sys.modules.pop(module, None)


def test_a_module_that_exits_while_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quitter.py").write_text("import sys\nsys.exit('not here')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = Plugins()
    plugins.load(load_config({"plugins": ["quitter"]}, environment={}))
    quitter = next(info for info in plugins.infos if info.name == "quitter")
    assert quitter.failure == "failed to import: SystemExit: not here"


def test_an_unknown_driver_suggests_the_nearest() -> None:
    plugins = Plugins()
    plugins.register(brings("naive-copy", "chunk-dedup"), "ours")
    with pytest.raises(NotFoundError, match="did you mean 'chunk-dedup'"):
        plugins.drivers.find("chunk-dedupe")


def test_what_is_no_spec_is_refused_by_name() -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[object]:
            return ["a string"]

    plugins = Plugins()
    plugins.register(Plugin(), "sloppy")
    assert dict(plugins.drivers) == {}
    (info,) = plugins.infos
    assert "no DriverSpec" in info.failure


def test_a_hook_with_unknown_arguments_is_refused_and_named() -> None:
    class Plugin:
        @hookimpl
        def cowshed_shed_opened(self, nonsense: int) -> None: ...

    plugins = Plugins()
    plugins.register(Plugin(), "confused")
    (info,) = plugins.infos
    assert "nonsense" in info.failure
    plugins.notify("shed_opened", shed=SHED)


def test_a_veto_stops_the_operation_before_it_runs() -> None:
    class Plugin:
        @hookimpl
        def cowshed_veto(self, operation: str, details: Mapping[str, Any]) -> str | None:
            return "too many" if details["count"] > 2 else None

    ran: list[str] = []
    plugins = Plugins()
    plugins.register(Plugin(), "strict")
    plugins.run(SHED, "create", {"count": 1}, lambda: ran.append("one"), vetoable=True)
    with pytest.raises(VetoError, match="create refused: too many"):
        plugins.run(SHED, "create", {"count": 3}, lambda: ran.append("two"), vetoable=True)
    assert ran == ["one"]


def test_wrappers_go_around_an_operation_and_see_its_result() -> None:
    seen: list[object] = []

    class Plugin:
        @hookimpl(wrapper=True)
        def cowshed_operation(self, operation: str) -> Generator[None, object, object]:
            seen.append(operation)
            result = yield
            seen.append(result)
            return result

    plugins = Plugins()
    plugins.register(Plugin(), "watcher")
    assert plugins.run(SHED, "diff", {}, lambda: [1, 2]) == [1, 2]
    assert seen == ["diff", [1, 2]]


def test_an_operation_without_a_result_runs_once() -> None:
    ran: list[int] = []
    assert Plugins().run(SHED, "tag", {}, lambda: ran.append(1)) is None
    assert ran == [1]


def test_a_listener_that_fails_is_reported_and_the_others_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[str] = []

    class Failing:
        @hookimpl
        def cowshed_image_removed(self, image: str) -> None:
            raise RuntimeError("cannot cope")

    class Listening:
        @hookimpl
        def cowshed_image_removed(self, image: str) -> None:
            told.append(image)

    plugins = Plugins()
    plugins.register(Listening(), "listening")
    plugins.register(Failing(), "failing")
    plugins.notify("image_removed", shed=SHED, image="abc")
    assert told == ["abc"]
    assert "plugin failing failed on image_removed: cannot cope" in capsys.readouterr().err
