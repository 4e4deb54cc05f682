"""Registration of reflink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl


def _load() -> Callable[[Path, Any], Driver]:
    from .driver import Reflink

    return Reflink


def probe(root: Path) -> str | None:
    """Say why files can't share extents at ``root``, or in what it will be made in, or None."""
    import tempfile  # 10 ms, and listing drivers needs none of it

    from .extents import clone

    place = root
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as one, tempfile.TemporaryFile(dir=place) as other:
            one.write(b"shared?" * 1000)  # btrfs holds files below 2 KiB without extents
            one.flush()
            clone(one.fileno(), other.fileno())
    except OSError as error:
        return (
            "it needs a file system whose files can share extents, as XFS and btrfs have them, "
            f"and cloning a file in {place} fails: {error.strerror}"
        )
    return None


SPEC = DriverSpec(
    name="reflink",
    summary="full trees that share extents on XFS and btrfs; a write copies what it touches",
    load=_load,
    capabilities=frozenset(
        {Capability.NATIVE_PATH, Capability.UNPRIVILEGED, Capability.SHARES_EXTENTS}
    ),
    probe=probe,
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register reflink."""
    return [SPEC]
