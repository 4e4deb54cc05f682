"""The floor: what the least that could be done would cost, in bare system calls.

Not a store: an import copies files that are unpacked already, a container is a record of 200 bytes
in a file, and writing goes into the only copy there is. Whoever comes near it wastes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ..space import clear
from .actor import Actor
from .files import WRITTEN, Files, NativeFiles

_RECORD = b"container ".ljust(199, b".") + b"\n"


class Floor(Actor):
    """Bare system calls."""

    name = "floor"
    cannot: ClassVar[Mapping[str, str]] = {
        "diff": "no system call tells two trees apart",
        "commit": "no system call makes an image",
        "mount": "it has nothing to mount: see the same work without",
    }

    def ready(self, tag: str) -> None:
        self.material.tree(tag)

    def import_image(self, tag: str) -> None:
        _copy(os.fspath(self.material.tree(tag)), os.fspath(self.store / tag))

    def remove_image(self, tag: str) -> None:
        clear(self.store / tag)

    def create(self, tag: str, count: int = 1) -> list[str]:
        self._record(count)
        return [tag] * count  # they all write in the same place, one after the other

    def _record(self, count: int) -> None:
        descriptor = os.open(self.store / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, _RECORD * count)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, containers: Sequence[str]) -> None:
        self._record(len(containers))
        for tag in {*containers}:
            written = self.store / tag / WRITTEN
            if written.exists():
                clear(written)

    def fork(self, container: str) -> str:
        self._record(1)
        return container

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        yield NativeFiles(self.store / container)

    def something_to_export(self, tag: str) -> str:
        return tag

    def export(self, container: str, out: Path) -> None:
        """One file after the other, without a word of what is what."""
        buffer = bytearray(1 << 20)
        waiting = [os.fspath(self.store / container)]
        target = os.open(out, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while waiting:
                for entry in os.scandir(waiting.pop()):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        source = os.open(entry.path, os.O_RDONLY)
                        while count := os.readv(source, [buffer]):
                            os.write(target, memoryview(buffer)[:count])
                        os.close(source)
        finally:
            os.close(target)


def _copy(source: str, target: str) -> None:
    os.mkdir(target)
    for entry in os.scandir(source):
        path = f"{target}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            _copy(entry.path, path)
        elif entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_file(follow_symlinks=False):
            reading = os.open(entry.path, os.O_RDONLY)
            writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            while _move(reading, writing):
                pass
            os.close(reading)
            os.close(writing)


def _move(reading: int, writing: int) -> int:
    """Let the kernel copy what comes next, up to a gigabyte; return how much it was."""
    try:
        return os.copy_file_range(reading, writing, 1 << 30)
    except OSError:  # from another file system
        return os.sendfile(writing, reading, None, 1 << 30)
