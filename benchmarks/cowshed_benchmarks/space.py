"""Space: what a directory takes on disk, and making it go away whatever it holds.

Counted by walking, each inode once, so that nobody else's writes are among it; a file system whose
files share extents counts those for each file, so a driver that shares them is asked instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Space:
    """What is allocated below a directory."""

    bytes: int = 0
    inodes: int = 0


def space(root: Path) -> Space:
    """Return what is allocated on the file system of ``root`` below it, mounts left out."""
    device = os.lstat(root).st_dev
    seen: set[int] = set()
    total = 0
    waiting = [os.fspath(root)]
    while waiting:
        above = waiting.pop()
        try:
            found = [os.lstat(above)]
            with os.scandir(above) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        found.append(status)
                    elif status.st_dev == device:
                        waiting.append(entry.path)  # counted when it is looked into
        except OSError:
            continue  # gone meanwhile, or not ours to look into
        for status in found:
            if status.st_dev == device and status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return Space(total, len(seen))


def on_disk(root: Path) -> int:
    """Return the bytes allocated below ``root``, each inode once, as ``du`` counts."""
    return space(root).bytes


def clear(directory: Path) -> None:
    """Remove a directory, whatever modes its directories have and whatever is mounted in it."""
    unmount_below(directory)

    def once_more(function: Callable[..., Any], path: str, error: Any) -> None:
        for locked in (os.path.dirname(path), path):
            with contextlib.suppress(OSError):
                if not os.path.islink(locked):
                    os.chmod(locked, 0o700)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        except OSError:
            pass

    if os.path.lexists(directory):
        # btrfs subvolumes are directories that rmdir(2) removes too.
        shutil.rmtree(directory, onerror=once_more)


def unmount_below(directory: Path) -> None:
    """Take away every mount below ``directory``, and on it."""
    for point in reversed(mounts_below(directory)):
        for attempt in range(20):
            lazy = ["--lazy"] if attempt == 19 else []
            if _umount(*lazy, point):
                break
            time.sleep(0.05)


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points at and below ``directory``, in the order of mounting."""
    above = os.path.realpath(directory)
    points: list[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            point = line.split()[4].encode("utf-8", "surrogateescape")
            path = point.decode("unicode_escape").encode("latin-1")
            name = os.fsdecode(path)
            if name == above or name.startswith(f"{above}/"):
                points.append(name)
    return points


def _umount(*arguments: str) -> bool:
    command = [shutil.which("umount", path=f"{os.environ.get('PATH', '')}:/bin:/sbin") or "umount"]
    done = subprocess.run([*command, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0
