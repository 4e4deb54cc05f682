"""A plugin whose driver copies as naive-copy does, and fails at some of it in several ways."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, DriverSpec
from cowshed.hookspecs import hookimpl


def _load() -> Callable[[Path, Any], Any]:
    from cowshed_drivers.naive_copy.driver import NaiveCopy

    class Failing(NaiveCopy):
        def changes(self, *arguments: Any, **more: Any) -> Iterator[Any]:
            raise RuntimeError("its ledger is\nupside down")

        def fork(self, *arguments: Any, **more: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

    return Failing


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    return [
        DriverSpec(
            name="failing",
            summary="fails",
            load=_load,
            capabilities=frozenset({Capability.NATIVE_PATH, Capability.UNPRIVILEGED}),
        )
    ]
