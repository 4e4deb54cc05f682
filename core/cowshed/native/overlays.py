"""Overlay mounts as descriptors, without a mount point.

The calls of Linux 5.2 (fsopen, fsconfig, fsmount) make a mount that is attached nowhere. It lives
as long as something of it is open, so a killed process leaves nothing to unmount, and making one
takes 0.15 ms to read and 0.27 ms to write. Layers are handed over one by one as descriptors, by
``lowerdir+`` of Linux 6.7, so neither their number nor their names are bounded by a page of text.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Sequence

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of system calls are the same on all machines since Linux 5.1.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_USTAT = 136
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_READ_ONLY, _NO_ATIME = 0x1, 0x10
_FROM_EMPTY_PATH = 0x4
_LAZILY = 2

#: Nothing that depends on how the running kernel was configured. ``index`` would tie an upper
#: directory to the lower ones it was first mounted on, so that it could never become one; and a
#: directory that was moved by ``redirect_dir`` hides where its content is from everything but the
#: kernel. A null ``uuid`` saves an attribute on every upper directory.
_OPTIONS = (
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
    ("xino", "off"),
    ("uuid", "null"),
)

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


#: For an upper directory that is read once, by us, and then thrown away: what is found behind
#: names may have moved, and all files of the mount shall seem to be on one device, or programs
#: that stay on one (``tar --one-file-system``) leave out what nobody wrote yet.
FREELY = (("metacopy", "on"), ("redirect_dir", "on"), ("xino", "on"))


def mount(
    lowers: Sequence[int],
    *,
    data: Sequence[int] = (),
    upper: int | None = None,
    work: int | None = None,
    user_xattrs: bool = False,
    volatile: bool = False,
    options: Iterable[tuple[str, str]] = (),
) -> int:
    """Return a detached mount of the open directories ``lowers``, topmost first, below ``upper``.

    Without ``upper`` it is read-only and takes two directories at least. ``data``: directories that
    show nowhere and hold the content of files that ``lowers`` say it of. ``volatile``: nothing in
    it is ever synced, and ``work`` can't be used a second time. ``options`` go before ours.

    Raises:
        OSError: the kernel can't; what it says of the reason is in ``strerror``.
    """
    context = _call(_FSOPEN, b"overlay", _CLOEXEC)
    try:
        try:
            for lower in lowers:
                _set(context, "lowerdir+", _path(lower))
            for directory in data:
                _set(context, "datadir+", _path(directory))
            if upper is not None and work is not None:
                _set(context, "upperdir", _path(upper))
                _set(context, "workdir", _path(work))
            for name, value in {**dict(_OPTIONS), **dict(options)}.items():
                _set(context, name, value)
            if user_xattrs:
                _set(context, "userxattr")
            if volatile:
                _set(context, "volatile")
            _call(_FSCONFIG, context, _CREATE, None, None, 0)
        except OSError as error:
            raise _explained(context, error) from None
        attributes = _NO_ATIME | (_READ_ONLY if upper is None else 0)
        return _call(_FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def is_upper(directory: int, *, user_xattrs: bool = False) -> bool:
    """Say whether an open directory is the upper one of a mount, in whatever mount namespace.

    With ``index`` the kernel takes no upper directory twice; without a work directory of its own it
    takes none at all, so nothing is ever mounted.
    """
    context = _call(_FSOPEN, b"overlay", _CLOEXEC)
    try:
        for name in ("lowerdir+", "upperdir", "workdir"):
            _set(context, name, _path(directory))
        _set(context, "index", "on")
        if user_xattrs:
            _set(context, "userxattr")
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
    except OSError as error:
        return error.errno == errno.EBUSY
    finally:
        os.close(context)
    raise AssertionError("the kernel mounts a directory over itself")


def has_ended(device: int) -> bool:
    """Say whether no file system has that device number (``st_dev``) any more; False: one has, or
    nobody can tell.

    To ask this of a mount's takes microseconds, to try its upper directory a millisecond and more.
    Only x86-64 has the call (ustat(2)).
    """
    if os.uname().machine != "x86_64":
        return False
    room = ctypes.create_string_buffer(64)
    if _libc.syscall(ctypes.c_long(_USTAT), ctypes.c_long(_kernels(device)), room) == 0:
        return False
    return ctypes.get_errno() == errno.EINVAL


def _kernels(device: int) -> int:
    """Return a device number as system calls take it (new_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def open_root(mounted: int) -> int:
    """Return a descriptor of a mount's root that keeps it, and let go of the mount itself.

    What fsmount returns can be attached somewhere, but not be read.
    """
    try:
        return os.open(".", _OPEN, dir_fd=mounted)
    finally:
        os.close(mounted)


def attach(mounted: int, path: str) -> None:
    """Attach a detached mount at directory ``path``, where it stays."""
    _call(_MOVE_MOUNT, mounted, b"", -100, os.fsencode(path), _FROM_EMPTY_PATH)


def detach(path: str) -> None:
    """Take the mount at ``path`` away; who uses it now may go on."""
    if _libc.umount2(os.fsencode(path), _LAZILY) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def _path(descriptor: int) -> str:
    # The kernel takes no more than 255 bytes of text, and descriptors only since Linux 6.13.
    return f"/proc/self/fd/{descriptor}"


def _set(context: int, name: str, value: str | None = None) -> None:
    if value is None:
        _call(_FSCONFIG, context, _SET_FLAG, name.encode(), None, 0)
    else:
        _call(_FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)


def _call(number: int, *arguments: int | bytes | None) -> int:
    # As registers, not as ints of 32 bits.
    registers = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *registers)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _explained(context: int, error: OSError) -> OSError:
    """Return the error together with what the kernel wrote into the context's log."""
    said: list[str] = []
    while True:
        try:
            line = os.read(context, 4096).decode(errors="replace").strip()
        except OSError:
            break
        said.append(line.removeprefix("e ").removeprefix("overlay: "))
    code = error.errno or errno.EIO
    return OSError(code, "; ".join([error.strerror or os.strerror(code), *said]))
