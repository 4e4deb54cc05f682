"""Freezing: what a container has in its directory becomes a layer without a name, for its forks.

    ROOT/frozen/ID/diff       as it was when the container was forked; only read from then on
    ROOT/frozen/ID/frozen     what had been frozen below it before
    ROOT/sharing/ID/NAME      empty: container NAME, or NAME in ``frozen``, stands on ID

A fork makes a fresh home for the container, empty and standing on what is to be frozen, and lets
the two homes change places in one call. Before it nothing happened, after it the container shows
the same as before; then the fork is made like any container, on the same. Whoever has the old home
open to read keeps it.

A mark in ``sharing`` is made before what needs it and taken away after, and counts only if that
really stands on ID. What nobody stands on goes. Forks hold a shared lock, removals an exclusive
one, so that nothing goes that a fork is about to stand on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from cowshed.locking import Lock, LockFile
from cowshed.native.removal import remove_directory
from cowshed.native.syscalls import OPEN_DIRECTORY, exchange, make_directory, sync_directory, syncfs

from .hosting import OverlayHosting
from .stack import DIFF, Stacks, write_frozen

FROZEN = "frozen"
SHARING = "sharing"

#: Frozen directories below one container. More are flattened into one.
LONGEST = 32


class Frozen:
    """The frozen directories of the store at ``root``. ``remove`` is called with a directory and
    the name of a directory in it."""

    def __init__(
        self,
        root: str,
        locks: LockFile,
        hosting: OverlayHosting,
        remove: Callable[[str, str], object] = remove_directory,
    ) -> None:
        self.root = root
        self._locks = locks
        self._hosting = hosting
        self._remove = remove
        self._stacks = Stacks(root)

    def forking(self) -> Lock:
        """Return the lock to hold until what stands on something frozen is published."""
        return self._locks.acquire(FROZEN, shared=True)

    def make_home(self) -> str:
        """Return a new home for what will change places with a container's."""
        home = os.path.join(self.root, FROZEN, os.urandom(16).hex())
        make_directory(home)
        return home

    def freeze(self, home: str, fresh: str, *, durable: bool) -> tuple[str, ...]:
        """Let the container in ``home`` go on in ``fresh``, a home that is ready but for what it
        stands on; return that."""
        frozen = os.path.basename(fresh)
        before = self._stacks.frozen_of(home)
        below = (f"{FROZEN}/{frozen}/{DIFF}", *before)
        container = os.path.basename(home)
        write_frozen(fresh, below)
        self.mark(below, container)
        if before:
            self.mark(before, frozen)
        if durable:
            self._sync(fresh)
        exchange(home, fresh)
        if before:
            self._unmark(before, container)
        return below

    def shorten(self, home: str, below: tuple[str, ...], *, durable: bool) -> tuple[str, ...]:
        """Let the container in ``home``, whose directory is empty, stand on one directory that is
        all of ``below``; return it. The caller releases ``below``."""
        from .flattening import Flattener  # seldom needed

        made = os.path.join(self.root, FROZEN, os.urandom(16).hex())
        target = os.path.join(made, DIFF)
        for directory in (made, target):
            make_directory(directory)
        sources = [os.path.join(self.root, directory) for directory in below]
        flattener = Flattener(sources, target, self._hosting, whole=False, frozen=len(sources))
        try:
            flattener.run()
        finally:
            flattener.close()
        shorter = (f"{FROZEN}/{os.path.basename(made)}/{DIFF}",)
        self.mark(shorter, os.path.basename(home))
        if durable:
            self._sync(made)
        write_frozen(home, shorter, durable=durable)
        return shorter

    def mark(self, below: tuple[str, ...], name: str) -> None:
        """Note that ``name`` is about to stand on ``below``."""
        if below:
            marks = os.path.join(self.root, SHARING, _id(below))
            make_directory(marks)
            flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(os.path.join(marks, name), flags, 0o600))

    def sync_marks(self, below: tuple[str, ...]) -> None:
        """Make durable who stands on ``below``: what nobody stands on is discarded."""
        sync_directory(os.path.join(self.root, SHARING, _id(below)))

    def _unmark(self, below: tuple[str, ...], name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self.root, SHARING, _id(below), name))

    def users(self, below: tuple[str, ...]) -> list[str]:
        """Return who stands on ``below``."""
        try:
            marks = os.listdir(os.path.join(self.root, SHARING, _id(below)))
        except FileNotFoundError:
            return []
        return [name for name in marks if self._stands(name, below)]

    def _stands(self, name: str, below: tuple[str, ...]) -> bool:
        for place in ("containers", FROZEN):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = self._stacks.frozen_of(os.path.join(self.root, place, name))
                if found[:1] == below[:1]:
                    return True
        return False

    def release(self, below: tuple[str, ...], name: str) -> None:
        """Take note that ``name`` doesn't stand on ``below`` any more; remove what nobody does."""
        if not below:
            return
        with self._locks.acquire(FROZEN):
            self._unmark(below, name)
            while below and not self.users(below):
                frozen = _id(below)
                self._discard(frozen)
                below = below[1:]
                if below:
                    self._unmark(below, frozen)

    def sweep(self) -> None:
        """Remove what killed processes left."""
        lock = self._locks.attempt(FROZEN)
        if lock is None:
            return  # somebody forks
        with lock:
            left = True
            while left:
                left = False
                for frozen in os.listdir(os.path.join(self.root, FROZEN)):
                    if not self.users((f"{FROZEN}/{frozen}/{DIFF}",)):
                        self._discard(frozen)
                        left = True
            for frozen in os.listdir(os.path.join(self.root, SHARING)):
                if not os.path.lexists(os.path.join(self.root, FROZEN, frozen)):
                    remove_directory(os.path.join(self.root, SHARING), frozen)

    def _discard(self, frozen: str) -> None:
        trash = os.path.join(self.root, "trash")
        key = os.urandom(16).hex()
        os.rename(os.path.join(self.root, FROZEN, frozen), os.path.join(trash, key))
        remove_directory(os.path.join(self.root, SHARING), frozen)
        self._remove(trash, key)

    def _sync(self, home: str) -> None:
        descriptor = os.open(home, OPEN_DIRECTORY)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)


def _id(below: tuple[str, ...]) -> str:
    return below[0].split("/")[1]
