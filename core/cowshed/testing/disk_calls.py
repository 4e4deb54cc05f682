"""The system calls by which a process changes what is on disk, and a seccomp filter that stops it
at each (seccomp(2), seccomp_unotify(2); numbers from the kernel's tables, by machine).

Whoever makes the call is stopped: Python, LMDB's commits, SQLite, a driver's own C. Opening a file
counts if that may make or empty it, an ioctl if it is of the kind that clones extents, snapshots
or removes subvolumes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Mapping

import attrs

_X86_64 = (
    "write 1 pwrite64 18 writev 20 pwritev 296 pwritev2 328 sendfile 40 copy_file_range 326 "
    "fsync 74 fdatasync 75 msync 26 syncfs 306 sync 162 truncate 76 ftruncate 77 fallocate 285 "
    "rename 82 renameat 264 renameat2 316 mkdir 83 mkdirat 258 rmdir 84 link 86 linkat 265 "
    "unlink 87 unlinkat 263 symlink 88 symlinkat 266 mknod 133 mknodat 259 chmod 90 fchmod 91 "
    "fchmodat 268 fchmodat2 452 chown 92 fchown 93 lchown 94 fchownat 260 setxattr 188 "
    "lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199 setxattrat 463 "
    "removexattrat 466 utime 132 utimes 235 utimensat 280 creat 85 open 2 openat 257 ioctl 16 "
    "seccomp 317"
)
_AARCH64 = (
    "write 64 pwrite64 68 writev 66 pwritev 70 pwritev2 287 sendfile 71 copy_file_range 285 "
    "fsync 82 fdatasync 83 msync 227 syncfs 267 sync 81 truncate 45 ftruncate 46 fallocate 47 "
    "renameat 38 renameat2 276 mkdirat 34 linkat 37 unlinkat 35 symlinkat 36 mknodat 33 fchmod 52 "
    "fchmodat 53 fchmodat2 452 fchown 55 fchownat 54 setxattr 5 lsetxattr 6 fsetxattr 7 "
    "removexattr 14 lremovexattr 15 fremovexattr 16 setxattrat 463 removexattrat 466 utimensat 88 "
    "openat 56 ioctl 29 seccomp 277"
)


@attrs.frozen
class Machine:
    """What a machine calls its system calls."""

    #: AUDIT_ARCH_… of linux/audit.h.
    architecture: int
    numbers: Mapping[str, int]

    @property
    def names(self) -> Mapping[int, str]:
        """The other way round."""
        return {number: name for name, number in self.numbers.items()}


def _numbers(table: str) -> dict[str, int]:
    words = table.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


_MACHINES = {
    "x86_64": Machine(0xC000003E, _numbers(_X86_64)),
    "aarch64": Machine(0xC00000B7, _numbers(_AARCH64)),
}

#: Calls whose first argument is a descriptor that says where they write.
BY_DESCRIPTOR = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "fsync", "fdatasync"),
    *("syncfs", "ftruncate", "fallocate", "fchmod", "fchown", "fsetxattr", "fremovexattr", "ioctl"),
}
#: Calls whose first argument is a path, or the second after a directory's descriptor.
BY_PATH = {
    *("truncate", "rename", "mkdir", "rmdir", "link", "unlink", "symlink", "mknod", "chmod"),
    *("chown", "lchown", "setxattr", "lsetxattr", "removexattr", "lremovexattr", "creat", "open"),
    *("utime", "utimes"),
}
#: What does nothing but wait for the disk. A process that is killed leaves all that it wrote to the
#: kernel, so they needn't be done.
SYNCS = {"fsync", "fdatasync", "msync", "syncfs", "sync"}
#: What a full disk may refuse; it never refuses to give something back.
TAKES_SPACE = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("fsync", "fdatasync", "msync", "syncfs"),
    *("fallocate", "rename", "renameat", "renameat2"),
    *("mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "creat"),
    *("open", "openat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "ioctl"),
}


class Unavailable(Exception):
    """This machine can't stop a process at its system calls; says why."""


def machine() -> Machine:
    """Return this machine's.

    Raises:
        Unavailable: nobody wrote down its numbers.
    """
    found = _MACHINES.get(platform.machine())
    if found is None or os.uname().sysname != "Linux":
        raise Unavailable(f"the numbers of {platform.machine()}'s system calls aren't known here")
    return found


# -- the filter: BPF over struct seccomp_data (linux/seccomp.h) ---------------------------------

_LOAD, _AND, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_MAKES = os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
#: BTRFS_IOCTL_MAGIC, which FICLONE and FICLONERANGE have too.
_CLONES = 0x9400


def _program(here: Machine) -> bytes:
    """Return the filter's instructions. Jumps are relative and forward; both ends come last."""
    special = {
        name: [(_LOAD, _ARGUMENTS + 8 * argument), *test]
        for name, argument, test in (
            ("open", 1, [(_ANY_BIT, _MAKES)]),
            ("openat", 2, [(_ANY_BIT, _MAKES)]),
            ("ioctl", 1, [(_AND, 0xFF00), (_EQUAL, _CLONES)]),
        )
        if name in here.numbers
    }
    simple = [number for name, number in here.numbers.items() if name not in (*special, "seccomp")]
    # Head, simple calls, jumps to the special ones, "allow", those, "notify", and "allow" again.
    starts: dict[str, int] = {}
    at = 3 + len(simple) + len(special) + 1
    for name, block in special.items():
        starts[name] = at
        at += len(block)
    notify, allow = at, at + 1
    code: list[bytes] = []

    def put(operation: int, value: int, yes: int | None = None, no: int | None = None) -> None:
        following = len(code) + 1
        jumps = [0 if target is None else target - following for target in (yes, no)]
        code.append(struct.pack("=HBBI", operation, *jumps, value))

    put(_LOAD, _ARCHITECTURE)
    put(_EQUAL, here.architecture, None, allow)
    put(_LOAD, _NUMBER)
    for number in simple:
        put(_EQUAL, number, notify)
    for name, start in starts.items():
        put(_EQUAL, here.numbers[name], start)
    put(_RETURN, _ALLOW)
    for block in special.values():
        for operation, value in block:
            if operation in (_LOAD, _AND):
                put(operation, value)
            else:
                put(operation, value, notify, allow)
    put(_RETURN, _NOTIFY)
    put(_RETURN, _ALLOW)
    return b"".join(code)


_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3


def install() -> int:
    """Stop this thread and all that it starts at each such call, until whoever reads the returned
    descriptor answers. It can't be undone.

    Raises:
        Unavailable: the kernel doesn't let us.
    """
    here = machine()
    program = _program(here)
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    # Without it the filter takes privilege.
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(here.numbers["seccomp"], _SET_MODE_FILTER, _NEW_LISTENER, head)
    if listener < 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unavailable(f"the kernel refuses a seccomp filter with a listener: {reason}")
    return listener
