"""Quota: refuses what would make a shed grow beyond bounds.

.. code-block:: toml

    [plugin.quota]
    max_bytes = "20 GB"
    max_containers = 1000
    max_images = 50

Containers and images are counted in the catalog. ``max_bytes`` is what the shed takes on disk, and
is looked at before ``import``, ``create``, ``commit`` and ``fork``: what is being made isn't known
yet, so the last one may go over. Measuring walks the shed's directory, so it isn't done without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cowshed.hookspecs import hookimpl
from cowshed.shed import Shed

from .settings import byte_count, number, read_settings, settings_of

_CONTAINERS = ("create", "fork")
_IMAGES = ("import", "commit")


@hookimpl
def cowshed_veto(shed: Shed, operation: str, details: Mapping[str, Any]) -> str | None:
    """Refuse what goes over a configured bound."""
    values = settings_of(shed, "quota")
    if values is None or operation not in (*_CONTAINERS, *_IMAGES):
        return None
    limits = read_settings(
        "quota",
        values,
        {"max_bytes": byte_count, "max_containers": number, "max_images": number},
    )
    if operation in _CONTAINERS and "max_containers" in limits:
        most, more = limits["max_containers"], int(details.get("count", 1))
        with shed.catalog.read() as transaction:
            have = transaction.count("containers")
        if have + more > most:
            return (
                f"the quota allows {most} containers, there are {have}; remove some with 'rm' "
                "or raise max_containers"
            )
    if operation in _IMAGES and "max_images" in limits:
        most = limits["max_images"]
        with shed.catalog.read() as transaction:
            have = transaction.count("images")
        if have >= most:
            return (
                f"the quota allows {most} images, there are {have}; remove some with 'rmi' "
                "or raise max_images"
            )
    if "max_bytes" in limits:
        most, have = limits["max_bytes"], shed.disk_usage()
        if have >= most:
            return (
                f"the quota allows {most:,} bytes, the shed takes {have:,}; remove something and "
                "run 'gc', or raise max_bytes"
            )
    return None
