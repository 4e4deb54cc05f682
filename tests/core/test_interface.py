"""A driver that breaks the interface is refused by name, with the reason; the shed works on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cowshed import Shed
from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.errors import DriverError, PluginError
from cowshed.hookspecs import hookimpl
from cowshed.plugin_manager import Plugins
from cowshed.testing import MemoryDriver


class Sound(MemoryDriver):
    """Breaks nothing."""

    def __init__(self, root: Path, options: object = None) -> None:
        super().__init__(root)


def spec(**changes: Any) -> DriverSpec:
    """Return the registration of a sound driver, with some fields made wrong."""
    fields: dict[str, Any] = {"name": "mine", "summary": "Mine.", "load": lambda: Sound}
    return DriverSpec(**(fields | changes))


def plugins_with(*specs: object) -> Plugins:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[Any]:
            return list(specs)

    plugins = Plugins()
    plugins.register(Plugin(), "stranger")
    return plugins


def loads(**attributes: Any) -> Callable[[], type]:
    """Return the ``load`` of a driver class with some attributes made wrong."""
    return lambda: type("Mine", (Sound,), attributes)


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*_: object) -> Any:
        raise error

    return function


@attrs.frozen(kw_only=True)
class NoDefault:
    needed: int


class NoMethods(Driver):
    def close(self) -> None: ...


class Plain:
    def __init__(self, root: Path, options: object) -> None: ...


class OneArgument(MemoryDriver):
    """Takes no options."""


async def async_prepare(self: object, container: str, parent: str | None) -> None: ...


BROKEN: dict[str, tuple[DriverSpec, str]] = {
    "summary that is no string": (spec(summary=None), "its summary is None, not a string"),
    "load that is no function": (spec(load="mine:Mine"), "its load is str, not a function"),
    "probe that is no function": (spec(probe=True), "its probe is bool, not a function"),
    "capability by name": (
        spec(capabilities=frozenset({"native-path"})),
        "its capability 'native-path' is no Capability",
    ),
    "capability that can't be hashed": (
        spec(capabilities=[{"NATIVE_PATH": True}]),
        "its capability {'NATIVE_PATH': True} is no Capability",
    ),
    "capability twice": (
        spec(capabilities=(Capability.COMPRESSES, Capability.COMPRESSES)),
        "its capability COMPRESSES is there twice",
    ),
    "capabilities in a list": (
        spec(capabilities=[Capability.COMPRESSES]),
        "its capabilities are list, not a frozenset of Capability",
    ),
    "one capability": (
        spec(capabilities=Capability.COMPRESSES),
        "its capabilities are Capability, not a frozenset of Capability",
    ),
    "options that are a dictionary": (
        spec(options={"level": 3}),
        "its options are {'level': 3}, not an attrs class",
    ),
    "options that are a plain class": (spec(options=Plain), "not an attrs class"),
    "option without default": (spec(options=NoDefault), "its option needed has no default"),
    "depth of nothing": (
        spec(max_depth=0),
        "its max_depth is 0; a driver holds one layer at least",
    ),
    "depth in words": (spec(max_depth="many"), "its max_depth is str, not a whole number or None"),
    "depth that is a truth": (spec(max_depth=True), "its max_depth is bool"),
    "import that fails": (
        spec(load=raises(ImportError("No module named 'rocks'"))),
        "can't be imported: No module named 'rocks'",
    ),
    "load that raises": (
        spec(load=raises(KeyError("rocks"))),
        "its load raised KeyError: 'rocks'",
    ),
    "load that exits": (spec(load=raises(SystemExit(3))), "its load raised SystemExit: 3"),
    "load that returns nothing": (
        spec(load=lambda: None),
        "its load returned None, not a driver's class",
    ),
    "class of its own kind": (
        spec(load=lambda: Plain),
        "Plain is no subclass of cowshed.driver.Driver",
    ),
    "missing methods": (
        spec(load=lambda: NoMethods),
        "NoMethods lacks changes and disk_usage and items and prepare and recover",
    ),
    "no place for options": (
        spec(load=lambda: OneArgument),
        "OneArgument(root) can't be called as OneArgument(root, options)",
    ),
    "prepare without parent": (
        spec(load=loads(prepare=lambda self, container: None)),
        "Mine.prepare(self, container) can't be called as prepare(self, container, parent)",
    ),
    "prepare that wants more": (
        spec(load=loads(prepare=lambda self, container, parent, size: None)),
        "Mine.prepare(self, container, parent, size) can't be called as",
    ),
    "tree that can't be writable": (
        spec(load=loads(tree=lambda self, id: None)),
        "Mine.tree(self, id) can't be called as tree(self, id, *, writable=False)",
    ),
    "tree that must be told": (
        spec(load=loads(tree=lambda self, id, *, writable: None)),
        "Mine.tree(self, id, *, writable) can't be called as",
    ),
    "fork that is a number": (spec(load=loads(fork=7)), "Mine.fork is 7, not a method"),
    "recover that is a property": (
        spec(load=loads(recover=property(lambda self: None))),
        "Mine.recover is <property",
    ),
    "static method with self": (
        spec(load=loads(remove=staticmethod(lambda self, id: None))),
        "Mine.remove(self, id) can't be called as remove(id)",
    ),
    "async method": (
        spec(load=loads(prepare=async_prepare)),
        "Mine.prepare is async; core calls it as a plain method",
    ),
    "probe that raises": (
        spec(probe=raises(ZeroDivisionError("division by zero"))),
        "its probe raised ZeroDivisionError: division by zero",
    ),
    "probe that exits": (spec(probe=raises(SystemExit())), "its probe raised SystemExit"),
    "probe that says yes": (
        spec(probe=lambda root: True),
        "its probe returned True, not a sentence or None",
    ),
}

every_fault = pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)


@every_fault
def test_what_breaks_the_interface_is_refused_where_drivers_are_listed(
    broken: DriverSpec, reason: str, tmp_path: Path
) -> None:
    plugins = plugins_with(broken, spec(name="sound"))
    assert plugins.drivers.every_name() == ["mine", "sound"]
    assert reason in plugins.judge("mine", tmp_path).refused
    assert plugins.judge("sound", tmp_path) == ("", "")
    (info,) = plugins.infos
    assert info.failure.startswith("driver mine refused: ")
    assert reason in info.failure and "\n" not in info.failure


@every_fault
def test_what_breaks_the_interface_is_a_clear_error_where_it_is_used(
    broken: DriverSpec, reason: str, tmp_path: Path
) -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [broken]

    with Shed(tmp_path / "shed", driver="naive-copy", plugins={"stranger": Plugin()}) as shed:
        with pytest.raises(DriverError) as caught:
            shed.create("scratch", driver="mine")
        assert caught.value.driver == "mine" and reason in caught.value.reason
        assert str(caught.value).startswith("driver mine: ")
        assert shed.create("scratch").driver == "naive-copy", "the rest of the shed works"
        assert len(shed.containers()) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (7, "its name is int, not a string"),
        (None, "its name is NoneType, not a string"),
        ("", "its name must be lower-case letters and digits"),
        ("Mine", "not 'Mine'"),
        ("my_driver", "joined by hyphens"),
        ("my driver", "joined by hyphens"),
        ("-mine", "joined by hyphens"),
        ("../mine", "not '../mine'"),
        ("m" * 65, "64 at most"),
        ("m\n", "joined by hyphens"),
    ],
)
def test_a_name_that_is_none_is_refused(name: Any, shown: str) -> None:
    plugins = plugins_with(spec(name=name), spec(name="sound"))
    assert set(plugins.drivers) == {"sound"}
    (problem,) = plugins.drivers.refused.values()
    assert shown in problem
    assert problem in plugins.infos[0].failure.replace("  ", " ") or "\n" in str(name)


def test_a_factory_may_be_any_function_that_returns_a_driver(tmp_path: Path) -> None:
    plugins = plugins_with(spec(load=lambda: lambda root, options: Sound(root)))
    assert plugins.judge("mine", tmp_path) == ("", "")


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (lambda root, options: None, "its factory returned None, which is no Driver"),
        (lambda root, options: Plain(root, options), "which is no Driver"),
        (raises(RuntimeError("out of cheese")), "can't be opened: RuntimeError: out of cheese"),
        (raises(SystemExit(1)), "can't be opened: SystemExit: 1"),
        (
            lambda root, options: type("Odd", (Sound,), {"usage": lambda self: None})(root),
            "Odd.usage(self) can't be called as usage(self, id)",
        ),
        (
            lambda root, options: type("Odd", (Sound,), {"durable": property(lambda self: True)})(
                root
            ),
            "its durable can't be set: AttributeError",
        ),
    ],
)
def test_what_only_opening_shows_is_a_clear_error_too(
    factory: Callable[..., Any], reason: str, tmp_path: Path
) -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [spec(load=lambda: factory)]

    with Shed(tmp_path / "shed", driver="naive-copy", plugins={"stranger": Plugin()}) as shed:
        with pytest.raises(DriverError) as caught:
            shed.create("scratch", driver="mine")
        assert reason in str(caught.value)
        shed.create("scratch")


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (None, "raised TypeError"),
        (spec(), "raised TypeError"),
        (7, "raised TypeError"),
        (["mine"], "registered 'mine' as a driver, which is no DriverSpec"),
        ([DriverSpec], "which is no DriverSpec"),
    ],
)
def test_an_answer_that_is_no_list_of_specs_is_named(answer: Any, shown: str) -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> Any:
            return answer

    plugins = Plugins()
    plugins.register(Plugin(), "stranger")
    assert dict(plugins.drivers) == {}
    assert shown in plugins.infos[0].failure


def test_a_generator_that_fails_halfway_registers_nothing() -> None:
    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> Iterator[DriverSpec]:
            yield spec()
            raise RuntimeError("halfway")

    plugins = Plugins()
    plugins.register(Plugin(), "stranger")
    assert dict(plugins.drivers) == {}
    assert plugins.infos[0].failure == "cowshed_register_drivers raised RuntimeError: halfway"


def test_every_thing_that_is_wrong_with_a_plugin_is_told() -> None:
    plugins = plugins_with(spec(max_depth=0), spec(name="two", summary=2), "three")
    _ = plugins.drivers
    failure = plugins.infos[0].failure
    assert failure.count("; ") == 3  # one of them is part of a sentence
    assert "driver mine refused" in failure and "driver two refused" in failure


def test_a_spec_claimed_twice_by_one_plugin_is_used_by_nobody() -> None:
    plugins = plugins_with(spec(), spec(name="sound"), spec())
    assert set(plugins.drivers) == {"sound"}
    with pytest.raises(PluginError, match="driver 'mine' is claimed twice by stranger"):
        plugins.drivers.find("mine")


# -- on the command line -----------------------------------------------------------------------

MODULE = """
import sys
from cowshed.driver import DriverSpec
from cowshed.hookspecs import hookimpl

