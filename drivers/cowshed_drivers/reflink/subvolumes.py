"""Subvolumes: trees of btrfs that can be snapshot at once, whatever they hold (ioctls of
linux/btrfs.h). Everything here may be asked on any file system; elsewhere it changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from cowshed.native.syscalls import OPEN_DIRECTORY


def _number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0x94 << 8 | number


_WRITE, _READ = 1, 2
_SYNC = _number(0, 8, 0)
_SNAP_DESTROY = _number(_WRITE, 15, 4096)
_SNAP_CREATE_V2 = _number(_WRITE, 23, 4096)
_SUBVOL_CREATE_V2 = _number(_WRITE, 24, 4096)
_SUBVOL_GETFLAGS = _number(_READ, 25, 8)
_GET_SUBVOL_ROOTREF = _number(_READ | _WRITE, 61, 4096)
_SUBVOL_SYNC_WAIT = _number(_WRITE, 65, 16)

_ARGUMENTS = struct.Struct("=q4088s")
_ARGUMENTS_V2 = struct.Struct("=qQQ32x4040s")
_SYNC_WAIT = struct.Struct("=QII")
_COUNT = 2
#: Where in its answer ROOTREF says how many subvolumes are in one.
_CHILDREN = 8 + 255 * 16

#: Not btrfs, not allowed, or not a subvolume: there is another way.
_CANNOT = {errno.ENOTTY, errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV}


def is_subvolume(descriptor: int) -> bool:
    """Say whether an open directory is the root of a subvolume."""
    try:
        fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, bytes(8))
    except OSError:
        return False
    return True


def holds_others(descriptor: int) -> bool:
    """Say whether there are subvolumes in this one, which a snapshot would leave out."""
    answer = bytearray(4096)
    try:
        fcntl.ioctl(descriptor, _GET_SUBVOL_ROOTREF, answer)
    except OSError:
        return True  # who knows
    return answer[_CHILDREN] > 0


def create(directory: str, name: str) -> bool:
    """Make an empty subvolume; False where none can be made."""
    return _make(directory, _SUBVOL_CREATE_V2, 0, name)


def snapshot(source: int, directory: str, name: str) -> bool:
    """Make a snapshot of the subvolume open as ``source``; False where none can be made.

    It returns in a later tick of the clock than it began in. What is written in the snapshot
    then gets a ctime that nothing had before.
    """
    began = time.clock_gettime_ns(_TICKS)
    if not _make(directory, _SNAP_CREATE_V2, source, name):
        return False
    while time.clock_gettime_ns(_TICKS) == began:
        time.sleep(0.0005)
    return True


#: CLOCK_MONOTONIC_COARSE: moves when the kernel's stamps do, and never back.
_TICKS = 6


def _make(directory: str, request: int, source: int, name: str) -> bool:
    into = os.open(directory, OPEN_DIRECTORY)
    try:
        arguments = _ARGUMENTS_V2.pack(source, 0, 0, os.fsencode(name))
        fcntl.ioctl(into, request, bytearray(arguments))
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    finally:
        os.close(into)
    return True


def destroy(directory: str, name: str) -> None:
    """Remove a subvolume whole, if it is one and may be: with privilege, or where the mount option
    ``user_subvol_rm_allowed`` lets its owner. The kernel frees its space in the background."""
    try:
        above = os.open(directory, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        fcntl.ioctl(above, _SNAP_DESTROY, bytearray(_ARGUMENTS.pack(0, os.fsencode(name))))
    except OSError:
        pass  # it stays, with all that is in it, to be removed as a directory
    finally:
        os.close(above)


def wait_for_removals(directory: str, patience: float) -> bool:
    """Let the file system free what destroyed subvolumes held, which by itself it would begin
    within 30 s. Return whether it is done (or nobody can tell), after ``patience`` at most."""
    descriptor = os.open(directory, OPEN_DIRECTORY)
    try:
        waiting = _removals(descriptor)
        if waiting == 0:
            return True
        try:
            fcntl.ioctl(descriptor, _SYNC)  # commits, and wakes the cleaner
        except OSError:
            return True  # no btrfs
        deadline = time.monotonic() + patience
        while waiting and time.monotonic() < deadline:
            time.sleep(0.001)
            waiting = _removals(descriptor)
        return not waiting
    finally:
        os.close(descriptor)


def _removals(descriptor: int) -> int | None:
    """Return how many subvolumes wait to be removed; None before Linux 6.13."""
    answer = bytearray(_SYNC_WAIT.pack(0, _COUNT, 0))
    try:
        fcntl.ioctl(descriptor, _SUBVOL_SYNC_WAIT, answer)
    except OSError:
        return None
    found: tuple[int, int, int] = _SYNC_WAIT.unpack(answer)
    return found[2]
