"""Timing: how long each operation of a shed takes.

``COWSHED_TIMING=1``, or in ``cowshed.toml``::

    [plugin.timing]
    enabled = true

prints ``cowshed: import took 1.234 s`` on standard error. Programs that embed Cowshed can have the
figures instead: ``with collect() as timings: …``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from cowshed.hookspecs import hookimpl
from cowshed.shed import Shed

from .settings import boolean, read_settings, settings_of


class Timing(NamedTuple):
    """One operation."""

    operation: str
    seconds: float
    succeeded: bool


_collected: ContextVar[list[Timing] | None] = ContextVar("collected", default=None)


@contextmanager
def collect() -> Generator[list[Timing], None, None]:
    """Gather the timings of operations in this context instead of printing them."""
    timings: list[Timing] = []
    token = _collected.set(timings)
    try:
        yield timings
    finally:
        _collected.reset(token)


def _prints(shed: Shed) -> bool:
    values = settings_of(shed, "timing")
    if values is not None:
        return read_settings("timing", values, {"enabled": boolean}).get("enabled", True)
    return os.environ.get("COWSHED_TIMING", "") not in ("", "0")


@hookimpl(wrapper=True, tryfirst=True)
def cowshed_operation(
    shed: Shed, operation: str, details: Mapping[str, Any]
) -> Generator[None, Any, Any]:
    """Measure everything that other plugins do around the operation too."""
    del details
    timings = _collected.get()
    prints = timings is None and _prints(shed)
    if timings is None and not prints:
        return (yield)
    begun = time.perf_counter()
    succeeded = False
    try:
        result = yield
        succeeded = True
        return result
    finally:
        seconds = time.perf_counter() - begun
        if timings is not None:
            timings.append(Timing(operation, seconds, succeeded))
        else:
            outcome = "took" if succeeded else "failed after"
            print(f"cowshed: {operation} {outcome} {seconds:.3f} s", file=sys.stderr)
