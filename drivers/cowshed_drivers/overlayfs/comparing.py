"""OverlayComparison: changes are where a container's own directories have something.

A name that none of them has is the layer's, untouched. What they have is compared as it is merged,
byte by byte where all else is equal: being copied up is no change. A directory that hides what was
below it is compared whole.
"""

from __future__ import annotations

import os
import stat as stat_module

from cowshed.entry import join, parent_of
from cowshed.native.comparing import Comparison
from cowshed.native.directories import Directories
from cowshed.native.view import Found, NativeView

from .hosting import OverlayHosting
from .links import linked_below
from .view import OverlayView


class OverlayComparison(Comparison):
    """``close`` it when done."""

    new: OverlayView

    def __init__(self, old: OverlayView | None, new: OverlayView) -> None:
        super().__init__(old, new)
        self._own: list[Directories] = []
        try:
            for directory in new.mounted.stack.own:
                self._own.append(Directories(new.mounted.at(directory), keep=8))
        except BaseException:
            self.close()
            raise
        #: Which of them have a directory at a path; None: it hides what is below.
        self._holders: dict[str, list[Directories] | None] = {"": self._own}

    def close(self) -> None:
        """Let go of descriptors."""
        for directories in self._own:
            directories.close()

    def pairs(self, path: str, *, beside: bool) -> list[tuple[Found | None, Found | None]]:
        holders = self._holders_of(path) if beside else None
        if holders is None or self.old is None:
            return super().pairs(path, beside=beside)
        names: set[str] = set()
        for directories in holders:
            names.update(os.listdir(directories.fd(path)))
        pairs: list[tuple[Found | None, Found | None]] = []
        for name in sorted(names, key=os.fsencode, reverse=True):
            here = join(path, name)
            pair = (_find(self.old, here), _find(self.new, here))
            if pair != (None, None):
                pairs.append(pair)
        return pairs

    def _holders_of(self, path: str) -> list[Directories] | None:
        """Return which of the container's directories have directory ``path``, none of which
        hides what is below it; None if one does."""
        if path in self._holders:
            return self._holders[path]
        above = self._holders_of(parent_of(path))
        found = None if above is None else _holders(above, path, self.new.hosting)
        self._holders[path] = found
        return found

    # -- names of one file ----------------------------------------------------------------------

    def links(self, old: NativeView) -> tuple[dict[str, int], dict[str, int]]:
        """Look at the files that have several names in the container's directories, and at those
        of the layer that have a name there."""
        assert isinstance(old, OverlayView)
        names: set[str] = set()
        for directories in self._own:
            names.update(*linked_below(directories).values())
        for groups in old.lower_groups():
            for path, group in groups.items():
                if path == group[0] and (
                    any(map(self._touched, group)) or not names.isdisjoint(group)
                ):
                    names.update(group)
        return _inodes(old, names), _inodes(self.new, names)

    def _touched(self, path: str) -> bool:
        """Say whether one of the container's directories has something at ``path`` or above it
        that isn't merged with what is below."""
        holders = self._holders_of(parent_of(path))
        if holders is None:
            return True
        for directories in holders:
            fd, name = directories.at(path)
            try:
                os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return True
        return False


def _holders(
    above: list[Directories], path: str, hosting: OverlayHosting
) -> list[Directories] | None:
    found: list[Directories] = []
    for directories in above:
        fd, name = directories.at(path)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat_module.S_ISDIR(status.st_mode):
            return None
        found.append(directories)
        if is_opaque(directories.fd(path), hosting):
            return None
    return found


def is_opaque(directory: int, hosting: OverlayHosting) -> bool:
    """Say whether an open directory of a stack hides those below it."""
    try:
        return os.getxattr(directory, hosting.opaque_name) == b"y"
    except OSError:
        return False


def _find(view: NativeView, path: str) -> Found | None:
    try:
        return view.find(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _inodes(view: NativeView, names: set[str]) -> dict[str, int]:
    return {path: view.inode(found) for path in names if (found := _find(view, path))}
