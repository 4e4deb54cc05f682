"""Links: which names of a directory that is only read belong to one file.

    HOME/diff.links     a JSON list of lists of names; absent if no file has two, or, of a forked
                        container's directory, if nobody has asked yet

The kernel merges names and keeps inodes: two names of a layer's file show one inode, as long as
neither was written to. But how many names are left after those above have covered some it doesn't
say, and ``st_nlink`` counts names in flattened directories as well. So for each directory its
groups of names are written down, and whoever asks looks which of them show the same inode now.
"""

from __future__ import annotations

import json
import os
import stat as stat_module
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from cowshed.native.directories import Directories

LINKS = ".links"

Groups = list[list[str]]


class Links:
    """The groups of several directories of a store, topmost first. Of the first ``frozen`` they may
    not have been written down."""

    def __init__(self, store: str, directories: Sequence[str], frozen: int) -> None:
        self._store = store
        self._directories = directories
        self._frozen = frozen
        self._groups: list[dict[str, list[str]]] | None = None

    def each(self) -> list[dict[str, list[str]]]:
        """Return for each directory the groups by each of their names."""
        if self._groups is None:
            self._groups = [
                {
                    path: group
                    for group in read_groups(
                        os.path.join(self._store, directory), frozen=number < self._frozen
                    )
                    for path in group
                }
                for number, directory in enumerate(self._directories)
            ]
        return self._groups

    def groups_of(self, path: str) -> Iterable[list[str]]:
        """Yield the groups that have the name ``path``."""
        for groups in self.each():
            group = groups.get(path)
            if group is not None:
                yield group


def read_groups(directory: str, *, frozen: bool = False) -> Groups:
    """Return the groups of a directory that nobody changes any more."""
    try:
        with open(directory + LINKS, "rb") as file:
            found: Groups = json.load(file)
            return found
    except FileNotFoundError:
        if not frozen:
            return []
    opened = Directories(directory)
    try:
        groups = [names for names in linked_below(opened).values() if len(names) > 1]
    finally:
        opened.close()
    # Who only reads may not be able to write; then the next one looks again.
    with suppress(OSError):
        write_groups(directory, groups)
    return groups


def write_groups(directory: str, groups: Groups) -> None:
    """Write down the groups of ``directory``."""
    aside = f"{directory}{LINKS}.{os.urandom(4).hex()}"
    with open(aside, "x", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        json.dump(groups, file)
    os.rename(aside, directory + LINKS)


def groups_among(directories: Directories, paths: Iterable[str]) -> Groups:
    """Return which of ``paths`` are names of one file in one directory tree."""
    names: dict[int, list[str]] = {}
    for path in sorted(paths):
        try:
            fd, name = directories.at(path)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not is_whiteout(status) and not stat_module.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, []).append(path)
    return [group for group in names.values() if len(group) > 1]


def linked_below(directories: Directories) -> Mapping[int, list[str]]:
    """Return the names of all files with several links, by inode."""
    found: dict[int, list[str]] = {}
    todo = [""]
    while todo:
        here = todo.pop()
        fd = directories.fd(here)
        for name in os.listdir(fd):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = f"{here}/{name}" if here else name
            if stat_module.S_ISDIR(status.st_mode):
                todo.append(path)
            elif status.st_nlink > 1 and not is_whiteout(status):
                found.setdefault(status.st_ino, []).append(path)
    return found


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether it is how overlayfs marks a name as removed."""
    return stat_module.S_ISCHR(status.st_mode) and status.st_rdev == 0
