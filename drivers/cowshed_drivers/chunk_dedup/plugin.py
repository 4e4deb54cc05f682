"""Registers chunk-dedup; light, so that listing drivers imports neither LMDB nor zstd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.hookspecs import hookimpl

from .options import Options

CAPABILITIES = frozenset(
    {
        Capability.UNPRIVILEGED,
        Capability.INSTANT_PREPARE,
        Capability.INSTANT_FORK,
        Capability.NATIVE_CHANGES,
        Capability.SHARES_CHUNKS,
        Capability.COMPRESSES,
        Capability.VERIFIES_READS,
    }
)

#: What statfs(2) calls the network file systems on which LMDB's shared map is not coherent.
_UNFIT = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph"})


def _load() -> Callable[[Path, Any], Driver]:
    # Imported here: lmdb, zstandard and pyfastcdc take about 40 ms together.
    from .driver import ChunkDedup

    return ChunkDedup


def probe(root: Path) -> str | None:
    """Say why the driver can't keep its data at ``root``, or None."""
    place = _mount_type(root)
    if place in _UNFIT:
        return f"its index needs a local file system, and {root} is on {place}"
    return None


def _mount_type(root: Path) -> str:
    """Return the type of the file system that holds ``root``; empty if it can't be told."""
    where = os.path.realpath(root)
    best, found = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                point, kind = line.split()[1:3]
                inside = where == point or where.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, found = point, kind
    except OSError:
        return ""
    return found


SPEC = DriverSpec(
    name="chunk-dedup",
    summary="chunks stored once, compressed in packs; constant-time containers and forks",
    load=_load,
    capabilities=CAPABILITIES,
    probe=probe,
    options=Options,
)


@hookimpl
def cowshed_register_drivers() -> list[DriverSpec]:
    """Register chunk-dedup."""
    return [SPEC]
