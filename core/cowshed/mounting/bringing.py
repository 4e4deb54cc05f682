"""Bringing: one step after the other, from an upper directory into a container's tree."""

from __future__ import annotations

import io
import os
import stat as stat_module
import time
from contextlib import suppress
from typing import Literal, NamedTuple

import attrs

from ..entry import Entry, Kind
from ..native.directories import Directories
from ..tree import Tree
from .filling import sign_of
from .format import Format, below
from .memo import Sign
from .siblings import Siblings

#: Before Linux 6.13 a ctime moves with the clock's tick; two changes within one look like one.
_TICK_NS = 20_000_000
#: Files with holes are copied by what is between them from this size.
_SPARSE = 1 << 20
_PIECE = 1 << 20


class Step(NamedTuple):
    """One thing to do to the container at ``path``."""

    #: remove: nothing is there any more. restore: what the layer has at ``below`` is there.
    #: directory: an empty one is there. put: what the upper directory has is there; the layer's
    #: part of its parent is at ``below``. link: it is a name of ``target``. attributes: a
    #: directory has those of ``entry``.
    what: Literal["remove", "restore", "directory", "put", "link", "attributes"]
    path: str
    below: str | None = None
    target: str = ""
    entry: Entry | None = None
    #: Whether the container has the layer's content there.
    intact: bool = False


