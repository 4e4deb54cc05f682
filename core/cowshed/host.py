"""Host: reading and writing the host's own files for ``cp``, by directory descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from .bounded import exactly
from .entry import Entry, Kind, join, kind_of

if TYPE_CHECKING:
    from .tree import Tree

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)
_SETID = stat.S_ISUID | stat.S_ISGID
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a file system or a user without privilege answers to attributes it can't hold.
_CANT = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}

Warn = Callable[[str], None]


# -- reading -------------------------------------------------------------------------------------


def read_host(
    top: str, status: os.stat_result, *, archive: bool, warn: Warn
) -> Iterator[tuple[str, Entry, BinaryIO | None]]:
    """Yield (path below ``top``, entry, content) of ``top`` and everything below it, parents
    first. Only ``top`` itself may be a link that was followed; sockets are skipped with a word."""
    names: dict[tuple[int, int], str] = {}
    todo: list[tuple[str, os.stat_result]] = [("", status)]
    while todo:
        path, status = todo.pop()
        full = os.path.join(top, path) if path else top
        kind = kind_of(status.st_mode)
        if kind is None:
            warn(f"{full}: a socket, skipped")
            continue
        if status.st_nlink > 1 and kind is not Kind.DIRECTORY:
            first = names.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                yield path, Entry(path=path, kind=Kind.HARDLINK, target=first), None
                continue
        if kind is Kind.FILE:
            with _open_file(full, follow=not path) as file:
                # The file that was opened is the one described, whatever the name means by now.
                status = os.fstat(file.fileno())
                entry = _describe(full, path, status, Kind.FILE, archive)
                yield path, entry, exactly(file, status.st_size)
            continue
        yield path, _describe(full, path, status, kind, archive), None
        if kind is Kind.DIRECTORY:
            children = sorted(os.listdir(full), key=os.fsencode, reverse=True)
            for name in children:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    child = join(path, name)
                    todo.append((child, os.lstat(os.path.join(top, child))))


def _open_file(path: str, *, follow: bool) -> BinaryIO:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    return os.fdopen(os.open(path, flags), "rb")


def _describe(full: str, path: str, status: os.stat_result, kind: Kind, archive: bool) -> Entry:
    return Entry(
        path=path,
        kind=kind,
        mode=0o777 if kind is Kind.SYMLINK else stat.S_IMODE(status.st_mode),
        uid=status.st_uid if archive else 0,
        gid=status.st_gid if archive else 0,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind is Kind.FILE else 0,
        target=os.readlink(full) if kind is Kind.SYMLINK else "",
        rdev=status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
        xattrs=_xattrs(full, follow=not path and kind is not Kind.SYMLINK),
    )


def _xattrs(path: str, *, follow: bool) -> dict[str, bytes]:
    """Read extended attributes; the label that the host's SELinux gave is the host's business."""
    found: dict[str, bytes] = {}
    try:
        for name in os.listxattr(path, follow_symlinks=follow):
            if name.startswith(("user.", "security.capability")):
                found[name] = os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _CANT | {errno.ENODATA}:
            raise
    return found


# -- writing -------------------------------------------------------------------------------------


class HostWriter:
    """Writes a tree's objects below directories of the host."""

    def __init__(self, *, archive: bool, warn: Warn) -> None:
        self._archive = archive
        self._warn = warn
        self._warned: set[str] = set()
        self._stack = ExitStack()
        self._names: dict[int, str] = {}
        self._root = -1

    def __enter__(self) -> HostWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, tree: Tree, path: str, directory: str, name: str) -> None:
        """Write ``path`` as ``name`` in ``directory``, which a person named and may be a link."""
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, root)
        self._root = root
        self._write(tree, tree.stat(path), root, name, name)

    def write_content(self, tree: Tree, path: str, directory: str) -> None:
        """Write what directory ``path`` holds into ``directory``."""
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, root)
        self._root = root
        for entry in tree.scandir(path):
            self._write(tree, entry, root, entry.name, entry.name)

    def _write(self, tree: Tree, top: Entry, at: int, name: str, shown: str) -> None:
        """Write one object and all below it, with a stack of our own: trees may be very deep."""
        if not self._make(tree, top, at, name, shown):
            return
        if top.kind is not Kind.DIRECTORY:
            return
        stack = [
            (top, at, name, os.open(name, _DIRECTORY, dir_fd=at), tree.scandir(top.path), shown)
        ]
        try:
            while stack:
                directory, above, own, here, children, path = stack[-1]
                for child in children:
                    below = join(path, child.name)
                    if not self._make(tree, child, here, child.name, below):
                        continue
                    if child.kind is Kind.DIRECTORY:
                        opened = os.open(child.name, _DIRECTORY, dir_fd=here)
                        listed = tree.scandir(child.path)
                        stack.append((child, here, child.name, opened, listed, below))
                        break
                else:
                    # Last, for a directory may deny writing, and each child changes its time.
                    self._attributes(directory, above, own, here)
                    os.close(here)
                    stack.pop()
        finally:
            for item in stack:
                os.close(item[3])

    def _make(self, tree: Tree, entry: Entry, at: int, name: str, shown: str) -> bool:
        """Make one object; directories get their attributes later. False: it was skipped."""
        if entry.kind is Kind.DIRECTORY:
            try:
                os.mkdir(name, 0o700, dir_fd=at)
            except FileExistsError:
                mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
                if not stat.S_ISDIR(mode):
                    raise _clash(shown) from None
            return True
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise _clash(shown)
        if entry.inode and entry.links > 1 and self._link(entry, at, name, shown):
            return True
        aside = f".cowshed-{os.urandom(8).hex()}"
        try:
            if not self._make_aside(tree, entry, at, aside, shown):
                return False
            os.rename(aside, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside, dir_fd=at)
            raise
        return True

    def _link(self, entry: Entry, at: int, name: str, shown: str) -> bool:
        """Make a further name of what was written already, if it was."""
        first = self._names.setdefault(entry.inode, shown)
        if first == shown:
            return False
        above, _, leaf = first.rpartition("/")
        with self._open_below(above) as holder:
            aside = f".cowshed-{os.urandom(8).hex()}"
            try:
                os.link(leaf, aside, src_dir_fd=holder, dst_dir_fd=at, follow_symlinks=False)
            except OSError:
                return False  # it was skipped, or the file system has no links: a copy then
            os.rename(aside, name, src_dir_fd=at, dst_dir_fd=at)
        return True

    @contextlib.contextmanager
    def _open_below(self, path: str) -> Generator[int, None, None]:
        here = os.dup(self._root)
        try:
            for part in path.split("/") if path else ():
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def _make_aside(self, tree: Tree, entry: Entry, at: int, aside: str, shown: str) -> bool:
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, aside, dir_fd=at)
            self._attributes(entry, at, aside, None)
            return True
        if entry.kind is not Kind.FILE:
            try:
                os.mknod(aside, stat.S_IFMT(entry.st_mode) | 0o600, entry.rdev, dir_fd=at)
            except OSError as error:
                if error.errno not in _CANT:
                    raise
                self._warn(f"{shown}: a {entry.kind.value} needs privilege to be made, skipped")
                return False
            self._attributes(entry, at, aside, None)
            return True
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            tree.open(entry.path) as content,
            os.fdopen(os.open(aside, flags, 0o600, dir_fd=at), "wb", buffering=0) as file,
        ):
            _copy_sparse(content, file.fileno())
            self._attributes(entry, at, aside, file.fileno())
        return True

    def _attributes(self, entry: Entry, at: int, name: str, descriptor: int | None) -> None:
        """Set owner, mode, xattrs and time, in the order in which none undoes another."""
        symlink = entry.kind is Kind.SYMLINK
        if self._archive:
            with self._tolerating("owners"):
                os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        if not symlink:
            mode = entry.mode if self._archive else entry.mode & ~_SETID
            # The name is fresh and the directory ours, so nothing can be a link here.
            if descriptor is not None:
                os.fchmod(descriptor, mode)
            else:
                os.chmod(name, mode, dir_fd=at)
        if descriptor is not None:
            for key, value in entry.xattrs.items():
                if self._archive or key.startswith("user."):
                    with self._tolerating(f"extended attributes ({key})"):
                        os.setxattr(descriptor, key, value)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    @contextlib.contextmanager
    def _tolerating(self, what: str) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _CANT:
                raise
            if what not in self._warned:
                self._warned.add(what)
                self._warn(f"{what} can't be kept here: {error.strerror}")


def _clash(path: str) -> OSError:
    return OSError(errno.ENOTDIR, "a directory can't replace anything else, nor the reverse", path)


def _copy_sparse(content: BinaryIO, descriptor: int) -> None:
    """Copy, leaving holes where there are blocks of zeros."""
    while data := content.read(_BLOCK):
        if data == _ZEROS:
            os.lseek(descriptor, _BLOCK, os.SEEK_CUR)
            continue
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
