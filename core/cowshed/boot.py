"""Boot: which run of the machine this is, and how long it has been.

Unlike the clock's, neither can be set.
"""

from __future__ import annotations

import time


def boot_id() -> str:
    """Return the ID of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def since_boot_ns() -> int:
    """Return the time since then, in which the kernel says when a process was started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
