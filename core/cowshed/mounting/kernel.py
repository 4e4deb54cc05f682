"""Kernel: mounts as the kernel sees them, and the calls on them that ``os`` doesn't offer."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

_BIND, _READ_ONLY = 0x1000, 0x1
_PRIVATE, _RECURSIVELY = 1 << 18, 0x4000
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_LAZILY, _NO_FOLLOW = 2, 8
_MOUNT_SETATTR = 442  # the same on all machines
_ATTR_READ_ONLY, _ATTR_NO_SUID, _ATTR_NO_DEV = 0x1, 0x2, 0x4
_AT_FDCWD = -100

#: What the kernel says where privilege is missing.
REFUSED = (errno.EPERM, errno.EACCES)


class Point(NamedTuple):
    """One line of mountinfo, as far as we need it."""

    path: str
    kind: str
    #: ``major:minor``
    device: str


def points(process: str = "self", *, about: str = "") -> Iterator[Point]:
    """Yield the mounts that a process sees, in the order in which they were made; with ``about``
    at least all those whose paths begin with it. A machine may have thousands."""
    wanted = _escaped(os.fsencode(about))
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        for line in file:
            if wanted not in line:
                continue
            before, _, after = line.partition(b" - ")
            fields = before.split()
            yield Point(
                path=os.fsdecode(_unescaped(fields[4])),
                kind=after.split()[0].decode(),
                device=fields[2].decode(),
            )


def point_at(path: str, process: str = "self") -> Point | None:
    """Return the mount at ``path``, the topmost of several; it isn't touched, so it may be dead."""
    found = None
    for point in points(process, about=path):
        if point.path == path:
            found = point
    return found


def kind_at(path: str) -> str:
    """Return the kind of file system that an existing ``path`` lies on."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    found = point_at(path)
    return "unknown" if found is None else found.kind


def _escaped(text: bytes) -> bytes:
    """Return a path as mountinfo has it."""
    for one in b"\\ \t\n":
        text = text.replace(bytes([one]), b"\\%03o" % one)
    return text


def _unescaped(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    first, *rest = text.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def namespace() -> int:
    """Return what tells this process's mount namespace from others of this boot."""
    return os.stat("/proc/self/ns/mnt").st_ino


def in_first_namespace() -> bool:
    """Say whether we are where the machine's own processes are, whose mounts last till it stops."""
    try:
        return os.stat("/proc/1/ns/mnt").st_ino == namespace()
    except OSError:  # another user's process: it takes privilege to look
        return os.geteuid() != 0 or in_first_user_namespace()


def in_first_user_namespace() -> bool:
    """Say whether privilege, where we have it, is the machine's."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == 0xEFFFFFFD  # PROC_USER_INIT_INO
    except OSError:
        return True  # a kernel without user namespaces


def leave_namespace(paths: Iterable[str]) -> None:
    """Go into a mount namespace of our own, without the mounts at ``paths``: who stays in one keeps
    it and all its mounts alive."""
    if _libc.unshare(_NEW_MOUNTS) != 0:
        raise _error("/proc/self/ns/mnt")
    _mount("none", "/", None, _RECURSIVELY | _PRIVATE, None)
    for path in paths:
        with suppress(OSError):
            unmount(path, lazily=True)


def processes_in(space: int) -> Iterator[str]:
    """Yield the processes that live in that mount namespace, as far as we can see them. Whoever is
    yielded may end the next moment; another one may go on."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}/ns/mnt").st_ino == space:
                    yield name


def bind(source: str, target: str) -> None:
    """Show directory ``source`` at ``target``."""
    _mount(source, target, None, _BIND, None)


def mount_fuse(descriptor: int, target: str, options: str, flags: int = 0) -> None:
    """Mount what the server behind an open ``/dev/fuse`` serves."""
    _mount("cowshed", target, "fuse.cowshed", flags | _READ_ONLY, f"fd={descriptor},{options}")


def mount_erofs(image: str, target: str) -> None:
    """Mount an EROFS image that is a file (Linux 6.12)."""
    _mount(image, target, "erofs", _READ_ONLY, None)


def restrict(path: str, *, read_only: bool, no_suid: bool) -> None:
    """Let nobody open devices in the mount at ``path``, and as asked, write or gain privilege."""
    wanted = _ATTR_NO_DEV
    wanted |= _ATTR_READ_ONLY if read_only else 0
    wanted |= _ATTR_NO_SUID if no_suid else 0
    arguments = struct.pack("QQQQ", wanted, 0, 0, 0)
    registers = (ctypes.c_long(_AT_FDCWD), os.fsencode(path), ctypes.c_long(0), arguments)
    size = ctypes.c_long(len(arguments))
    if _libc.syscall(ctypes.c_long(_MOUNT_SETATTR), *registers, size) != 0:
        raise _error(path)


def unmount(path: str, *, lazily: bool = False) -> None:
    """Take the mount at ``path`` away; ``lazily``: who has something open there may go on.

    Raises:
        OSError: EBUSY: it is in use; EINVAL: nothing is mounted there.
    """
    if _libc.umount2(os.fsencode(path), (_LAZILY if lazily else 0) | _NO_FOLLOW) != 0:
        raise _error(path)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    options = None if data is None else os.fsencode(data)
    if _libc.mount(*arguments, ctypes.c_ulong(flags), options) != 0:
        raise _error(target)


def _error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
