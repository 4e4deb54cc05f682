"""Machine: what a run ran on, as far as it bears on the results."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from .results import Machine


def machine(place: Path) -> Machine:
    """Describe this machine, and the file system of ``place``."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=os.uname().release,
        file_system=file_system(place),
        python=platform.python_version(),
        privileged=os.geteuid() == 0,
        load=os.getloadavg()[0],
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def file_system(place: Path) -> str:
    """Return type and source of the mount that ``place`` is in, as ``ext4 on /dev/vda``."""
    status = os.stat(place)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    best, found = -1, "unknown"
    path = os.path.realpath(place)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            head, _, tail = line.partition(" - ")
            fields = head.split()
            kind, source = tail.split()[:2]
            point = fields[4]
            inside = path == point or path.startswith(f"{point.rstrip('/')}/")
            # btrfs shows another device to stat(2) than in its mounts.
            if inside and (fields[2] == device or kind == "btrfs") and len(point) > best:
                best, found = len(point), f"{kind} on {source}"
    return found
