"""Objects: the farm's inodes by key.

    objects/ab/KEY       an inode whose content and metadata hash to KEY
    objects/ab/KEY.N     the same once it had as many links as the file system allows
    objects/ab/KEY.dying an inode being collected

An object's name here is one of its links, so an inode that only ``objects`` names has
``st_nlink == 1``. Nothing gets a name here before its data is durable; a name that a crash lost
costs dedup, nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat as stat_module
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from cowshed.native.cloning import copy_object
from cowshed.native.syscalls import OPEN_DIRECTORY, list_xattrs, make_directory

_PIECE = 1 << 20
_DYING = ".dying"


def make_key(
    content: Hash,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    size: int,
    xattrs: Mapping[str, bytes],
) -> str:
    """Return the key of an inode: what it natively is, over what it holds.

    The description follows the content and holds its size, so no content can imitate it.
    """
    described = f"{mode:o} {uid} {gid} {mtime_ns} {size}"
    if xattrs:
        described += f" {sorted(xattrs.items())!r}"
    whole = content.copy()
    whole.update(described.encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def key_of_file(descriptor: int, content: Hash | None = None) -> str:
    """Return the key of an open file; ``content`` is its hash, if known already."""
    if content is None:
        content = hashlib.sha256()
        offset = 0
        while piece := os.pread(descriptor, _PIECE, offset):
            content.update(piece)
            offset += len(piece)
    status = os.fstat(descriptor)
    xattrs = list_xattrs(f"/proc/self/fd/{descriptor}", follow=True)
    return make_key(
        content,
        stat_module.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_size,
        xattrs,
    )


class Hash(Protocol):
    """What hashlib returns."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Self: ...


class Objects:
    """The directory of objects. ``max_links``: stop there rather than where the kernel does."""

    def __init__(self, root: str, max_links: int | None) -> None:
        path = os.path.join(root, "objects")
        make_directory(path)
        self._fd = os.open(path, OPEN_DIRECTORY)
        self._path = path
        self.max_links = max_links

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def link(self, key: str, fd: int, name: str) -> bool:
        """Make ``name`` a link to the object; False if there is none or it is full.

        Raises:
            FileExistsError: the name is taken.
        """
        try:
            link(_at(key), name, self._fd, fd, self.max_links)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._retire(key)
            return False
        return True

    def add(self, key: str, fd: int, name: str, *, is_shared: Callable[[], bool]) -> None:
        """Name a durable new file as object. If somebody else was faster, theirs takes its place,
        unless ``is_shared``: a file with several names in its tree stays as it is."""
        try:
            self._name(key, fd, name)
            return
        except FileExistsError:
            if is_shared():
                return
        if os.stat(name, dir_fd=fd, follow_symlinks=False).st_nlink > 1:
            # Files of the stage share it already: both are objects of that key.
            at = _retired(key)
            try:
                os.link(name, at, src_dir_fd=fd, dst_dir_fd=self._fd, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                self._cede(key, fd, name)
        aside = f".{os.urandom(8).hex()}"
        if self.link(key, fd, aside):
            os.rename(aside, name, src_dir_fd=fd, dst_dir_fd=fd)
        else:
            with contextlib.suppress(FileExistsError):
                self._name(key, fd, name)

    def _name(self, key: str, fd: int, name: str) -> None:
        while True:
            try:
                os.link(name, _at(key), src_dir_fd=fd, dst_dir_fd=self._fd, follow_symlinks=False)
                return
            except FileNotFoundError:
                os.stat(name, dir_fd=fd, follow_symlinks=False)  # it isn't the file that is missing
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                self._cede(key, fd, name)
            # Made when needed: 256 directories would cost each new store 1 MiB and 10 ms. A
            # collector may remove it again before it is used.
            with contextlib.suppress(FileNotFoundError):
                make_directory(os.path.join(self._path, key[:2]))

    def _cede(self, key: str, fd: int, name: str) -> None:
        """Put a fresh inode under ``name``; the one it had, which a stage has filled with links
        before it was an object, moves here as one that is full."""
        fresh = f".{os.urandom(8).hex()}"
        copy_object(fd, name, fd, fresh)
        os.rename(name, _retired(key), src_dir_fd=fd, dst_dir_fd=self._fd)
        os.rename(fresh, name, src_dir_fd=fd, dst_dir_fd=fd)

    def renew(self, key: str, fd: int, name: str) -> None:
        """Let a fresh inode follow a full one under ``key``."""
        with contextlib.suppress(FileNotFoundError):
            self._retire(key)
        with contextlib.suppress(FileExistsError):
            self._name(key, fd, name)

    def _retire(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.rename(_at(key), _retired(key), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def keys_by_inode(self) -> dict[int, str]:
        """Return the key of every object, by inode number."""
        keys: dict[int, str] = {}
        for prefix in sorted(os.listdir(self._fd)):
            try:
                fd = os.open(prefix, OPEN_DIRECTORY, dir_fd=self._fd)
            except FileNotFoundError:
                continue  # collected meanwhile
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        keys[entry.inode()] = entry.name.partition(".")[0]
            finally:
                os.close(fd)
        return keys

    def collect(self) -> int:
        """Remove what no tree links to; return the bytes (allocated) that came free.

        Without holding up stages: a dying object loses its key first, so that nobody can find it
        any more, and only if it still has a single link then is it removed.
        """
        freed = 0
        for prefix in sorted(os.listdir(self._fd)):
            fd = os.open(prefix, OPEN_DIRECTORY, dir_fd=self._fd)
            try:
                for name in os.listdir(fd):
                    with contextlib.suppress(FileNotFoundError):
                        freed += _collect(fd, name)
            finally:
                os.close(fd)
            with contextlib.suppress(OSError):  # it isn't empty
                os.rmdir(prefix, dir_fd=self._fd)
        return freed


def _collect(fd: int, name: str) -> int:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if status.st_nlink > 1 and not name.endswith(_DYING):
        return 0
    dying = name
    if not name.endswith(_DYING):
        dying = f"{name}{_DYING}"
        os.rename(name, dying, src_dir_fd=fd, dst_dir_fd=fd)
        status = os.stat(dying, dir_fd=fd, follow_symlinks=False)
    if status.st_nlink == 1:
        os.unlink(dying, dir_fd=fd)
        return status.st_blocks * 512
    # A stage was faster: the object lives, under a name of its own if the key is taken again.
    living = dying[: -len(_DYING)]
    try:
        os.link(dying, living, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        os.unlink(dying, dir_fd=fd)
    except FileExistsError:
        number = int.from_bytes(os.urandom(6), "big")
        retired = f"{living.partition('.')[0]}.{number}"
        os.rename(dying, retired, src_dir_fd=fd, dst_dir_fd=fd)
    return 0


def link(source: str, name: str, source_fd: int, fd: int, max_links: int | None) -> None:
    """link(2) with a bound: EMLINK at ``max_links`` already, if that is given."""
    if max_links is not None:
        status = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
        if status.st_nlink >= max_links:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), name)
    os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)


def _at(key: str) -> str:
    return f"{key[:2]}/{key}"


def _retired(key: str) -> str:
    # A random number: concurrent processes mustn't overwrite each other's.
    return f"{_at(key)}.{int.from_bytes(os.urandom(6), 'big')}"
