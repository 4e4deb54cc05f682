"""``python -m cowshed``, and what the installed command runs."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading


def command() -> int:
    """Run one command and return its exit status.

    The garbage collector is kept from looking through modules again and again while they are
    imported, and once more when the process ends: a sixth of what a short command takes.
    """
    gc.set_threshold(50_000, 20, 20)
    from .cli.main import main

    status = main()
    gc.freeze()
    _end(status)
    return status


def _end(status: int) -> None:
    """End at once, unless somebody still works here.

    To take 300 modules apart takes the interpreter 10 ms, a tenth of a short command.
    """
    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # it has no other name
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it was closed
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


if __name__ == "__main__":
    sys.exit(command())
