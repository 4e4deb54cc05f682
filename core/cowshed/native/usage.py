"""Counting allocated bytes: what a directory of the hosting file system really takes."""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Iterator

from .directories import Directories


def statuses_below(directory: str) -> Iterator[os.stat_result]:
    """Yield the status of ``directory`` and of every name below it; what vanishes is left out."""
    directories = Directories(directory)
    try:
        yield os.fstat(directories.root)
        todo = [""]
        while todo:
            path = todo.pop()
            try:
                fd = directories.fd(path)
                names = os.listdir(fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat_module.S_ISDIR(status.st_mode):
                    todo.append(f"{path}/{name}" if path else name)
                yield status
    finally:
        directories.close()


def allocated_below(directory: str) -> int:
    """Return the bytes on disk below ``directory``, every inode once."""
    seen: set[int] = set()
    total = 0
    for status in statuses_below(directory):
        if status.st_nlink > 1 and not stat_module.S_ISDIR(status.st_mode):
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        total += status.st_blocks * 512
    return total


def own_inodes(home: str, links_elsewhere: int) -> tuple[int, int]:
    """Return allocated bytes and number of the inodes that go away with the tree in ``home``.

    That is those with at most ``links_elsewhere`` names outside of ``home``.
    """
    names: dict[int, int] = {}
    candidates: dict[int, os.stat_result] = {}
    bytes_ = inodes = 0
    for status in statuses_below(home):
        if status.st_nlink == 1 or stat_module.S_ISDIR(status.st_mode):
            bytes_ += status.st_blocks * 512
            inodes += 1
        else:
            names[status.st_ino] = names.get(status.st_ino, 0) + 1
            candidates[status.st_ino] = status
    for inode, status in candidates.items():
        if status.st_nlink <= names[inode] + links_elsewhere:
            bytes_ += status.st_blocks * 512
            inodes += 1
    return bytes_, inodes
