"""Files: what workloads do in a container, through a ``Tree`` or in a directory.

Both ways do the same steps in the same order. Nothing here follows a symbolic link.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from cowshed.tree import Tree

_BLOCK = 1 << 20
#: The directory in which workloads put files.
WRITTEN = "cowshed-bench"
WHEN_NS = 1_700_000_000 * 10**9


class Files(Protocol):
    """A container's files."""

    def read_all(self) -> int:
        """Read every regular file from start to end; return how many bytes."""
        ...

    def stat_all(self) -> int:
        """Look at every object; return how many there are."""
        ...

    def overwrite(self, path: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces into an existing file at their offsets."""
        ...

    def unpack(self, directory: str, files: Sequence[tuple[str, bytes]]) -> None:
        """Put files below a new directory, as package managers do: each is written under another
        name, gets its mode and time, and is renamed. Directories are made as needed."""
        ...

    def remove(self, directory: str) -> None:
        """Remove a directory with all that is in it."""
        ...


@attrs.frozen
class TreeFiles:
    """Through Cowshed's ``Tree``."""

    tree: Tree

    def read_all(self) -> int:
        from cowshed.entry import Kind

        total = 0
        for entry in self.tree.walk():
            if entry.kind is Kind.FILE:
                with self.tree.open(entry.path) as file:
                    while piece := file.read(_BLOCK):
                        total += len(piece)
        return total

    def stat_all(self) -> int:
        return sum(1 for _ in self.tree.walk())

    def overwrite(self, path: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        with self.tree.open(path, "r+b") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)

    def unpack(self, directory: str, files: Sequence[tuple[str, bytes]]) -> None:
        tree = self.tree
        tree.mkdir(directory)
        made = {directory}
        for name, data in files:
            path = f"{directory}/{name}"
            for above in _above(directory, name):
                if above not in made:
                    tree.mkdir(above)
                    made.add(above)
            aside = f"{path}.new"
            with tree.open(aside, "xb") as file:
                file.write(data)
            tree.chmod(aside, 0o644)
            tree.utime(aside, WHEN_NS)
            tree.rename(aside, path)

    def remove(self, directory: str) -> None:
        self.tree.remove_tree(directory)


@attrs.frozen
class NativeFiles:
    """In a directory, by system calls."""

    root: Path

    def read_all(self) -> int:
        total = 0
        buffer = bytearray(_BLOCK)
        for entry in _walk(self.root):
            if entry.is_file(follow_symlinks=False):
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    while count := os.readv(descriptor, [buffer]):
                        total += count
                finally:
                    os.close(descriptor)
        return total

    def stat_all(self) -> int:
        count = 1
        for entry in _walk(self.root):
            entry.stat(follow_symlinks=False)
            count += 1
        return count

    def overwrite(self, path: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        descriptor = os.open(self.root / path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            for offset, data in pieces:
                os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)

    def unpack(self, directory: str, files: Sequence[tuple[str, bytes]]) -> None:
        root = os.fspath(self.root)
        os.mkdir(f"{root}/{directory}")
        made = {directory}
        for name, data in files:
            path = f"{root}/{directory}/{name}"
            for above in _above(directory, name):
                if above not in made:
                    os.mkdir(f"{root}/{above}")
                    made.add(above)
            aside = f"{path}.new"
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, data)
                os.fchmod(descriptor, 0o644)
                os.utime(descriptor, ns=(WHEN_NS, WHEN_NS))
            finally:
                os.close(descriptor)
            os.rename(aside, path)

    def remove(self, directory: str) -> None:
        from ..space import clear

        clear(self.root / directory)


def _above(directory: str, name: str) -> list[str]:
    """Return the directories between ``directory`` and the file ``name`` in it, outermost first."""
    parts = name.split("/")[:-1]
    return [f"{directory}/{'/'.join(parts[: depth + 1])}" for depth in range(len(parts))]


def _walk(root: Path) -> Iterable[os.DirEntry[str]]:
    waiting = [os.fspath(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
