"""Places: where subjects keep their data, if need be on a file system of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .space import unmount_below

#: How each kind is made, and the Debian package that brings the program.
MAKE = {
    "xfs": (("mkfs.xfs", "-q", "-m", "reflink=1"), "xfsprogs"),
    "btrfs": (("mkfs.btrfs", "-q"), "btrfs-progs"),
    "ext4": (("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"), "e2fsprogs"),
}
#: Sparse: only what is written takes room on the disk below.
SIZE = 64 << 30


class PlaceError(Exception):
    """Such a file system can't be had here; the message says why."""


def why_not(kind: str) -> str:
    """Say why a file system of that kind can't be made here; nothing if it can."""
    command, package = MAKE[kind]
    if os.geteuid() != 0:
        return f"mounting {kind} from a file takes root"
    if _tool(command[0]) is None:
        return f"{command[0]} is not installed (package {package})"
    return ""


@contextmanager
def loop_mounted(kind: str, directory: Path) -> Generator[Path]:
    """Mount a new file system of that kind from a file in ``directory`` while in the context.

    Raises:
        PlaceError: it can't be.
    """
    if reason := why_not(kind):
        raise PlaceError(reason)
    command, _ = MAKE[kind]
    image, place = directory / f"{kind}.image", directory / kind
    place.mkdir(parents=True)
    try:
        with image.open("xb") as file:
            file.truncate(SIZE)
        _run(_tool(command[0]) or command[0], *command[1:], str(image))
        # discard: what is removed in it is given back to the disk below.
        mount = _tool("mount") or "mount"
        _run(mount, "-t", kind, "-o", "loop,discard", str(image), str(place))
        yield place
    finally:
        unmount_below(place)
        image.unlink(missing_ok=True)
        place.rmdir()


def _tool(name: str) -> str | None:
    # Not on everybody's PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise PlaceError(f"{os.path.basename(command[0])}: {lines[-1]}")
