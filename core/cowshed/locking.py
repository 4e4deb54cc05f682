"""Locks between processes that vanish with whoever held them.

One lock file serves any number of keys: a key is one byte of the file, at an offset drawn from the
key's hash, locked as an open file description (fcntl(2), "Open file description locks"). A killed
process drops its locks with its descriptors, nothing is left to sweep, and threads of one process
exclude each other too, because each lock opens the file for itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from .errors import BusyError

#: Held shared by whatever writes blobs, recipes or temporary files before the catalog knows them.
FILES_LOCK = "files"
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")


class Lock:
    """A held lock; release it or leave its context."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(
        self, key: str, *, shared: bool = False, timeout: float | None = None, what: str = ""
    ) -> None:
        """Hold ``key`` as well, from now on, as ``LockFile.acquire`` would: one file opened less.

        Raises:
            BusyError: somebody else held it all that time.
        """
        kind, offset = _kind(shared=shared), _offset(key)
        if _lock_byte(self._descriptor, kind, offset):
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while deadline is None or time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
            if _lock_byte(self._descriptor, kind, offset):
                return
        raise BusyError(f"{what or key} is in use by another process; try again later")

    def release(self) -> None:
        """Let go. Releasing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class LockFile:
    """Any number of named locks in one file, which is made on first use."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)

    def acquire(
        self, key: str, *, shared: bool = False, timeout: float | None = None, what: str = ""
    ) -> Lock:
        """Take the lock on ``key``, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            BusyError: somebody else held it all that time; ``what`` names it in the message.
        """
        lock = Lock(self._open())
        try:
            lock.take(key, shared=shared, timeout=timeout, what=what)
        except BaseException:
            lock.release()
            raise
        return lock

    def attempt(self, key: str, *, shared: bool = False) -> Lock | None:
        """Take the lock at once, or return None."""
        lock, taken = self.attempt_each([key], shared=shared)
        if not taken:
            lock.release()
            return None
        return lock

    def attempt_each(self, keys: Iterable[str], *, shared: bool = False) -> tuple[Lock, list[str]]:
        """Take at once those that are free; return one lock for all of them, and their keys.

        Ten thousand keys take one descriptor, not ten thousand.
        """
        descriptor = self._open()
        kind = _kind(shared=shared)
        try:
            taken = [key for key in keys if _lock_byte(descriptor, kind, _offset(key))]
        except BaseException:
            os.close(descriptor)
            raise
        return Lock(descriptor), taken

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            descriptor = os.open(self._path, flags | os.O_CREAT, 0o600)
            os.fchmod(descriptor, 0o600)  # whatever the umask
            return descriptor


def _kind(*, shared: bool) -> int:
    return fcntl.F_RDLCK if shared else fcntl.F_WRLCK


def _lock_byte(descriptor: int, kind: int, offset: int) -> bool:
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _offset(key: str) -> int:
    try:
        from _blake2 import blake2b  # hashlib loads OpenSSL, which takes 3 ms
    except ImportError:  # it is CPython's
        from hashlib import blake2b
    digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def making_lock(driver: str) -> str:
    """Return the key held shared while something is being made in a driver."""
    return f"making:{driver}"
