"""What every part of the kit stands on: one store, its helpers, and a base class."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from ..driver import Capability, Driver, DriverSpec, Held
from ..entry import Change
from ..errors import NotFoundError
from ..tree import Tree
from .oracle import Picture, Thing, assert_same, letters, look_at, sketch

#: Set to 1 (by ``--thorough``, see ``plugin``) it makes every part look closer, for longer. A
#: variable, because the processes that tests start have to know too.
THOROUGH = "COWSHED_THOROUGH"

#: Names the driver that ``python -m cowshed.testing`` tests, likewise.
TESTED_DRIVER = "COWSHED_TESTED_DRIVER"

#: The groups of promises, as the summary lists them.
GROUPS = (
    "layers",
    "containers",
    "changes",
    "metadata",
    "round trips",
    "concurrency",
    "crash",
    "limits",
    "capabilities",
    "histories",
)


def key(name: str) -> str:
    """Return an ID, 64 hex digits, for a name that reads well in a test."""
    return hashlib.sha256(name.encode()).hexdigest()


class Store:
    """A driver on a root of its own, and how tests fill and look at it."""

    def __init__(
        self, root: Path, open_driver: Callable[[Path], Driver], *, durable: bool = False
    ) -> None:
        self.root = root
        self.durable = durable
        self._open_driver = open_driver
        self._opened: list[Driver] = []
        self._reader: Driver | None = None
        self.driver = self.another()
        #: What every layer must look like, by ID: known to the test, never asked of the driver.
        self.layers: dict[str, Picture] = {}

    def another(self) -> Driver:
        """Open a further driver object on the same root."""
        driver = self._open_driver(self.root)
        driver.durable = self.durable
        self._opened.append(driver)
        return driver

    def reopen(self) -> None:
        """Close everything and open the driver anew."""
        self.close()
        self.driver = self.another()

    def close(self) -> None:
        """Close every driver object."""
        self._reader = None
        while self._opened:
            self._opened.pop().close()

    def layer(self, name: str, *things: Thing, on: str | None = None) -> str:
        """Seal a layer of ``things``; return its ID."""
        id = key(name)
        with self.driver.stage(on) as stage:
            for thing in things:
                stage.add(thing.entry, thing.content())
            stage.seal(id)
        self.layers[id] = sketch(things, self.layers[on] if on else None)
        return id

    def container(self, name: str, on: str | None = None) -> str:
        """Prepare a container; return its ID."""
        id = key(name)
        self.driver.prepare(id, on)
        return id

    def fork(self, container: str, name: str) -> str:
        """Fork a container; return the new one's ID."""
        id = key(name)
        self.driver.fork(container, id)
        return id

    def write(self, container: str) -> Tree:
        """Open a container for writing."""
        return self.driver.tree(container, writable=True)

    def look(self, id: str) -> Picture:
        """Return what ``id`` shows now, to a driver object that wrote nothing: what only the
        writer's memory holds isn't there."""
        if self._reader is None:
            self._reader = self.another()
        return look_at(self._reader, id)

    def changes(self, container: str) -> list[str]:
        """Return the changes as ``["C etc", "A etc/new"]``."""
        return letters(self.driver.changes(container))

    def commit(self, container: str, name: str) -> str:
        """Seal a layer of a container's changes on its parent, as core does; return its ID."""
        from ..driver import change_entries
        from ..entry import Kind

        parent = next(item.parent for item in self.driver.items() if item.id == container)
        id = key(name)
        with self.driver.tree(container) as tree, self.driver.stage(parent) as stage:
            for entry in change_entries(self.driver.changes(container)):
                if entry.kind is Kind.FILE:
                    with tree.open(entry.path) as content:
                        stage.add(entry, content)
                else:
                    stage.add(entry)
            stage.seal(id)
        return id

    def assert_layers(self, promise: str = "a sealed layer never changes") -> None:
        """Re-hash every layer that the test made."""
        for id, picture in self.layers.items():
            try:
                found = self.look(id)
            except NotFoundError as error:
                pytest.fail(f"broken promise: {promise}\n  {error}")
            assert_same(picture, found, promise)

    def held(self) -> dict[str, tuple[Held, str | None]]:
        """Return what ``items`` yields, by ID."""
        items = list(self.driver.items())
        found = {item.id: (item.held, item.parent) for item in items}
        assert len(found) == len(items), "items() yields an ID twice"
        return found


