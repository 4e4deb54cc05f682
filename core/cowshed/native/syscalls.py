"""The few calls of Linux that ``os`` doesn't offer, and the ones that need care."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

#: What write(2) and chown(2) strip, as they strip setuid and setgid.
CAPABILITY = "security.capability"

#: For directories on a way that must not leave the tree: a link is ENOTDIR, never followed.
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_OPENAT2 = 437  # the same on all machines
#: How openat2(2) resolves a path: not into another mount, not by /proc's links, not by any link,
#: not upwards out of the directory, as if the directory were the root.
NO_MOUNTS, NO_MAGIC_LINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10


def openat2(path: str, flags: int, resolve: int, directory: int) -> int:
    """Open ``path`` in an open directory as ``resolve`` says (openat2(2), Linux 5.6)."""
    how = struct.pack("QQQ", flags, 0, resolve)
    encoded = os.fsencode(path)
    while True:
        descriptor = int(_libc.syscall(ctypes.c_long(_OPENAT2), directory, encoded, how, len(how)))
        if descriptor >= 0:
            return descriptor
        code = ctypes.get_errno()
        if code not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: something was renamed just then
            raise OSError(code, os.strerror(code), path)


def syncfs(descriptor: int) -> None:
    """Write out the whole file system that holds ``descriptor`` (syncfs(2))."""
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def exchange(one: str, other: str) -> None:
    """Let two paths change places in one step (renameat2(2))."""
    at, how = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if _libc.renameat2(at, os.fsencode(one), at, os.fsencode(other), how) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), one, None, other)


def sync_directory(path: str) -> None:
    """Make the names in directory ``path`` durable."""
    descriptor = os.open(path, OPEN_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(name: str, directory: int) -> None:
    """Make the content of regular file ``name`` in an open directory durable."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_small(path: str, directory: int | None = None) -> bytes:
    """Return what is in a small regular file, in a third of the calls that ``open`` makes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        data = os.read(descriptor, _BLOCK)
        while len(data) % _BLOCK == 0 and (more := os.read(descriptor, _BLOCK)):
            data += more
        return data
    finally:
        os.close(descriptor)


def make_directory(path: str) -> bool:
    """Make a directory of mode 0700 whatever the umask; False: it exists."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    # Nothing is written where nothing is wrong: a chmod costs as much again.
    if os.stat(path).st_mode & 0o7777 != 0o700:
        os.chmod(path, 0o700)
    return True


def list_directory(descriptor: int) -> list[str]:
    """Return the names in an open directory, any number of times.

    ``os.listdir`` rewinds when it has read; btrfs shows what was there when it was rewound.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.listdir(descriptor)


def procfs(descriptor: int, name: str) -> str:
    """Return a path for ``name`` in an open directory, for the xattr calls, which take no
    ``dir_fd``. Only the kernel's own magic link is followed on the way."""
    return f"/proc/self/fd/{descriptor}/{name}"


def write_sparse(descriptor: int, data: bytes, offset: int) -> None:
    """Write ``data`` at ``offset``, leaving whole blocks of zeros as holes.

    The caller sets the file's size afterwards, as a hole at the end isn't written.
    """
    view = memoryview(data)
    if len(data) < _BLOCK:
        _write_all(descriptor, view, offset)
        return
    start = position = 0
    while position < len(data):
        end = min(position + _BLOCK, len(data))
        if view[position:end] == _ZEROS[: end - position]:
            if start < position:
                _write_all(descriptor, view[start:position], offset + start)
            start = end
        position = end
    if start < len(data):
        _write_all(descriptor, view[start:], offset + start)


_BLOCK = 64 << 10
_ZEROS = memoryview(bytes(_BLOCK))


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def copy_data(source: int, target: int, size: int) -> None:
    """Copy ``size`` bytes between files, holes as holes, extents shared where the file system can.

    ``target`` is new and empty.
    """
    if size == 0:
        return
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but hole from here
                raise
            break
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        _copy_range(source, target, start, end)
        position = end
    if position < size or os.fstat(target).st_size != size:
        os.ftruncate(target, size)


_CANNOT_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(source, target, end - start, start, start)
        except OSError as error:
            if error.errno not in _CANNOT_COPY_RANGE:
                raise
            data = os.pread(source, min(end - start, 1 << 20), start)
            _write_all(target, memoryview(data), start)
            count = len(data)
        if count == 0:
            break
        start += count


def list_xattrs(path: str, *, follow: bool = False) -> dict[str, bytes]:
    """Return all extended attributes of ``path``, without ``security.selinux``.

    ``follow`` is for the magic link of an open descriptor only.
    """
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    if not names:
        return {}
    found: dict[str, bytes] = {}
    for name in names:
        if name != "security.selinux":
            try:
                found[name] = os.getxattr(path, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in (
                    errno.ENODATA,
                    errno.EOPNOTSUPP,
                ):  # gone meanwhile, or listed but not readable
                    raise
    return found
