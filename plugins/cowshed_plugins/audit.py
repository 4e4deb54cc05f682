"""Audit: one line of JSON for every operation, appended to a file.

.. code-block:: toml

    [plugin.audit]
    file = "/var/log/cowshed.jsonl"
    durable = true        # on disk before the operation's result is given; false by default

or ``COWSHED_AUDIT=FILE``. A line holds ``time`` (RFC 3339, UTC, when it began), ``operation``,
``details``, ``outcome`` (``done`` or the error's class), ``error``, ``seconds``, ``user``, ``uid``,
``pid`` and ``root``. Each line is one ``write`` on a descriptor opened with O_APPEND, so that lines
of several processes never mix. An audit that can't be written fails the operation before it begins.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

from cowshed.errors import ConfigError
from cowshed.hookspecs import hookimpl
from cowshed.shed import Shed

from .settings import boolean, read_settings, settings_of, text


def _file(shed: Shed) -> tuple[str, bool] | None:
    """Return the file and whether it must be durable; None: nobody wants an audit."""
    values = settings_of(shed, "audit")
    if values is None:
        named = os.environ.get("COWSHED_AUDIT")
        return (named, False) if named else None
    options: dict[str, str | bool] = read_settings(
        "audit", values, {"file": text, "durable": boolean}
    )
    if "file" not in options:
        raise ConfigError("file is missing: where should the lines go?", "[plugin.audit]")
    return os.path.expanduser(str(options["file"])), bool(options.get("durable", False))


@hookimpl(wrapper=True)
def cowshed_operation(
    shed: Shed, operation: str, details: Mapping[str, Any]
) -> Generator[None, Any, Any]:
    """Note what was asked, how it ended and how long it took."""
    target = _file(shed)
    if target is None:
        return (yield)
    path, durable = target
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"can't write the audit to {path}: {error.strerror}") from error
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(),
        "operation": operation,
        "details": dict(details),
        "outcome": "done",
        "error": "",
    }
    begun = time.perf_counter()
    try:
        return (yield)
    except BaseException as error:
        record["outcome"] = type(error).__name__
        record["error"] = str(error)
        raise
    finally:
        record["seconds"] = round(time.perf_counter() - begun, 6)
        record |= {"user": _user(), "uid": os.getuid(), "pid": os.getpid()}
        record["root"] = str(shed.root)
        try:
            os.write(descriptor, json.dumps(record, default=str).encode("ascii") + b"\n")
            if durable:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _user() -> str:
    """Return who is behind it: the account that sudo was called from, where it was."""
    sudo = os.environ.get("SUDO_USER")
    if sudo and os.getuid() == 0:
        return sudo
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
