"""Copying: files between a container's tree and the host, with the rules of ``docker cp``.

Both sides are hostile in their own way. A container's tree may hold links that point out of it, so
nothing there is followed but by ``Tree.resolve``, inside the root (CVE-2018-15664). On the host,
what is made goes through directory descriptors and is never followed either: files are written
aside under a fresh name and renamed into place, so that a link put in the way is replaced and not
written through, and a directory that turns into a link in mid-copy is an error.

Where a copy lands, for SOURCE and DESTINATION:

* SOURCE is no directory: into DESTINATION if that is a directory, otherwise under its name;
* SOURCE is a directory and DESTINATION doesn't exist: DESTINATION becomes its copy;
* both are directories: SOURCE is copied into it, or, written ``SOURCE/.``, its content is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import attrs

from .driver import Stage
from .entry import Entry, Kind, join, parent_of
from .errors import UsageError

if TYPE_CHECKING:
    from .archive import Limits
    from .tree import Tree

Warn = Callable[[str], None]


@contextmanager
def naming(path: str) -> Generator[None, None, None]:
    """Let an error say the path as a person wrote it; a tree's own names only the last step."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def names_content(path: str) -> bool:
    """Say whether a person's path means a directory's content: ``DIR/.``."""
    return path == "." or path.endswith("/.")


def landing(
    source: str,
    destination: str,
    *,
    from_directory: bool,
    to_directory: bool,
    exists: bool,
    name: str,
) -> bool:
    """Say whether the copy goes into the destination, under ``name``, and not in its place.

    Raises:
        UsageError: the destination can't take it.
    """
    if exists and not to_directory:
        if from_directory:
            raise UsageError(f"can't copy a directory over {destination!r}, which isn't one")
        if destination.endswith("/"):
            raise UsageError(f"{destination!r} is not a directory")
        return False
    if not exists:
        if destination.endswith("/") and not from_directory:
            raise UsageError(f"the directory {destination!r} doesn't exist")
        return False
    return not (from_directory and names_content(source)) and bool(name)


def clash(path: str, *, directory: bool) -> OSError:
    """Return the error for a directory in the way of something else, or the reverse."""
    number = errno.ENOTDIR if directory else errno.EISDIR
    return OSError(number, "a directory can't replace anything else, nor the reverse", f"/{path}")


# -- a tar into a tree ---------------------------------------------------------------------------


def unpack_tar(
    tar: BinaryIO,
    tree: Tree,
    directory: str,
    *,
    limits: Limits,
    archive: bool = False,
    scratch: str | None = None,
) -> None:
    """Unpack a tar, plain or compressed, in ``directory`` of a writable tree.

    Everything belongs to 0:0 unless ``archive``. ``scratch`` is a directory for what takes too much
    memory; None: where temporary files are.

    Raises:
        ArchiveError: the tar is malformed, unsafe or beyond ``limits``; what came before it stays.
        OSError: ENOTDIR, ENOENT: there is no such directory.
    """
    from .archive import apply_layer, decompressor

    with naming(directory):
        path = tree.resolve(directory)
    if tree.stat(path).kind is not Kind.DIRECTORY:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
    stage = _TreeStage(tree, archive=archive)
    apply_layer(
        decompressor(tar, limits=limits), stage, tree, limits=limits, below=path, scratch=scratch
    )


class _TreeStage(Stage):
    """Applies what an archive brings to a container's tree at once."""

    def __init__(self, tree: Tree, *, archive: bool) -> None:
        self._tree = tree
        self._archive = archive

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        if entry.kind is not Kind.HARDLINK and not self._archive:
            entry = attrs.evolve(entry, uid=0, gid=0)
        put(self._tree, entry, content)

    def open(self, path: str) -> BinaryIO:
        return self._tree.open(path)

    def seal(self, layer: str) -> None:
        raise NotImplementedError("a tree is no layer")

    def discard(self) -> None:
        pass


