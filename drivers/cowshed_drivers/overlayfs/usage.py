"""What layers and containers take on the disk, and whether it can be read."""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Iterable, Iterator

from cowshed.native.directories import Directories
from cowshed.native.usage import statuses_below

from .stack import DIFF, FLAT


def measure(homes: Iterable[str]) -> tuple[int, int]:
    """Return allocated bytes and number of the inodes that go away with ``homes``.

    Files have names in flattened directories as well, those that stand on them have, which go
    first: they are counted where they came from, and of a flattened directory only the rest.
    """
    bytes_ = inodes = 0
    for home in homes:
        for name in (".", *os.listdir(home)):
            path = os.path.join(home, name)
            if name not in (DIFF, FLAT):
                status = os.lstat(path)
                bytes_ += status.st_blocks * 512
                inodes += 1
                continue
            seen: set[int] = set()
            for status in statuses_below(path):
                if status.st_nlink > 1 and not stat_module.S_ISDIR(status.st_mode):
                    if name == FLAT or status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                bytes_ += status.st_blocks * 512
                inodes += 1
    return bytes_, inodes


def unreadable(directories: Directories) -> Iterator[tuple[str, OSError]]:
    """Read every file of one directory tree; yield those that can't be, and why."""
    todo = [""]
    while todo:
        here = todo.pop()
        fd = directories.fd(here)
        for name in sorted(os.listdir(fd)):
            path = f"{here}/{name}" if here else name
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat_module.S_ISDIR(status.st_mode):
                    todo.append(path)
                elif stat_module.S_ISREG(status.st_mode):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    with open(os.open(name, flags, dir_fd=fd), "rb", buffering=0) as file:
                        while file.read(1 << 20):
                            pass
            except FileNotFoundError:
                continue  # a live container's
            except OSError as error:
                yield path, error
