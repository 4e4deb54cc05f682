"""Stubs: the mount points that an image lacks, there for a run and gone after it.

A runtime mounts /proc, /dev and /etc/resolv.conf over something, and makes what is missing in the
container's layer. We make it before the runtime does, so that we know what it was, put the
directory's time back, and take it away when the run is over. Where links lead is found out inside
the container: /etc/resolv.conf may be a link to anywhere.

While a process runs, the stubs are left out of what ``diff``, ``commit`` and ``export`` see.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .rootfs import Rootfs

if TYPE_CHECKING:
    from ..entry import Change, Entry
    from ..tree import Tree


def make(root: Rootfs, path: str, *, directory: bool) -> list[str]:
    """Make what is missing of ``path``, which has no link in it; return what was made, parents
    first."""
    made: list[str] = []
    parts = path.split("/") if path else []
    for depth in range(1, len(parts) + 1):
        here = "/".join(parts[:depth])
        above, name = "/".join(parts[: depth - 1]), parts[depth - 1]
        parent = root.directory(above)
        try:
            before = os.fstat(parent)
            try:
                if depth < len(parts) or directory:
                    os.mkdir(name, 0o755, dir_fd=parent)
                    os.chmod(name, 0o755, dir_fd=parent)  # whatever the umask
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    descriptor = os.open(name, flags, 0o644, dir_fd=parent)
                    os.fchmod(descriptor, 0o644)
                    os.close(descriptor)
            except FileExistsError:
                continue
            made.append(here)
            os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        finally:
            os.close(parent)
    return made


def clear(root: Rootfs, stubs: Sequence[str]) -> None:
    """Take away what ``make`` made, as far as nobody has put anything into it."""
    for path in reversed(stubs):
        above, _, name = path.rpartition("/")
        with suppress(OSError):
            parent = root.directory(above)
            try:
                before = os.fstat(parent)
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(name, dir_fd=parent)
                elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                    os.unlink(name, dir_fd=parent)
                else:
                    continue
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
            finally:
                os.close(parent)


def remove(tree: Tree, stubs: Sequence[str]) -> None:
    """Take them away as ``clear`` does, in a container that isn't mounted."""
    from ..entry import parent_of

    gone = present(tree, stubs)
    for path in reversed(stubs):
        if path in gone:
            above = parent_of(path)
            kept = tree.stat(above).mtime_ns
            tree.remove_tree(path)
            tree.utime(above, kept)


def present(tree: Tree, stubs: Sequence[str]) -> frozenset[str]:
    """Return the stubs that are still nothing else: empty files, directories of stubs alone."""
    from ..entry import Kind

    found: set[str] = set()
    for path in reversed(stubs):
        with suppress(FileNotFoundError, NotADirectoryError):
            entry = tree.stat(path)
            if entry.kind is Kind.DIRECTORY:
                empty = all(child.path in found for child in tree.scandir(path))
            else:
                empty = entry.kind is Kind.FILE and entry.size == 0
            if empty:
                found.add(path)
    return frozenset(found)


def without(
    changes: Iterable[Change], hidden: Collection[str], below: Callable[[str], Entry | None]
) -> Iterator[Change]:
    """Leave stubs out of ``changes``, and directories that are listed on their account only.

    ``below`` describes a path in the layer that the container stands on.
    """
    from ..entry import ChangeKind, Kind

    above = {path[:index] for path in hidden for index in _slashes(path)}
    waiting: list[Change] = []
    for change in changes:
        path = change.path
        if path in hidden:
            continue
        waiting = [one for one in waiting if not one.path or path.startswith(f"{one.path}/")]
        if (
            path in above
            and change.kind is ChangeKind.MODIFIED
            and change.entry.kind is Kind.DIRECTORY
            and below(path) == change.entry
        ):
            waiting.append(change)
            continue
        yield from waiting
        waiting = []
        yield change


def _slashes(path: str) -> Iterator[int]:
    yield 0
    for index, letter in enumerate(path):
        if letter == "/":
            yield index
