"""Failures: every exception becomes one line on standard error and an exit status.

1 for what couldn't be done, 2 for a wrong call, 130 after Ctrl-C, 141 where the reader of the
output went away (what a shell reports for SIGPIPE). ``COWSHED_DEBUG=1`` adds the traceback.
"""

from __future__ import annotations

import contextlib
import errno
import sys

import click

from ..errors import CowshedError
from .output import discard_output, escaped

INTERRUPTED = 130
BROKEN_PIPE = 141


def report(error: BaseException) -> int:
    """Say what ``error`` means and return the exit status for it."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        return BROKEN_PIPE
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(f"{error.format_message()}\n")
        return 2
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    text, status = explain(error)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"cowshed: {text}\n")
    return status


def explain(error: BaseException) -> tuple[str, int]:
    """Return the one line for ``error`` and its exit status."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(error, CowshedError):
        return _flat(str(error)), error.exit_status
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else "cowshed"
        hint = f"; see '{where} --help'"
        return _flat(error.format_message()).rstrip(".") + hint, error.exit_code
    if isinstance(error, click.ClickException):
        return _flat(error.format_message()), error.exit_code
    if isinstance(error, OSError):
        return _os_error(error), 1
    if isinstance(error, MemoryError):
        return "out of memory", 1
    return (
        f"internal error, please report it: {type(error).__name__}: {_flat(str(error))} "
        "(COWSHED_DEBUG=1 shows where)"
    ), 1


def _os_error(error: OSError) -> str:
    names = [
        escaped(name if isinstance(name, str) else repr(name))
        for name in (error.filename, error.filename2)
        if name is not None
    ]
    where = f"{' → '.join(names)}: " if names else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full: {where}{error.strerror}; 'cowshed gc' may give some back"
    return f"{where}{error.strerror or _flat(str(error)) or type(error).__name__}"


def _flat(text: str) -> str:
    return escaped(" ".join(text.split()))
