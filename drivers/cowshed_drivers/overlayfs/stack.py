"""Stack: the directories that the kernel merges, topmost first.

    HOME/diff        what a layer or container changes in what is below it, as overlayfs knows it
    HOME/flat        every 64 layers: the whole tree, its files hard links into the layers below
    HOME/stack       of a layer: one directory a line, relative to the store's root
    HOME/frozen      of a container that was forked: what it had in its directory before, likewise

So a stack has no more than 64 directories of layers, however long the chain. Each costs a mount
12 µs, and a look-up of a name for the first time 0.05 µs: 64 make a mount of 1 ms.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cowshed.driver import Held, Item
from cowshed.native.shelf import PLACES
from cowshed.native.syscalls import OPEN_DIRECTORY, read_small, sync_file

DIFF = "diff"
FLAT = "flat"
_STACK = "stack"
_FROZEN = "frozen"

#: An empty directory that stands for "nothing below": an overlay needs two directories to read.
NOTHING = "nothing"

#: Directories of layers in one stack. A longer chain is flattened at this length.
LONGEST = 64

#: Layers whose stacks are remembered.
_KNOWN = 256


class Stack(NamedTuple):
    """Directories relative to the store's root."""

    #: What is read only: of a container all but its own directory.
    lowers: tuple[str, ...]
    #: A container's own.
    upper: str | None = None
    #: How many of ``lowers`` are what a container had in its directory when it was forked.
    frozen: int = 0

    @property
    def all(self) -> tuple[str, ...]:
        """Return all of them."""
        return self.lowers if self.upper is None else (self.upper, *self.lowers)

    @property
    def own(self) -> tuple[str, ...]:
        """Return those that hold a container's changes to its layer."""
        return self.all[: self.frozen + 1] if self.upper is not None else ()


class Stacks:
    """Reads and writes stacks of the store at ``root``."""

    def __init__(self, root: str) -> None:
        self.root = root
        #: By layer: which file said so, as another may have been made by the same name since.
        self._known: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {}

    @contextmanager
    def opened(self, item: Item) -> Generator[tuple[Stack, list[int]]]:
        """Yield the stack of ``item`` and a descriptor of each of its directories.

        A fork exchanges a container's home, so all that is in it is read by one descriptor.
        """
        home_path = f"{PLACES[item.held]}/{item.id}"
        descriptors: list[int] = []
        home = os.open(f"{self.root}/{home_path}", OPEN_DIRECTORY)
        try:
            if item.held is Held.LAYER:
                stack = Stack(lowers=_read(home, _STACK))
                if not stack.lowers:
                    raise FileNotFoundError(errno.ENOENT, "no such file", f"{home_path}/{_STACK}")
                paths = stack.lowers
            else:
                frozen = _read(home, _FROZEN)
                below = (NOTHING,) if item.parent is None else self.of_layer(item.parent)
                upper = f"{home_path}/{DIFF}"
                stack = Stack(lowers=frozen + below, upper=upper, frozen=len(frozen))
                descriptors.append(os.open(DIFF, OPEN_DIRECTORY, dir_fd=home))
                paths = stack.lowers
            root = os.open(self.root, OPEN_DIRECTORY)
            try:
                descriptors += [os.open(path, OPEN_DIRECTORY, dir_fd=root) for path in paths]
            finally:
                os.close(root)
            yield stack, descriptors
        finally:
            os.close(home)
            for descriptor in descriptors:
                os.close(descriptor)

    def of_layer(self, layer: str) -> tuple[str, ...]:
        """Return a layer's directories."""
        path = f"{self.root}/{PLACES[Held.LAYER]}/{layer}/{_STACK}"
        status = os.stat(path)
        file = status.st_ino, status.st_mtime_ns
        known = self._known.get(layer)
        if known is None or known[0] != file:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[layer] = file, _directories(read_small(path))
        return known[1]

    def frozen_of(self, home: str) -> tuple[str, ...]:
        """Return what was frozen below the directory in ``home``, a container's or frozen itself.

        Raises:
            FileNotFoundError: there is no such home.
        """
        descriptor = os.open(home, OPEN_DIRECTORY)
        try:
            return _read(descriptor, _FROZEN)
        finally:
            os.close(descriptor)


def write_stack(home: str, directories: Sequence[str]) -> None:
    """Write down the directories of the layer that is being made in ``home``."""
    _write(home, _STACK, directories)


def write_frozen(home: str, directories: Sequence[str], *, durable: bool = False) -> None:
    """Write down what was frozen below the directory in ``home``, in place of what was said.

    ``durable``: what was said may not get lost if the machine stops now."""
    _write(home, _FROZEN, directories, durable=durable)


def _read(home: int, name: str) -> tuple[str, ...]:
    try:
        return _directories(read_small(name, home))
    except FileNotFoundError:
        return ()


def _directories(data: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(data).split())


def _write(home: str, name: str, directories: Sequence[str], *, durable: bool = False) -> None:
    descriptor = os.open(home, OPEN_DIRECTORY)
    try:
        aside = f"{name}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with open(os.open(aside, flags, 0o600, dir_fd=descriptor), "wb") as file:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask
                file.write(os.fsencode("\n".join(directories)))
            if durable:
                sync_file(aside, descriptor)
            os.rename(aside, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            os.unlink(aside, dir_fd=descriptor)
            raise
    finally:
        os.close(descriptor)
