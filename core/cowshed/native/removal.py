"""Removing whole directories by descriptor, however deep, without following a link."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from contextlib import suppress

from .syscalls import NO_MOUNTS, OPEN_DIRECTORY, openat2

#: Deeper directories are moved to the top first: a descriptor a level must not run out.
_DEEPEST = 64


def remove_directory(parent: str, name: str) -> int:
    """Remove directory ``name`` in ``parent``; return the bytes (allocated) that came free.

    What is gone already, as another process sweeps too, is passed over. What is mounted below
    belongs to somebody else.

    Raises:
        OSError: EBUSY, something is mounted there.
    """
    base = os.open(parent, OPEN_DIRECTORY)
    freed = 0
    todo = [name]
    try:
        while todo:
            freed += _remove(base, todo.pop(), todo)
    finally:
        os.close(base)
    return freed


def _remove(base: int, name: str, todo: list[str]) -> int:
    freed = 0
    # Each level: descriptor of the directory, its name in the level above, names still in it.
    levels: list[tuple[int, str, list[str]]] = []

    def enter(above: int, child: str) -> None:
        try:
            descriptor = _open(child, above)
        except PermissionError:
            os.chmod(child, 0o700, dir_fd=above)
            descriptor = _open(child, above)
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            # A process in a container may have taken permissions away from its own directory.
            with suppress(PermissionError):
                os.fchmod(descriptor, 0o700)
        levels.append((descriptor, child, os.listdir(descriptor)))

    try:
        enter(base, name)
    except FileNotFoundError:
        return 0
    try:
        while levels:
            descriptor, own_name, names = levels[-1]
            if names:
                child = names.pop()
                try:
                    status = os.stat(child, dir_fd=descriptor, follow_symlinks=False)
                    if not stat_module.S_ISDIR(status.st_mode):
                        os.unlink(child, dir_fd=descriptor)
                        freed += status.st_blocks * 512 if status.st_nlink == 1 else 0
                    elif len(levels) < _DEEPEST:
                        enter(descriptor, child)
                    else:
                        moved = os.urandom(8).hex()
                        os.rename(child, moved, src_dir_fd=descriptor, dst_dir_fd=base)
                        todo.append(moved)
                except FileNotFoundError:
                    pass
                continue
            freed += os.fstat(descriptor).st_blocks * 512
            levels.pop()
            os.close(descriptor)
            above = levels[-1][0] if levels else base
            try:
                os.rmdir(own_name, dir_fd=above)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)
    return freed


def _open(child: str, above: int) -> int:
    try:
        return openat2(child, OPEN_DIRECTORY, NO_MOUNTS, above)
    except OSError as error:
        if error.errno == errno.ENOSYS:  # before Linux 5.6
            return os.open(child, OPEN_DIRECTORY, dir_fd=above)
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "something is mounted there", child) from None
        raise
