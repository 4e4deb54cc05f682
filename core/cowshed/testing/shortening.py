"""Shortening: from a failing history to the few steps that fail, as a script.

Steps name what they are about, so any of them can be left out and the rest still means the same.
"""

from __future__ import annotations

import pytest

from .kit import Kit, where
from .pair import Pair
from .steps import Step


def script(kit: Kit, steps: list[Step]) -> str:
    """Return steps as one would write them."""
    lines = ["from cowshed.testing.pair import *", "", f"pair = Pair({where(kit)!r})"]
    return "\n".join([*lines, *map(str, steps), ""])


def failure_of(kit: Kit, steps: list[Step]) -> BaseException | None:
    """Return how these steps fail, or None."""
    pair = Pair(kit)
    try:
        for step in steps:
            getattr(pair, step.method)(*step.arguments, **step.named)
    except (Exception, pytest.fail.Exception) as error:
        return error
    finally:
        pair.close()
    return None


def shorten(kit: Kit, steps: list[Step], failure: BaseException) -> list[Step]:
    """Leave out what isn't needed for the same failure, many steps at once, then each."""
    wanted = _gist(failure)
    size = len(steps) // 2
    while size:
        end = len(steps)
        while end > 0:
            fewer = steps[: max(0, end - size)] + steps[end:]
            found = failure_of(kit, fewer)
            if found is not None and _gist(found) == wanted:
                steps = fewer
            end -= size
        size //= 2
    return steps


def _gist(error: BaseException) -> tuple[object, ...]:
    """Return what makes two failures the same: the promise, not its details."""
    if isinstance(error, OSError):
        return type(error), error.errno
    return type(error), (str(error).splitlines() or [""])[0]
