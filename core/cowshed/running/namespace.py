"""Namespace: where an ordinary user may mount: a user namespace in which he is root.

Its other users are his subordinate IDs (subuid(5)), where they are set up. A shed's containers that
run at the same time share one, so that a layer is mounted once for all of them. It lives as long as
somebody is in it, and its mounts with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import ExitStack, suppress
from pathlib import Path

from ..errors import StoreError
from ..locking import LockFile
from ..mounting import kernel
from ..native.hosting import ENTERED
from .identity import Identity, find_identity, map_users
from .registry import Registry

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
#: In the shed's root: the numbers of the mount and user namespaces that were made last.
_FILE = "namespace"
_SLAVE, _RECURSIVELY = 1 << 19, 0x4000


def enter(root: Path) -> bool:
    """Become root of a user namespace with mounts of its own: of the one in which somebody works
    with the shed at ``root``, else of a new one. False: this machine lets nobody make them, or this
    process is root.

    For a process of one thread, before it opens anything. What is mounted outside shows in there,
    what is mounted there doesn't outside.

    Raises:
        StoreError: the users can't be mapped.
    """
    identity = find_identity()
    if identity is None:
        return False
    here = ""
    with suppress(OSError):  # it was removed
        here = os.getcwd()
    if not os.access(root / "cowshed.json", os.W_OK):
        if not _make(identity):  # there is no shed yet
            return False
    else:
        with LockFile(root / "locks").acquire("namespace"):
            if not _join_others(root):
                if not _join_survivor(root) and not _make(identity):
                    return False
                _tell_others(root)
    os.environ[ENTERED] = "1"
    with suppress(OSError):
        os.chdir(here)
    return True


def _join_others(root: Path) -> bool:
    try:
        mounts, users = map(int, (root / _FILE).read_bytes().split())
    except (OSError, ValueError):
        return False
    return any(
        _is_that_of(process, users) and _join(process) for process in kernel.processes_in(mounts)
    )


def _join_survivor(root: Path) -> bool:
    """Go into the user namespace of a container that outlived who ran it, or nobody could enter it,
    with new mounts."""
    registry = Registry(root / "running")
    libc = ctypes.CDLL(None, use_errno=True)
    for container in registry.containers():
        process = registry.process(container)
        if process is None:
            continue
        with suppress(OSError), open(f"/proc/{process}/ns/user", "rb") as users:
            if libc.setns(users.fileno(), _NEW_USERS) == 0:
                return bool(libc.unshare(_NEW_MOUNTS) == 0 and _let_in(libc))
    return False


def _let_in(libc: ctypes.CDLL) -> bool:
    """Let what is mounted outside show, and nothing of ours outside."""
    flags = ctypes.c_ulong(_SLAVE | _RECURSIVELY)
    return bool(libc.mount(None, b"/", None, flags, None) == 0)


def _is_that_of(process: str, users: int) -> bool:
    """Say whether a process lives in that user namespace, too, and sees our root: numbers are given
    anew, and the next to have one may be a container."""
    with suppress(OSError):
        root = os.stat(f"/proc/{process}/root")
        return os.stat(f"/proc/{process}/ns/user").st_ino == users and os.path.samestat(
            root, os.stat("/")
        )
    return False


def _tell_others(root: Path) -> None:
    aside = root / f"{_FILE}.{os.getpid()}"
    with aside.open("x", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        file.write(f"{kernel.namespace()} {os.stat('/proc/self/ns/user').st_ino}")
    os.rename(aside, root / _FILE)


def _join(process: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as opened:
        spaces: list[int] = []
        for kind in ("user", "mnt"):
            try:
                space = os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False  # it has ended, or isn't ours
            opened.callback(os.close, space)
            spaces.append(space)
        user, mounts = spaces
        return bool(libc.setns(user, _NEW_USERS) == 0 and libc.setns(mounts, _NEW_MOUNTS) == 0)


def _make(identity: Identity) -> bool:
    """Make them. Somebody outside has to map the users: a child of ours that stays there."""
    libc = ctypes.CDLL(None, use_errno=True)
    (made, made_in), (said, said_in) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(made_in)
        problem = b""
        try:
            if os.read(made, 1):
                map_users(str(os.getppid()), identity)
        except BaseException as error:
            problem = str(error).encode("utf-8", "replace")
        os.write(said_in, problem[:4000])
        os._exit(0)
    os.close(said_in)
    try:
        if libc.unshare(_NEW_USERS | _NEW_MOUNTS) != 0:
            return False
        os.write(made_in, b"\n")
        problem = os.read(said, 4096)
        if problem:
            raise StoreError(problem.decode())
        if not _let_in(libc):
            code = ctypes.get_errno()
            if code in (errno.EPERM, errno.EACCES):
                raise StoreError(
                    "this system gives an ordinary user's namespaces no privilege; run cowshed as "
                    "root, or have its security policy (AppArmor, SELinux) let cowshed mount"
                )
            raise StoreError(f"a namespace can't be made: {os.strerror(code)}")
    finally:
        for descriptor in (made, made_in, said):
            os.close(descriptor)
        os.waitpid(child, 0)
    return True
