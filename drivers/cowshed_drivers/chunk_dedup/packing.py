"""Packing: pack files while they are written, and on their way to their place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from cowshed.errors import NoSpaceError, ReadOnlyError

if TYPE_CHECKING:
    from concurrent.futures import Future


@attrs.define
class OpenPack:
    """A pack that grows."""

    number: int
    path: Path
    descriptor: int
    #: Bytes that are whole. What a full disk took of more than that is written over.
    size: int = 0

    @classmethod
    def create(cls, number: int, path: Path) -> OpenPack:
        """Begin an empty one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return cls(number, path, os.open(path, flags, 0o600))

    def append(self, data: bytes) -> None:
        """Write all of it or raise and count none of it."""
        view = memoryview(data)
        at = self.size
        while view:
            written = os.pwrite(self.descriptor, view, at)
            view = view[written:]
            at += written
        self.size = at

    def finish(self) -> WrittenPack:
        """Return what it has become. The descriptor stays open, to be synced."""
        # A write that found the disk full may have left some bytes behind what counts.
        os.ftruncate(self.descriptor, self.size)
        return WrittenPack(self.number, self.path, self.size)


@attrs.define
class WrittenPack:
    """A finished pack: its number, where it lies now and its size in bytes."""

    number: int
    path: Path
    size: int


@contextmanager
def writing_to(place: Path) -> Generator[None]:
    """Say in our own errors that the disk is full or can't be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{place}: {error.strerror}; free some space and retry") from error
        if error.errno == errno.EROFS:
            raise ReadOnlyError(f"{place}: {error.strerror}") from error
        raise


def sync_and_close(descriptor: int) -> None:
    """Make a file durable and let go of it."""
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run_now(work: Callable[[int], None], descriptor: int) -> Future[None]:
    """Do it now, and keep how it went as a thread's work would."""
    from concurrent.futures import Future  # with logging: 6 ms

    done: Future[None] = Future()
    try:
        work(descriptor)
    except OSError as error:
        done.set_exception(error)
    else:
        done.set_result(None)
    return done


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
