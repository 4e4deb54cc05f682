"""Power: what would be lost if it were cut now: all that was written to files and not yet synced.

The kernel may have written it to the disk, or not, or in another order; here it never has, which
is the worst that file systems do that keep the order of everything but contents (ext4's default,
XFS): a file that was written, renamed into its place and not synced is there, and is empty. Names
and attributes are taken for durable at once, and so is what a process writes to mapped memory.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import attrs

from .disk_calls import SYNCS

#: Which argument is the descriptor of the file whose content changes.
_WRITES = {
    **dict.fromkeys(("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile"), 0),
    **dict.fromkeys(("ftruncate", "fallocate", "ioctl"), 0),
    "copy_file_range": 2,
}
_PIECE = 1 << 20


@attrs.frozen
class _File:
    descriptor: int
    size: int
    #: What it held when it was last synced, by offset; holes are left out.
    pieces: list[tuple[int, bytes]]


class Unsynced:
    """The files of one process that a power cut would put back."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], _File] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def before(self, name: str, thread: int, arguments: tuple[int, ...]) -> None:
        """Take note of a call that ``thread`` is about to make."""
        if name in _WRITES:
            self._write(thread, arguments[_WRITES[name]] & 0xFFFFFFFF)
        elif name in ("fsync", "fdatasync"):
            with suppress(OSError):
                self._forget(_identity(os.stat(f"/proc/{thread}/fd/{arguments[0] & 0xFFFFFFFF}")))
        elif name in SYNCS and name != "msync":
            self.forget()

    def forget(self) -> None:
        """Take everything for synced."""
        for identity in list(self._files):
            self._forget(identity)

    def lose(self) -> None:
        """Put every file back to what it held when it was last synced."""
        for file in self._files.values():
            os.ftruncate(file.descriptor, 0)
            os.ftruncate(file.descriptor, file.size)
            for offset, piece in file.pieces:
                os.pwrite(file.descriptor, piece, offset)
        self.forget()

    def _write(self, thread: int, descriptor: int) -> None:
        if _is_synchronous(thread, descriptor):
            return
        try:
            ours = os.open(f"/proc/{thread}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no file, or nothing that we may write to
            return
        status = os.fstat(ours)
        identity = _identity(status)
        if not stat.S_ISREG(status.st_mode) or not status.st_nlink or identity in self._files:
            os.close(ours)
            return
        self._files[identity] = _File(ours, status.st_size, _data(ours, status.st_size))

    def _forget(self, identity: tuple[int, int]) -> None:
        file = self._files.pop(identity, None)
        if file is not None:
            os.close(file.descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_synchronous(thread: int, descriptor: int) -> bool:
    """Say whether each write waits for the disk, as those of LMDB's meta page do."""
    try:
        with open(f"/proc/{thread}/fdinfo/{descriptor}", encoding="ascii") as file:
            flags = next(line for line in file if line.startswith("flags:"))
    except OSError:
        return False
    return bool(int(flags.split()[1], 8) & os.O_DSYNC)


def _data(descriptor: int, size: int) -> list[tuple[int, bytes]]:
    """Return what isn't a hole: LMDB's files are reserved far beyond what they hold."""
    pieces: list[tuple[int, bytes]] = []
    at = 0
    with suppress(OSError):  # ENXIO: holes only, from there on
        while at < size:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
            end = os.lseek(descriptor, at, os.SEEK_HOLE)
            while at < end:
                piece = os.pread(descriptor, min(_PIECE, end - at), at)
                if not piece:
                    return pieces
                pieces.append((at, piece))
                at += len(piece)
    return pieces