class Bringer:
    """``signs`` are those of what was put and has not changed meanwhile."""

    def __init__(
        self,
        upper: Directories,
        format: Format,
        target: Tree,
        layer: Tree | None,
        siblings: Siblings | None,
    ) -> None:
        self.signs: dict[str, Sign] = {}
        self._upper = upper
        self._format = format
        self._target = target
        self._layer = layer
        self._siblings = siblings
        #: Names of the layer's files that were restored, by inode.
        self._restored: dict[int, str] = {}

    def do(self, step: Step) -> None:
        """Do one step. What a process has removed meanwhile is left for the next look."""
        try:
            match step.what:
                case "remove":
                    self._remove(step.path)
                case "restore":
                    self._restore(step.below or "", step.path)
                case "directory":
                    self._remove(step.path)
                    self._target.mkdir(step.path, 0o700)
                case "attributes":
                    if step.entry is not None:
                        self._target.apply(step.entry)
                case "link":
                    self._link(step.path, step.target)
                case "put":
                    self._put(step)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._target.remove_tree(path)

    def _restore(self, source: str, path: str) -> None:
        """Put what the layer has at ``source``, and all below it, at ``path``."""
        assert self._layer is not None
        self._remove(path)
        for entry in self._layer.walk(source):
            moved = attrs.evolve(entry, path=path + entry.path[len(source) :])
            linked = entry.links > 1 and entry.inode and entry.kind is not Kind.DIRECTORY
            if linked:
                other = self._other_name(entry, moved.path)
                self._restored.setdefault(entry.inode, moved.path)
                if other is not None:
                    self._target.apply(Entry(path=moved.path, kind=Kind.HARDLINK, target=other))
                    continue
            if entry.kind is Kind.FILE:
                with self._layer.open(entry.path) as content:
                    self._target.apply(moved, content)
            else:
                self._target.apply(moved)

    def _other_name(self, entry: Entry, path: str) -> str | None:
        """Return a path at which the container has the layer's file ``entry`` already."""
        known = self._restored.get(entry.inode)
        found = [] if known is None else [known]
        if known is None and self._siblings is not None:
            found += self._siblings.of(entry.inode)
        for other in found:
            was = self._was(other)
            if other != path and was is not None and was.kind is entry.kind:
                return other
        return None

    def _link(self, path: str, target: str) -> None:
        self._target.apply(Entry(path=path, kind=Kind.HARDLINK, target=target))
        fd, name = self._upper.at(path)
        self._remember(path, os.stat(name, dir_fd=fd, follow_symlinks=False))

    def _put(self, step: Step) -> None:
        fd, name = self._upper.at(step.path)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        entry = self._format.describe(step.path, fd, name, status)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return  # it was replaced meanwhile
        entry = self._format.meant(entry, self._was(step.path))
        intact = False
        if entry.kind is not Kind.FILE:
            self._target.apply(entry)
        elif "metacopy" in (marks := self._format.marks(fd, name)):
            intact = self._put_attributes(entry, step, marks.get("redirect"))
        else:
            self._put_file(entry, fd, name)
        after = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if after.st_ctime_ns == status.st_ctime_ns:
            self._remember(step.path, after, intact=intact)

    def _was(self, path: str) -> Entry | None:
        try:
            return self._target.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _remember(self, path: str, status: os.stat_result, *, intact: bool = False) -> None:
        if time.time_ns() - status.st_ctime_ns > _TICK_NS:
            self.signs[path] = [*sign_of(status), 1] if intact else sign_of(status)

    def _put_file(self, entry: Entry, fd: int, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
        try:
            descriptor = os.open(name, flags, dir_fd=fd)
        except PermissionError:
            descriptor = os.open(name, flags & ~os.O_NOATIME, dir_fd=fd)
        try:
            status = os.fstat(descriptor)
            if not stat_module.S_ISREG(status.st_mode):
                return
            if entry.size >= _SPARSE and status.st_blocks * 512 < entry.size:
                self._put_sparse(entry, descriptor)
            else:
                content = io.BufferedReader(_Exactly(descriptor, entry.size), _PIECE)
                self._target.apply(entry, content)
        finally:
            os.close(descriptor)

    def _put_sparse(self, entry: Entry, descriptor: int) -> None:
        self._target.apply(attrs.evolve(entry, size=0), io.BytesIO())
        with self._target.open(entry.path, "r+b") as file:
            at = 0
            while at < entry.size:
                try:
                    at = os.lseek(descriptor, at, os.SEEK_DATA)
                except OSError:  # ENXIO: nothing but hole from here
                    break
                end = min(os.lseek(descriptor, at, os.SEEK_HOLE), entry.size)
                file.seek(at)
                while at < end:
                    piece = os.pread(descriptor, min(_PIECE, end - at), at)
                    if not piece:
                        break
                    file.write(piece)
                    at += len(piece)
                at = max(at, end)
            file.flush()
            file.truncate(entry.size)
        self._target.utime(entry.path, entry.mtime_ns)

    def _put_attributes(self, entry: Entry, step: Step, redirect: bytes | None) -> bool:
        """Put a file whose content is the layer's; say whether it is what that has at its path."""
        assert self._layer is not None
        _, _, name = step.path.rpartition("/")
        source = below(redirect if redirect is not None else os.fsencode(name), step.below)
        if source is None:
            return False
        at_home = source == step.path
        was = self._was(step.path)
        if at_home and step.intact and was is not None and was.kind is Kind.FILE and was.links == 1:
            self._set_attributes(was, entry)
            return True
        size = self._layer.stat(source).size
        with self._layer.open(source) as content:
            self._target.apply(attrs.evolve(entry, size=size), content)
        return at_home

    def _set_attributes(self, was: Entry, entry: Entry) -> None:
        target, path = self._target, entry.path
        if (was.uid, was.gid) != (entry.uid, entry.gid):
            target.chown(path, entry.uid, entry.gid)
        if was.mode != entry.mode:
            target.chmod(path, entry.mode)
        for name in was.xattrs.keys() - entry.xattrs.keys():
            target.removexattr(path, name)
        for name, value in entry.xattrs.items():
            if was.xattrs.get(name) != value:
                target.setxattr(path, name, value)
        target.utime(path, entry.mtime_ns)


class _Exactly(io.RawIOBase):
    """The first ``size`` bytes of an open file; zeros for what was cut off meanwhile."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # a WriteableBuffer
        wanted = min(len(view), self._size - self._at)
        if not wanted:
            return 0
        piece = os.pread(self._descriptor, wanted, self._at)
        if not piece:
            piece = bytes(wanted)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
