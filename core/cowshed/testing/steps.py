"""Steps: calls put off, whose ``repr`` is what one would write in a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs


class Call:
    """A call put off, whose ``repr`` is what one would write in a script."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self._function = function
        self._arguments = arguments
        self._named = named

    def __repr__(self) -> str:
        return f"{self._function.__name__}({_listed(self._arguments, self._named)})"

    def __call__(self) -> Any:
        arguments = [made(argument) for argument in self._arguments]
        return self._function(*arguments, **self._named)


def made(argument: Any) -> Any:
    """Return what a call put off returns, and anything else as it is."""
    return argument() if isinstance(argument, Call) else argument


def _listed(arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    return ", ".join(
        [*map(repr, arguments), *(f"{name}={value!r}" for name, value in named.items())]
    )


@attrs.frozen
class Step:
    """One call of a method of ``Pair``."""

    method: str
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = attrs.field(factory=dict[str, Any])

    def __str__(self) -> str:
        return f"pair.{self.method}({_listed(self.arguments, self.named)})"