def put(tree: Tree, entry: Entry, content: BinaryIO | None = None) -> None:
    """Apply ``entry``, unless a directory would replace something else or the reverse."""
    try:
        old = tree.stat(entry.path)
    except FileNotFoundError:
        old = None
    is_directory = entry.kind is Kind.DIRECTORY
    if old is not None and is_directory is not (old.kind is Kind.DIRECTORY):
        raise clash(entry.path, directory=is_directory)
    tree.apply(entry, content)
    if old is None and entry.path:
        from .tree import now_ns

        # ``apply`` is for streams and leaves the parent's time alone; here a person makes a name.
        tree.utime(parent_of(entry.path), now_ns())


# -- from the host into a tree -------------------------------------------------------------------


def copy_in(
    tree: Tree,
    source: str,
    destination: str,
    *,
    archive: bool = False,
    follow: bool = False,
    warn: Warn = lambda text: None,
) -> None:
    """Copy the host's ``source`` to ``destination`` in a writable tree.

    Everything belongs to 0:0 unless ``archive``; modes, times, xattrs and hard links are kept. A
    symbolic link is copied as one, unless ``follow`` and it is ``source`` itself.
    """
    at = source.rstrip("/") or "/"
    top = os.stat(at) if follow or source.endswith(("/", "/.")) else os.lstat(at)
    from_directory = _is_directory(top)
    if source.endswith("/") and not from_directory:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), source)
    with naming(destination):
        target = tree.resolve(destination.rstrip("/"))
        old = tree.stat(target) if tree.exists(target) else None
        if old is None and tree.stat(parent_of(target)).kind is not Kind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), destination)
    name = os.path.basename(os.path.abspath(at))
    if landing(
        source,
        destination,
        from_directory=from_directory,
        to_directory=old is not None and old.kind is Kind.DIRECTORY,
        exists=old is not None,
        name=name,
    ):
        target = join(target, name)
    from .host import read_host

    keeps_target = old is not None and from_directory and names_content(source)
    for path, entry, content in read_host(at, top, archive=archive, warn=warn):
        if not path and keeps_target:
            continue  # only the content was asked for
        entry = attrs.evolve(entry, path=_below(target, path))
        if entry.kind is Kind.HARDLINK:
            entry = attrs.evolve(entry, target=_below(target, entry.target))
        put(tree, entry, content)


def _below(directory: str, path: str) -> str:
    return join(directory, path) if path else directory


def _is_directory(status: os.stat_result) -> bool:
    from .entry import kind_of

    return kind_of(status.st_mode) is Kind.DIRECTORY


# -- from a tree to the host ---------------------------------------------------------------------


def copy_out(
    tree: Tree,
    source: str,
    destination: str,
    *,
    archive: bool = False,
    follow: bool = False,
    warn: Warn = lambda text: None,
) -> None:
    """Copy ``source`` in a tree to the host's ``destination``.

    Everything belongs to the caller, without setuid and setgid bits, unless ``archive``, which
    keeps owner, every mode bit and every xattr as far as the caller may set them.
    """
    with naming(source):
        path = tree.resolve(source, follow=follow)
        top = tree.stat(path)
    from_directory = top.kind is Kind.DIRECTORY
    name = source.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        name = top.name
    into = landing(
        source,
        destination,
        from_directory=from_directory,
        to_directory=os.path.isdir(destination),
        exists=os.path.lexists(destination),
        name=name,
    )
    from .host import HostWriter

    with HostWriter(archive=archive, warn=warn) as writer:
        if into:
            writer.write(tree, path, destination, name)
        elif from_directory and os.path.isdir(destination):
            writer.write_content(tree, path, destination)
        else:
            # An existing file that is reached through a link is the one that is replaced.
            real = os.path.realpath(destination) if os.path.exists(destination) else destination
            above, leaf = os.path.split(real.rstrip("/"))
            writer.write(tree, path, above or ".", leaf)
