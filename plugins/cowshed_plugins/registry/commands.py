"""Registers ``cowshed referrers``, apart from the transport: help asks for commands alone."""

from __future__ import annotations

from cowshed.hookspecs import hookimpl


@hookimpl
def cowshed_register_commands() -> dict[str, str]:
    """Register the command."""
    return {"referrers": "cowshed_plugins.registry.referrers_command:referrers_command"}
