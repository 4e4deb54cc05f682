"""Register: what plugins bring, by name: drivers, transports, commands.

A name that two plugins claim, and a spec that breaks the interface, take nothing else down: they
are kept with the reason, which is told wherever the register is listed and to whoever asks for that
name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .errors import CowshedError, DriverError, NotFoundError, PluginError

if TYPE_CHECKING:
    from .driver import DriverSpec
    from .transport import TransportSpec

#: A driver's name is a directory's as well.
_NAMES = {
    "driver": (
        re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"),
        "lower-case letters and digits in words joined by hyphens",
    )
}
_WORD = (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*"), "letters, digits and any of _ . + -")
_LONGEST_NAME = 64


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Spec = TypeVar("Spec", bound=_Named)


class Register(dict[str, Spec]):
    """The specs that can be used. ``check`` says what is wrong with one, or None."""

    def __init__(
        self, kind: str, type_: type[Any], check: Callable[[Any], str | None] = lambda spec: None
    ) -> None:
        super().__init__()
        self._kind = kind
        self._type = type_
        self._check = check
        self._plugins: dict[str, str] = {}
        #: Name → why nobody gets it, because two plugins claim it.
        self.clashes: dict[str, str] = {}
        #: Name → how what was registered breaks the interface.
        self.refused: dict[str, str] = {}

    def add(self, plugin: str, spec: object) -> str | None:
        """Take one spec; return what is wrong with it, or None."""
        if not isinstance(spec, self._type):
            return f"registered {spec!r:.200} as a {self._kind}, which is no {self._type.__name__}"
        checked = cast(Spec, spec)
        claimed = cast(object, checked.name)
        problem = name_problem(self._kind, claimed)
        # A name that isn't one is shown as what it is, and never looked up.
        name = claimed if isinstance(claimed, str) else repr(claimed)
        if name in self._plugins:
            return self._clash(name, plugin)
        self._plugins[name] = plugin
        problem = problem or self._check(checked)
        if problem:
            self.refused[name] = problem
            return f"{self._kind} {name} refused: {problem}"
        self[name] = checked
        return None

    def _clash(self, name: str, plugin: str) -> str:
        other = self._plugins[name]
        if other == plugin:
            claim = f"is claimed twice by {plugin}"
        else:
            claim = f"is claimed by both {other} and {plugin}; disable one with disabled_plugins"
        self.clashes.setdefault(name, f"{self._kind} {name!r} {claim}")
        self.pop(name, None)
        self.refused.pop(name, None)
        return self.clashes[name]

    def plugin_of(self, name: str) -> str:
        """Return the name of the plugin that brought ``name``, the first where several did."""
        return self._plugins[name]

    def every_name(self) -> list[str]:
        """Return all names, of what can't be used too."""
        return sorted(self._plugins)

    def find(self, name: str) -> Spec:
        """Return the spec of that name.

        Raises:
            NotFoundError: there is none; the message suggests the nearest name.
            PluginError: two plugins claim it.
            DriverError: it breaks the interface (PluginError for all but drivers).
        """
        found = self.get(name)
        if found is not None:
            return found
        raise self._why_not(name)

    def _why_not(self, name: str) -> CowshedError:
        if name in self.clashes:
            return PluginError(self._plugins[name], self.clashes[name])
        if name in self.refused:
            if self._kind == "driver":
                return DriverError(name, self.refused[name])
            reason = f"{self._kind} {name} refused: {self.refused[name]}"
            return PluginError(self._plugins[name], reason)
        return NotFoundError(self._kind, name, known=self)


def name_problem(kind: str, name: object) -> str | None:
    """Say why ``name`` can't be the name of a driver, transport or command; None if it can."""
    if not isinstance(name, str):
        return f"its name is {type(name).__name__}, not a string"
    pattern, form = _NAMES.get(kind, _WORD)
    if not pattern.fullmatch(name) or len(name) > _LONGEST_NAME:
        return f"its name must be {form}, {_LONGEST_NAME} at most, not {name!r:.100}"
    return None


def transport_problem(spec: TransportSpec) -> str | None:
    """Say how ``spec`` breaks the interface; None if it doesn't. Its name is checked elsewhere."""
    return common_problem(spec, "load")


def common_problem(spec: DriverSpec | TransportSpec, *functions: str) -> str | None:
    """Say what is wrong with what all specs have, and with those of ``functions`` this one has."""
    summary = cast(object, spec.summary)
    if not isinstance(summary, str):
        return f"its summary is {type_name(summary)}, not a string"
    for name in functions:
        if not callable(getattr(spec, name)):
            return f"its {name} is {type_name(getattr(spec, name))}, not a function"
    return None


def type_name(value: object) -> str:
    """Return what ``value`` is, for a message."""
    return "None" if value is None else type(value).__name__
