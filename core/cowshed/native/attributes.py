"""Setting owner, mode and xattrs: on the file if it can hold them, in its record if not.

Each function gets the place (a directory's descriptor and a name in it, never followed) and the
``Record`` to be stored afterwards, which it edits so that record and file together tell the truth.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Mapping

from ..entry import Entry, Kind
from .hosting import Hosting
from .records import Record
from .syscalls import CAPABILITY, procfs

_NOT_OURS = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOVERFLOW}
_NOT_MADE = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_ROOM = {
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.ENOSPC,
    errno.E2BIG,
    errno.ERANGE,
    errno.EINVAL,
}


def set_ids(
    hosting: Hosting, fd: int, name: str, uid: int, gid: int, record: Record, *, fresh: bool = False
) -> None:
    """Set owner and group. ``fresh``: this process just made the file."""
    native = hosting.native_ids(uid, gid)
    shown = hosting.shown_ids(*native)
    # In a privileged store the group may have come from a setgid directory, so chown always.
    if not (fresh and hosting.owner == (os.geteuid(), os.getegid())):
        try:
            os.chown(name, *native, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            shown = hosting.shown_ids(status.st_uid, status.st_gid)
    record.uid = None if shown[0] == uid else uid
    record.gid = None if shown[1] == gid else gid


def set_mode(hosting: Hosting, fd: int, name: str, kind: Kind, mode: int, record: Record) -> None:
    """Set permission bits of anything but a symbolic link."""
    if record.kind is not None:
        record.mode = mode
        return
    native = hosting.native_mode(kind, mode)
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        path = f"/proc/self/fd/{pinned}"
        if stat_module.S_ISLNK(os.fstat(pinned).st_mode):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), name)
        os.chmod(path, native)
        held = stat_module.S_IMODE(os.fstat(pinned).st_mode)
    finally:
        os.close(pinned)
    # A group that isn't ours silently loses setgid, so what counts is what came out.
    record.mode = None if held == mode else mode


def set_xattr(
    hosting: Hosting, fd: int, name: str, kind: Kind, xattr: str, value: bytes, record: Record
) -> None:
    """Set one attribute; ``security.selinux`` belongs to the host and is dropped."""
    if xattr == "security.selinux":
        return
    if record.kind is None and hosting.may_hold(kind, xattr, len(value)):
        try:
            os.setxattr(procfs(fd, name), xattr, value, follow_symlinks=False)
            record.xattrs.pop(xattr, None)
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
    record.xattrs[xattr] = value


def remove_xattr(fd: int, name: str, xattr: str, record: Record) -> None:
    """Remove one attribute; ENODATA where there is none."""
    held = record.xattrs.pop(xattr, None)
    try:
        os.removexattr(procfs(fd, name), xattr, follow_symlinks=False)
    except OSError as error:
        if held is None:
            if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), name) from None
            raise


def change_ids(
    hosting: Hosting, fd: int, name: str, status: os.stat_result, uid: int, gid: int, record: Record
) -> None:
    """Set owner and group of what exists; unlike chown(2), setuid and capabilities stay."""
    regular = stat_module.S_ISREG(status.st_mode)
    capability: bytes | None = None
    if regular and hosting.owner is None:
        try:
            capability = os.getxattr(procfs(fd, name), CAPABILITY, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    set_ids(hosting, fd, name, uid, gid, record)
    if regular and status.st_mode & (stat_module.S_ISUID | stat_module.S_ISGID):
        kept = record.mode
        mode = stat_module.S_IMODE(status.st_mode) if kept is None else kept
        set_mode(hosting, fd, name, Kind.FILE, mode, record)
    if capability is not None:
        set_xattr(hosting, fd, name, Kind.FILE, CAPABILITY, capability, record)


def settle(
    hosting: Hosting,
    fd: int,
    name: str,
    kind: Kind,
    mode: int,
    uid: int,
    gid: int,
    xattrs: Mapping[str, bytes],
    record: Record,
) -> None:
    """Give a new object its attributes, in the one order in which none undoes another."""
    set_ids(hosting, fd, name, uid, gid, record, fresh=True)
    if kind is not Kind.SYMLINK:
        set_mode(hosting, fd, name, kind, mode, record)
    for xattr, value in xattrs.items():
        set_xattr(hosting, fd, name, kind, xattr, value, record)


def settle_file(
    hosting: Hosting, descriptor: int, fd: int, name: str, entry: Entry, record: Record
) -> None:
    """Give a file just written through ``descriptor`` all of ``entry``'s attributes.

    By descriptor it takes three calls where ``settle`` takes seven.
    """
    if hosting.owner is None and not entry.xattrs and not entry.mode & stat_module.S_ISGID:
        try:
            os.fchown(descriptor, entry.uid, entry.gid)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            set_ids(hosting, fd, name, entry.uid, entry.gid, record, fresh=True)
        os.fchmod(descriptor, entry.mode)
    else:
        settle(hosting, fd, name, Kind.FILE, entry.mode, entry.uid, entry.gid, entry.xattrs, record)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def declare(hosting: Hosting, entry: Entry) -> Record | None:
    """Return the record of a file without xattrs whose inode is as the store wants it; None if it
    needs none."""
    if hosting.owner is None:
        return None
    record = Record()
    shown = hosting.shown_ids(*hosting.owner)
    record.uid = None if shown[0] == entry.uid else entry.uid
    record.gid = None if shown[1] == entry.gid else entry.gid
    held = hosting.native_mode(entry.kind, entry.mode)
    record.mode = None if held == entry.mode else entry.mode
    return None if record.says_nothing else record


def make_special(
    hosting: Hosting, fd: int, name: str, kind: Kind, st_mode: int, rdev: int, record: Record
) -> None:
    """Make a device or fifo, or an empty file whose record says that it is one."""
    if hosting.may_be(kind, rdev):
        try:
            os.mknod(name, stat_module.S_IFMT(st_mode) | 0o600, rdev, dir_fd=fd)
            return
        except OSError as error:
            # EINVAL: XFS numbers devices with 32 bits, of which 14 are the major number's.
            if error.errno not in (errno.EINVAL, *_NOT_MADE):
                raise
    _stand_in(fd, name, b"")
    record.kind = kind.value
    record.rdev = rdev


def make_symlink(fd: int, name: str, target: str, record: Record) -> None:
    """Make a symbolic link, or a file with its target whose record says that it is one."""
    try:
        os.symlink(target, name, dir_fd=fd)
    except OSError as error:
        said = os.fsencode(target)
        # XFS takes 1,023 bytes, Linux 4,095. The name may be what is too long.
        if error.errno != errno.ENAMETOOLONG or not 1023 < len(said) < 4096:
            raise
        _stand_in(fd, name, said)
        record.kind = Kind.SYMLINK.value


def _stand_in(fd: int, name: str, content: bytes) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=fd)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        os.write(descriptor, content)
    except BaseException:
        os.unlink(name, dir_fd=fd)
        raise
    finally:
        os.close(descriptor)


def read_symlink(fd: int, name: str, record: Record | None) -> str:
    """Return what a symbolic link says, or what stands for one."""
    if record is None or record.kind is None:
        return os.readlink(name, dir_fd=fd)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=fd), "rb") as file:
        return os.fsdecode(file.read())
