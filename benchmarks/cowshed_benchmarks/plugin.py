"""Registration of ``cowshed bench``."""

from __future__ import annotations

from cowshed.hookspecs import hookimpl


@hookimpl
def cowshed_register_commands() -> dict[str, str]:
    """Register the command."""
    return {"bench": "cowshed_benchmarks.command:bench"}
