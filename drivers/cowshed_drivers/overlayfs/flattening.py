"""Flattening: several directories of a stack become one, of hard links.

What is only read never changes, so its files can have names in several directories. A chain's
layers become a whole tree; what a container had when it was forked, many times over, becomes one
directory that still says what it hides in the layers below it.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Sequence

import attrs

from cowshed.entry import join
from cowshed.native.cloning import copy_attributes, copy_object
from cowshed.native.directories import Directories

from .comparing import is_opaque
from .hosting import OverlayHosting
from .links import groups_among, is_whiteout, read_groups, write_groups
from .records import read_extras, write_extras


@attrs.define
class _Merged:
    """One directory: which sources hold it, topmost first, and whether more may follow."""

    sources: list[int]
    closed: bool


class Flattener:
    """Merges ``sources``, topmost first, into the empty directory ``target``.

    ``whole``: there is nothing below them, so that nothing need be hidden any more. The first
    ``frozen`` of them were containers' own.
    """

    def __init__(
        self,
        sources: Sequence[str],
        target: str,
        hosting: OverlayHosting,
        *,
        whole: bool,
        frozen: int = 0,
    ) -> None:
        self._paths = sources
        self._target_path = target
        self._hosting = hosting
        self._whole = whole
        self._frozen = frozen
        self._sources: list[Directories] = []
        self._target = Directories(target)
        #: First name of a copy, by the inode that couldn't have more links.
        self._copied: dict[int, str] = {}
        try:
            for source in sources:
                self._sources.append(Directories(source, keep=2))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of descriptors."""
        for directories in (*self._sources, self._target):
            directories.close()

    def run(self) -> None:
        """Merge, and write down what belongs to the merged directory."""
        todo = [("", _Merged(list(range(len(self._sources))), False))]
        while todo:
            path, merged = todo.pop()
            found = self._merge(path, merged)
            todo.extend((join(path, name), below) for name, below in found.items())
        names = {
            path
            for number, source in enumerate(self._paths)
            for group in read_groups(source, frozen=number < self._frozen)
            for path in group
        }
        groups = groups_among(self._target, names)
        if groups or not self._whole:
            write_groups(self._target_path, groups)
        write_extras(self._target_path, read_extras(self._paths))

    def _merge(self, path: str, merged: _Merged) -> dict[str, _Merged]:
        """Fill directory ``path`` of the target; return the directories in it."""
        target = self._target.fd(path)
        seen: set[str] = set()
        below: dict[str, _Merged] = {}
        for number in merged.sources:
            source = self._sources[number]
            fd = source.fd(path)
            for name in os.listdir(fd):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                directory = stat_module.S_ISDIR(status.st_mode)
                known = below.get(name)
                if known is not None:
                    if directory and not known.closed:
                        known.sources.append(number)
                        known.closed = self._hides(source, join(path, name))
                    else:
                        known.closed = True
                elif name not in seen:
                    seen.add(name)
                    if directory:
                        os.mkdir(name, 0o700, dir_fd=target)
                        below[name] = _Merged([number], self._hides(source, join(path, name)))
                    elif not (self._whole and is_whiteout(status)):
                        self._link(fd, name, target, path, status)
        self._describe(self._sources[merged.sources[0]].fd(path), target, hides=merged.closed)
        return below

    def _hides(self, source: Directories, path: str) -> bool:
        return is_opaque(source.fd(path), self._hosting)

    def _describe(self, source: int, target: int, *, hides: bool) -> None:
        copy_attributes(source, target)
        prefix = f"{self._hosting.namespace}.overlay."
        for name in os.listxattr(target):
            if name.startswith(prefix):
                os.removexattr(target, name)
        if hides and not self._whole:
            os.setxattr(target, self._hosting.opaque_name, b"y")

    def _link(
        self, fd: int, name: str, target: int, directory: str, status: os.stat_result
    ) -> None:
        try:
            os.link(name, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
        else:
            return
        first = self._copied.get(status.st_ino)
        if first is None:
            copy_object(fd, name, target, name)
            self._copied[status.st_ino] = join(directory, name)
            return
        first_fd, first_name = self._target.at(first)
        os.link(first_name, name, src_dir_fd=first_fd, dst_dir_fd=target, follow_symlinks=False)