def load():
    from strange_driver import Strange
    return Strange

def probe(root):
    return 1 / 0

@hookimpl
def cowshed_register_drivers():
    return [
        DriverSpec(name="strange", summary="Strange.", load=load),
        DriverSpec(name="unprobed", summary="Explodes.", load=load, probe=probe),
        DriverSpec(name="Wrong Name", summary="Wrong.", load=load),
    ]
"""

CLASS = """
from cowshed.testing import MemoryDriver

class Strange(MemoryDriver):
    def __init__(self, root, options):
        super().__init__(root)

    def prepare(self, container):
        pass
"""


@pytest.fixture
def cowshed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    (tmp_path / "strange.py").write_text(MODULE)
    (tmp_path / "strange_driver.py").write_text(CLASS)
    (tmp_path / "cowshed.toml").write_text('plugins = ["strange"]\ndriver = "naive-copy"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("COWSHED_CONFIG", str(tmp_path / "cowshed.toml"))
    monkeypatch.setenv("COWSHED_ROOT", str(tmp_path / "shed"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cowshed", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_drivers_and_plugins_show_one_line_for_each_refused_driver(
    cowshed: Callable[..., Any],
) -> None:
    ran = cowshed("drivers")
    assert ran.returncode == 0 and ran.stderr == ""
    lines = ran.stdout.splitlines()
    for driver, reason in (
        ("strange", "Strange.prepare(self, container) can't be called as prepare("),
        ("unprobed", "Strange.prepare"),
        ("Wrong Name", "its name must be lower-case"),
    ):
        assert any(re.match(f"{driver} +refused", line) for line in lines)
        (said,) = [line for line in lines if line.startswith(f"{driver} is refused: ")]
        assert said.startswith(f"{driver} is refused: {reason}")
    assert any(re.match(r"naive-copy \* +yes ", line) for line in lines)

    found = {one["name"]: one for one in json.loads(cowshed("drivers", "--json").stdout)}
    assert found["strange"]["refused"] and not found["strange"]["available"]
    assert found["strange"]["reason"].startswith("Strange.prepare(self, container)")
    assert found["Wrong Name"]["capabilities"] == []
    assert not found["naive-copy"]["refused"]

    (plugin,) = [line for line in cowshed("plugins").stdout.splitlines() if "strange" in line]
    for part in ("driver strange refused: Strange.prepare", "Wrong Name", "driver unprobed"):
        assert part in plugin


def test_using_a_refused_driver_is_one_line_and_the_rest_works(cowshed: Callable[..., Any]) -> None:
    ran = cowshed("create", "scratch", "--driver", "strange")
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert "driver strange: Strange.prepare(self, container) can't be called" in line
    assert cowshed("create", "scratch").returncode == 0
    assert len(cowshed("ps", "-q").stdout.splitlines()) == 1
