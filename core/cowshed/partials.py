"""Partial files: blobs on their way in, each held by whoever writes it.

The writer holds flock(2) on the file itself, which vanishes with the process: a partial file
without a holder is a broken transfer, to be resumed or swept. A file that is whole but not unpacked
yet is held shared by those who read it; whoever is done with it removes its name, never its bytes.
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


class Claim:
    """A partial file in somebody's hands."""

    def __init__(self, descriptor: int, path: Path, *, whole: bool) -> None:
        self.descriptor = descriptor
        self._path = path
        #: It has all its bytes and others may read it, too; otherwise it is the holder's alone.
        self.whole = whole

    @property
    def resumable(self) -> bool:
        """Whether a later run would find it, and it has anything."""
        return "." not in self._path.name and os.fstat(self.descriptor).st_size > 0

    def share(self) -> None:
        """Let others read it: everything is written."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        self.whole = True

    def remove(self) -> None:
        """Take its name away, if it still has it; who reads it can go on."""
        with contextlib.suppress(FileNotFoundError), storing():
            if os.path.samestat(os.fstat(self.descriptor), self._path.lstat()):
                self._path.unlink()

    def move(self, target: Path) -> None:
        """Give it another name, unless another reader has."""
        with contextlib.suppress(FileNotFoundError), storing():
            if os.path.samestat(os.fstat(self.descriptor), self._path.lstat()):
                self._path.replace(target)

    def touch(self) -> None:
        """Show others that its holder gets on, though the file doesn't grow."""
        if self.descriptor >= 0:
            os.utime(self.descriptor)

    def close(self) -> None:
        """Let go. Twice is fine."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


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

    def claim(self, name: str, size: int) -> Claim | None:
        """Take the file ``name``: to write it, or to read it where it has all ``size`` bytes.

        None: somebody is writing it just now.
        """
        path = self._directory / name
        with storing():
            descriptor = self._make(path)
            if descriptor is not None:
                return Claim(descriptor, path, whole=False)
            descriptor = _lock(path, create=False, shared=True)
        if descriptor is None:
            return None
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        return Claim(descriptor, path, whole=True)

    def is_idle(self, name: str, seconds: float) -> bool:
        """Say whether a file is empty and its holder hasn't touched it for so long."""
        try:
            status = (self._directory / name).lstat()
        except FileNotFoundError:
            return False
        return not status.st_size and time.time() - status.st_mtime > seconds

    def usage(self) -> int:
        """Return all bytes on disk (allocated)."""
        with contextlib.suppress(FileNotFoundError):
            return sum(allocated(self._directory / name) for name in os.listdir(self._directory))
        return 0

    def sweep(self, age: float, budget: int | None = None) -> int:
        """Remove what nobody can or will resume; return the bytes freed.

        What nobody has touched for ``age`` seconds goes, then the oldest until the rest takes no
        more than ``budget`` bytes. What is held stays.
        """
        found: list[tuple[float, str, int]] = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                with contextlib.suppress(FileNotFoundError):
                    status = (self._directory / name).lstat()
                    found.append((status.st_mtime, name, status.st_blocks * 512))
        freed = 0
        left = sum(size for _, _, size in found)
        oldest = time.time() - age
        for touched, name, size in sorted(found):
            fresh = "." in name  # which nobody resumes
            if fresh or touched <= oldest or (budget is not None and left > budget):
                gone = self.remove(name)
                freed += gone
                left -= size if gone else 0
        return freed

    def remove(self, name: str) -> int:
        """Remove a file unless it is held or gone; return the bytes freed."""
        try:
            descriptor = _lock(self._directory / name, create=False)
        except PermissionError:
            return 0  # another user's
        if descriptor is None:
            return 0
        try:
            status = os.fstat(descriptor)
            with storing():
                (self._directory / name).unlink()
            return status.st_blocks * 512
        finally:
            os.close(descriptor)

    def _make(self, path: Path) -> int | None:
        self._directory.mkdir(parents=True, exist_ok=True)
        return _lock(path, create=True)


def parts_of(digest: str) -> str:
    """Return the name of the file for a blob of which only parts are wanted."""
    return f"{digest.partition(':')[2]}-parts"


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


def _lock(path: Path, *, create: bool, shared: bool = False) -> int | None:
    """Open and flock a partial file; None if another holds it, or it is just going away."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
