"""Partial files: blobs on their way in, each held by whoever writes it.

The writer holds flock(2) on the file itself, which vanishes with the process: a partial file
without a holder is a broken transfer, to be resumed or swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path

from .errors import NoSpaceError, ReadOnlyError


class Partials:
    """The directory of partial files. It is made on first use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str | None) -> tuple[int, Path]:
        """Open and lock the file ``name``, or one of a fresh name if another holds that.

        Names with a dot are fresh ones, which nobody resumes.
        """
        with storing():
            if name is not None:
                path = self._directory / name
                descriptor = self._make(path)
                if descriptor is not None:
                    return descriptor, path
            while True:
                path = self._directory / f"{name or 'new'}.{os.urandom(8).hex()}"
                descriptor = self._make(path)
                if descriptor is not None:
                    return descriptor, path

    def sweep(self, age: float) -> int:
        """Remove what nobody can or will resume; return the bytes freed."""
        freed = 0
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                freed += self._sweep(name, age)
        return freed

    def _sweep(self, name: str, age: float) -> int:
        descriptor = _lock(self._directory / name, create=False)
        if descriptor is None:
            return 0
        try:
            status = os.fstat(descriptor)
            if "." not in name and time.time() - status.st_mtime < age:
                return 0
            with storing():
                (self._directory / name).unlink()
            return status.st_blocks * 512
        finally:
            os.close(descriptor)

    def _make(self, path: Path) -> int | None:
        self._directory.mkdir(parents=True, exist_ok=True)
        return _lock(path, create=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocated(path: Path) -> int:
    """Return a file's bytes on disk; 0 if it is gone."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def storing() -> Generator[None]:
    """Turn the disk's refusals into errors of ours."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"no space left to store a blob{where}") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnlyError(f"can't write a blob: {error.strerror}{where}") from error
        raise


def _lock(path: Path, *, create: bool) -> int | None:
    """Open and flock a partial file; None if another holds it, or it is just going away."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and flock its holder may have published or removed it.
        if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
