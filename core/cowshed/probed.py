"""Probed: which drivers were found to work in a shed, until the machine's next boot.

    ROOT/probed/DRIVER    under which circumstances its probe had nothing to say against it

A probe tries what the driver relies on: overlayfs's mounts something, 3 ms and more of every start.
What it depends on is the kernel, our privilege and the file system; where one of them is another
than it was, it is asked again. What it has against a place is never remembered.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .boot import boot_id


def is_known(root: Path, driver: str, drivers: Path) -> bool:
    """Say whether the driver was found to work with its data below ``drivers``, as things are."""
    try:
        return (root / "probed" / driver).read_text("ascii") == _circumstances(drivers)
    except (OSError, ValueError):
        return False


def remember(root: Path, driver: str, drivers: Path) -> None:
    """Keep it for the next process; who can't write there asks the probe again."""
    with suppress(OSError):
        place = root / "probed"
        place.mkdir(mode=0o700, exist_ok=True)
        aside = place / f"{driver}.{os.urandom(4).hex()}"
        aside.write_text(_circumstances(drivers), "ascii")
        os.rename(aside, place / driver)


def _circumstances(drivers: Path) -> str:
    with open("/proc/self/status", "rb") as status:
        privilege = [line for line in status if line.startswith((b"CapEff:", b"Seccomp:"))]
    # A container on this machine has namespaces of its own.
    spaces = [os.stat(f"/proc/self/ns/{one}").st_ino for one in ("user", "mnt")]
    where = os.stat(drivers)
    return repr((boot_id(), os.geteuid(), privilege, spaces, where.st_dev, where.st_ino))