class Kit:
    """Base of all parts. A driver's author sets what differs and implements ``open_driver``.

    Whatever a test of the kit fails with, a note says which promise that breaks.
    """

    #: Which group of promises a part is about, as the summary of ``python -m cowshed.testing``
    #: has them.
    group: ClassVar[str] = ""
    #: How the driver is registered: its capabilities and depth gate some cases.
    spec: ClassVar[DriverSpec | None] = None
    #: Whether drivers sync in the kit. A test can't cut the power, and syncing makes it several
    #: times slower, so only the processes that get killed do it by default.
    durable: ClassVar[bool] = False
    #: Whether another process that opens the same root sees the same store.
    processes: ClassVar[bool] = True

    def __init_subclass__(cls, **details: Any) -> None:
        super().__init_subclass__(**details)
        # An author's own tests beside ours say themselves what they are about.
        if cls.__module__.startswith(f"{__package__}."):
            for name, function in list(vars(cls).items()):
                if name.startswith("test_"):
                    setattr(cls, name, _naming_the_promise(function, cls.group))

    @property
    def thorough(self) -> bool:
        """Whether to spend minutes instead of seconds: more examples, longer chains, every step."""
        return is_thorough()

    def open_driver(self, root: Path) -> Driver:
        """Open the driver on ``root``, an existing directory of mode 0700; again after close."""
        raise NotImplementedError

    def can(self, capability: Capability) -> bool:
        """Say whether the driver declares ``capability``."""
        return self.spec is not None and capability in self.spec.capabilities

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """An empty store."""
        root = tmp_path / "driver"
        root.mkdir(mode=0o700)
        store = Store(root, self.open_driver, durable=self.durable)
        yield store
        store.close()


def assert_changes(found: Iterable[Change], expected: list[str], promise: str) -> None:
    """Fail with the promise unless the changes are exactly these, in path order."""
    shown = letters(found)
    assert shown == expected, f"broken promise: {promise}"


def where(kit: Kit) -> str:
    """Say where a kit's class is, for ``kit_at``."""
    file = inspect.getfile(type(kit))
    if os.path.basename(file) == "registered.py" and TESTED_DRIVER in os.environ:
        return os.environ[TESTED_DRIVER]
    return f"{file}::{type(kit).__qualname__}"


def kit_at(place: str) -> Kit:
    """Make a kit of the class at ``"FILE::CLASS"``, whatever pytest calls its module, or of the
    registered driver of that name. The class must be at the top of its module."""
    file, separator, name = place.partition("::")
    if not separator:
        os.environ[TESTED_DRIVER] = place
        file, name = os.path.join(os.path.dirname(__file__), "registered.py"), "TestDriver"
    found: type[Kit] = getattr(_module_at(Path(file)), name)
    return found()


def _module_at(file: Path) -> ModuleType:
    parts, above = [file.stem], file.parent
    while (above / "__init__.py").exists():
        parts.insert(0, above.name)
        above = above.parent
    if len(parts) > 1:  # in a package, so that it may import its neighbours
        if str(above) not in sys.path:
            sys.path.append(str(above))
        return importlib.import_module(".".join(parts))
    spec = importlib.util.spec_from_file_location("kit_under_test", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def is_thorough() -> bool:
    """Say whether a thorough run was asked for."""
    return os.environ.get(THOROUGH, "") not in ("", "0")


def _naming_the_promise(function: Callable[..., None], group: str) -> Callable[..., None]:
    promise = _sentence(function.__name__)

    @functools.wraps(function)
    def test(*arguments: Any, **known: Any) -> None:
        __tracebackhide__ = True
        try:
            function(*arguments, **known)
        except (Exception, pytest.fail.Exception) as error:
            error.add_note(f"broken promise ({group}): {promise}")
            raise

    return test


_SHORT = {"doesnt": "doesn't", "isnt": "isn't", "dont": "don't", "cant": "can't"}


def _sentence(name: str) -> str:
    """Return what the name of a test says."""
    words = name.removeprefix("test_").split("_")
    return " ".join(_SHORT.get(word, word) for word in words)
