"""Tree: the file-system view of one layer or one container.

Paths are in ``Entry`` form (relative, "" is the root) and no primitive ever follows a symbolic
link, not even in the middle: a link on the way is ``NotADirectoryError``. ``resolve`` walks links
inside the root, as ``chroot`` would, for callers that take paths from people.

A driver implements the abstract methods; everything else is built on them here and may be
overridden where a driver can do better.
"""

from __future__ import annotations

import abc
import errno
import os
import stat as stat_module
import time
from collections.abc import Iterator
from typing import BinaryIO, Literal

import attrs

from .context import Closing
from .entry import Entry, Kind, file_format, join, parent_of

OpenMode = Literal["rb", "r+b", "wb", "xb", "ab"]

#: As many links as Linux follows in one look-up (path_resolution(7)).
MAX_SYMLINKS = 40


class Tree(Closing):
    """A file system: one sealed layer with all its parents below it, or one container.

    Promises of every implementation:

    * each mutating call succeeds whole or leaves the tree as it was;
    * writes reach this tree only, never a parent or sibling, whatever kind of write it is;
    * a mutating call on a tree that isn't ``writable`` raises ``OSError(EROFS)``;
    * a write changes content, size and mtime only: mode bits, owner and xattrs stay;
    * as on POSIX, creating, removing and renaming set the directories' mtime to now, writing sets
      the file's; ``utime`` sets any value back;
    * writes are visible to others and durable once ``sync`` or ``close`` returns;
    * ``scandir`` yields in the byte order of names.

    New objects belong to 0:0, the container's root, until ``chown`` says otherwise.
    """

    writable: bool = False

    # -- reading ------------------------------------------------------------------------------

    @abc.abstractmethod
    def stat(self, path: str) -> Entry:
        """Describe the object at ``path`` without following it."""

    @abc.abstractmethod
    def scandir(self, path: str) -> Iterator[Entry]:
        """Yield what directory ``path`` holds, sorted by the bytes of the names."""

    def listdir(self, path: str) -> Iterator[str]:
        """Yield the names in directory ``path``, in no certain order; the tree isn't to be changed
        meanwhile. Unlike ``scandir`` it may do with little memory, however many there are."""
        for entry in self.scandir(path):
            yield entry.name

    @abc.abstractmethod
    def open(self, path: str, mode: OpenMode = "rb") -> BinaryIO:
        """Open a regular file; seekable. ``wb``, ``xb`` and ``ab`` create it with mode 0644.

        What is written is in the tree once the file is closed.
        """

    # -- writing ------------------------------------------------------------------------------

    @abc.abstractmethod
    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make one directory; its parent must exist."""

    @abc.abstractmethod
    def symlink(self, target: str, path: str) -> None:
        """Make ``path`` a symbolic link that says ``target``."""

    @abc.abstractmethod
    def link(self, existing: str, path: str) -> None:
        """Make ``path`` another name of ``existing``, which isn't a directory."""

    @abc.abstractmethod
    def mknod(self, path: str, mode: int, rdev: int = 0) -> None:
        """Make a fifo, device or empty regular file; ``mode`` has type and permission bits."""

    @abc.abstractmethod
    def rename(self, source: str, destination: str) -> None:
        """Move, replacing ``destination`` as rename(2) does."""

    @abc.abstractmethod
    def unlink(self, path: str) -> None:
        """Remove one name that isn't a directory's."""

    @abc.abstractmethod
    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    @abc.abstractmethod
    def chmod(self, path: str, mode: int) -> None:
        """Set permission bits (``0o7777``). A symbolic link's can't be set: EOPNOTSUPP."""

    @abc.abstractmethod
    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group exactly; setuid and setgid bits stay (unlike chown(2))."""

    @abc.abstractmethod
    def utime(self, path: str, mtime_ns: int) -> None:
        """Set the modification time, of a symbolic link too."""

    @abc.abstractmethod
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        """Set one extended attribute, of any namespace and kind of object."""

    @abc.abstractmethod
    def removexattr(self, path: str, name: str) -> None:
        """Remove one extended attribute; ENODATA where there is none."""

    @abc.abstractmethod
    def truncate(self, path: str, size: int) -> None:
        """Cut or extend (with a hole) a regular file to ``size`` bytes."""

    # -- life ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def sync(self) -> None:
        """Make everything written so far visible to other openers and durable."""

    @abc.abstractmethod
    def close(self) -> None:
        """Sync and let go. Closing twice is fine."""

    # -- built on the above -------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """The directory a process can use natively; None without capability NATIVE_PATH.

        A raw writable path is handed out only where in-place writes can't reach a shared inode.
        """
        return None

    def fingerprint(self, path: str) -> bytes | None:
        """Return a name for a regular file's content, which no other content in this driver's
        store has; None: only reading it tells."""
        return None

    def exists(self, path: str) -> bool:
        """Say whether anything, a dangling link included, is at ``path``."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def readlink(self, path: str) -> str:
        """Return what the symbolic link at ``path`` says; EINVAL for anything else."""
        entry = self.stat(path)
        if entry.kind is not Kind.SYMLINK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return entry.target

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield ``path`` and everything below it, parents first, names in byte order."""
        entry = self.stat(path)
        yield entry
        if entry.kind is not Kind.DIRECTORY:
            return
        stack = [self.scandir(path)]
        while stack:
            for entry in stack[-1]:
                yield entry
                if entry.kind is Kind.DIRECTORY:
                    stack.append(self.descend(entry.path))
                    break
            else:
                stack.pop()

    def descend(self, path: str) -> Iterator[Entry]:
        """Do as ``scandir`` where a walk comes to a directory. A driver in whose containers
        processes write behind its back yields nothing if they removed it since it was listed."""
        return self.scandir(path)

    def read_bytes(self, path: str) -> bytes:
        """Return a regular file's whole content."""
        with self.open(path) as file:
            return file.read()

    def write_bytes(self, path: str, data: bytes) -> None:
        """Create or replace a regular file's content, keeping owner and mode of an existing one."""
        with self.open(path, "wb") as file:
            file.write(data)

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """Return the Entry path that a person's ``path`` leads to, links followed inside the root.

        ``..`` and absolute link targets stop at the root, as in a chroot. The last component may
        be missing; with ``follow=False`` it isn't followed.

        Raises:
            FileNotFoundError: a directory on the way is missing.
            NotADirectoryError: something on the way is not a directory.
            OSError: ELOOP, more than 40 links.
        """
        todo = path.split("/")[::-1]
        must_be_directory = path.endswith(("/", "/."))
        done = ""
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = parent_of(done)
                continue
            here = join(done, part)
            last = not any(rest not in ("", ".") for rest in todo)
            try:
                entry = self.stat(here)
            except FileNotFoundError:
                if last and not must_be_directory:
                    return here
                raise
            if entry.kind is Kind.SYMLINK and (follow or not last or must_be_directory):
                links += 1
                if links > MAX_SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if entry.target.startswith("/"):
                    done = ""
                todo.extend(entry.target.split("/")[::-1])
                continue
            if entry.kind is not Kind.DIRECTORY and (not last or must_be_directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
            done = here
        return done

    def remove_tree(self, path: str) -> None:
        """Remove ``path`` and everything below it. The root itself is emptied, not removed."""
        if self.stat(path).kind is not Kind.DIRECTORY:
            self.unlink(path)
            return
        # Deep first, with a stack of our own: images hold trees deeper than Python recurses.
        stack = [(path, list(self.scandir(path)))]
        while stack:
            directory, children = stack[-1]
            while children:
                child = children.pop()
                if child.kind is Kind.DIRECTORY:
                    stack.append((child.path, list(self.scandir(child.path))))
                    break
                self.unlink(child.path)
            else:
                stack.pop()
                if directory:
                    self.rmdir(directory)

    def apply(self, entry: Entry, content: BinaryIO | None = None) -> None:
        """Make ``entry.path`` exactly ``entry``, of any kind, whatever was there before.

        A directory over a directory keeps its children; anything else is replaced whole. What
        fails changes nothing, but for what is below a directory that was to be replaced. The
        parent directory's mtime is left as it was, so that a stream may describe it in any order.
        """
        if entry.kind is Kind.OPAQUE:
            kept = self.stat(entry.path).mtime_ns
            for child in list(self.scandir(entry.path)):
                self.remove_tree(child.path)
            self.utime(entry.path, kept)
            return
        above = parent_of(entry.path)
        above_mtime = self.stat(above).mtime_ns
        try:
            old: Entry | None = self.stat(entry.path)
        except FileNotFoundError:
            old = None
        try:
            self._apply(old, entry, content)
        finally:
            if entry.path:
                self.utime(above, above_mtime)

    def _apply(self, old: Entry | None, entry: Entry, content: BinaryIO | None) -> None:
        if entry.kind is Kind.WHITEOUT:
            if old is not None:
                self.remove_tree(entry.path)
        elif old is None:
            self._make_whole(entry, content)
        elif old.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY:
            self._set_attributes(entry)
        else:
            beside = join(parent_of(entry.path), f".cowshed-{os.urandom(8).hex()}")
            self._supersede(old, entry, content, beside)

    def _supersede(self, old: Entry, entry: Entry, content: BinaryIO | None, beside: str) -> None:
        """Put something where ``old`` is, which stays until the new one is whole ``beside`` it:
        reading content or the disk may fail."""
        self._make_whole(attrs.evolve(entry, path=beside), content)
        try:
            if Kind.DIRECTORY in (old.kind, entry.kind):  # rename(2) won't put one over the other
                self.remove_tree(old.path)
            self.rename(beside, entry.path)
            if entry.kind is Kind.HARDLINK and self.exists(beside):
                self.unlink(beside)  # of the same file: rename(2) leaves both
        except BaseException:
            self.remove_tree(beside)
            raise

    def _make_whole(self, entry: Entry, content: BinaryIO | None) -> None:
        """Make something new, or nothing."""
        if entry.kind is Kind.HARDLINK:
            self.link(entry.target, entry.path)
            return
        self._make(entry, content)
        try:
            self._set_attributes(entry)
        except BaseException:
            self.remove_tree(entry.path)
            raise

    def _make(self, entry: Entry, content: BinaryIO | None) -> None:
        if entry.kind is Kind.DIRECTORY:
            self.mkdir(entry.path, entry.mode)
        elif entry.kind is Kind.SYMLINK:
            self.symlink(entry.target, entry.path)
        elif entry.kind is Kind.FILE:
            try:
                with self.open(entry.path, "xb") as file:
                    if content is not None:
                        while data := content.read(1 << 20):
                            file.write(data)
            except FileExistsError:
                raise
            except BaseException:
                if self.exists(entry.path):
                    self.unlink(entry.path)
                raise
        else:
            self.mknod(entry.path, file_format(entry.kind) | entry.mode, entry.rdev)

    def _set_attributes(self, entry: Entry) -> None:
        now = self.stat(entry.path)
        if (now.uid, now.gid) != (entry.uid, entry.gid):
            self.chown(entry.path, entry.uid, entry.gid)
        if entry.kind is not Kind.SYMLINK and now.mode != entry.mode:
            self.chmod(entry.path, entry.mode)
        for name in now.xattrs:
            if name not in entry.xattrs:
                self.removexattr(entry.path, name)
        for name, value in entry.xattrs.items():
            if now.xattrs.get(name) != value:
                self.setxattr(entry.path, name, value)
        self.utime(entry.path, entry.mtime_ns)


def now_ns() -> int:
    """Return the time for a fresh mtime, in nanoseconds since the epoch."""
    return time.time_ns()


def is_permission_mode(mode: int) -> bool:
    """Say whether ``mode`` has nothing but permission, setuid, setgid and sticky bits."""
    return stat_module.S_IMODE(mode) == mode
