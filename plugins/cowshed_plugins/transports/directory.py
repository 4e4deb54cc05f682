"""``dir:PATH``: a root file system in a directory, read as if it were a tar.

The tree is walked by directory descriptors and no symbolic link is followed, so what others do
there meanwhile can't lead outside. Sockets are left out: they belong to a running process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from cowshed.entry import NO_XATTRS, Entry, Kind, join, kind_of, parent_of
from cowshed.errors import NotFoundError, SourceError, UnsupportedError, UsageError
from cowshed.oci import Platform
from cowshed.pipes import piped
from cowshed.target import Target
from cowshed.transport import Source, SourceImage, Transport

from .tarball import bare_image

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: SELinux labels belong to the host that set them.
_HOST_ONLY = "security.selinux"


class DirectoryTransport(Transport):
    """Root file systems in directories; only read."""

    def open_source(self, rest: str) -> Source:
        if not rest:
            raise UsageError("a directory is missing after 'dir:'")
        if not os.path.isdir(rest):
            if os.path.exists(rest):
                raise UsageError(f"{rest} is not a directory; for a tar use tar:{rest}")
            raise NotFoundError("directory", rest)
        return DirectorySource(rest)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        raise UnsupportedError(
            "an image's layers and config don't fit in a directory of plain files; use "
            f"oci:{rest}, or export a container"
        )


class DirectorySource(Source):
    """One image of one layer, whose tar is made while it is read."""

    def __init__(self, path: str) -> None:
        self._path = path

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        return [bare_image(self._path, self._path, "none", self._open)]

    def close(self) -> None:
        pass

    def _open(self) -> BinaryIO:
        return piped(self._write)

    def _write(self, out: BinaryIO) -> None:
        from cowshed.archive import write_layer

        walk = NativeWalk(self._path)
        try:
            write_layer(walk.entries(), walk.open, out)
        finally:
            walk.close()


class NativeWalk:
    """A directory's contents as entries, parents first, names in byte order."""

    def __init__(self, path: str) -> None:
        # The path itself may be a link: the user named it.
        self._directories = {"": os.open(path, _OPEN_DIRECTORY & ~os.O_NOFOLLOW)}
        self._where = path
        self._first_names: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories = {}

    def entries(self) -> Iterator[Entry]:
        """Yield everything; a file's content can be opened until the next one is asked for."""
        root = self._directories[""]
        yield self._entry("", os.fstat(root), _xattrs(f"/proc/self/fd/{root}", follow=True))
        stack = [("", self._names(""))]
        while stack:
            directory, names = stack[-1]
            if not names:
                stack.pop()
                if directory:
                    os.close(self._directories.pop(directory))
                continue
            name = names.pop()
            above = self._directories[directory]
            path = join(directory, name)
            status = self._stat(name, above, path)
            if stat.S_ISSOCK(status.st_mode):
                continue
            if stat.S_ISDIR(status.st_mode):
                self._directories[path] = self._descend(name, above, path)
                stack.append((path, self._names(path)))
            target = os.readlink(name, dir_fd=above) if stat.S_ISLNK(status.st_mode) else ""
            yield self._entry(
                path, status, _xattrs(f"/proc/self/fd/{above}/{name}", follow=False), target
            )

    def open(self, path: str) -> BinaryIO:
        """Open the content of a file that ``entries`` has just given."""
        above = self._directories[parent_of(path)]
        name = path.rpartition("/")[2]
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.fdopen(os.open(name, flags, dir_fd=above), "rb")
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _entry(
        self, path: str, status: os.stat_result, xattrs: dict[str, bytes], target: str = ""
    ) -> Entry:
        kind = kind_of(status.st_mode)
        if kind is None:
            raise SourceError(f"{self._where}/{path} is of a kind that no image holds")
        if kind is not Kind.DIRECTORY and status.st_nlink > 1:
            identity = status.st_dev, status.st_ino
            first = self._first_names.setdefault(identity, path)
            if first != path:
                return Entry(path=path, kind=Kind.HARDLINK, target=first)
        return Entry(
            path=path,
            kind=kind,
            mode=0o777 if kind is Kind.SYMLINK else stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if kind is Kind.FILE else 0,
            target=target,
            rdev=status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            xattrs=xattrs or NO_XATTRS,
        )

    def _names(self, path: str) -> list[str]:
        """Return the names in an open directory, last first."""
        return sorted(os.listdir(self._directories[path]), key=os.fsencode, reverse=True)

    def _stat(self, name: str, above: int, path: str) -> os.stat_result:
        try:
            return os.stat(name, dir_fd=above, follow_symlinks=False)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _descend(self, name: str, above: int, path: str) -> int:
        try:
            return os.open(name, _OPEN_DIRECTORY, dir_fd=above)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> SourceError:
        return SourceError(f"can't read {path!r} in {self._where}: {error.strerror}")


def _xattrs(path: str, *, follow: bool) -> dict[str, bytes]:
    """Read extended attributes through /proc, since there are no calls by descriptor and name."""
    try:
        return {
            name: os.getxattr(path, name, follow_symlinks=follow)
            for name in sorted(os.listxattr(path, follow_symlinks=follow))
            if name != _HOST_ONLY
        }
    except OSError:
        return {}  # the file system has none, or the file has just gone
