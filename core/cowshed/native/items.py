"""The two small files beside a tree: what it stands on, and what it was last found to cost."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from contextlib import suppress
from types import EllipsisType
from typing import Any

from ..driver import Usage
from ..errors import CorruptError
from .syscalls import read_small, sync_directory

#: In a store's root.
COMMON = "common"
_NO_PARENT = "_"  # no ID

#: A file of that age in ns is the only one with its number and time, of how many are remembered.
_SETTLED = 1_000_000_000
_MOST = 4096

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")


def is_id(id: str) -> bool:
    """Say whether ``id`` can safely be a file name."""
    return _ID.fullmatch(id) is not None


#: In a tree's home.
ITEM = "item.json"


class ItemFile:
    """``item.json`` in a tree's home, written once before publication."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._path = os.path.join(home, ITEM)

    def write(self, parent: str | None, apparent: int) -> None:
        """Record the parent layer and the bytes of the files that this layer brought."""
        _write(self._path, parent, apparent)

    def apparent(self) -> int:
        """Return the bytes of the files that this layer brought."""
        return int(self._read()["apparent"])

    def _read(self) -> dict[str, Any]:
        return _parsed(self._home, read_small(self._path))


def _parsed(home: str, data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data)
        return {"parent": found["parent"], "apparent": found["apparent"]}
    except (ValueError, KeyError, TypeError) as error:
        problem = f"item.json is damaged: {error}"
        raise CorruptError(os.path.basename(home), problem) from error


def _write(path: str, parent: str | None, apparent: int, *, durable: bool = False) -> None:
    with open(path, "x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        json.dump({"parent": parent, "apparent": apparent}, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())


class Parents:
    """What the items of the store at ``root`` stand on.

    Containers of one layer share a file, so few are ever read, whatever their number.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        #: By inode and when that was written.
        self._known: dict[tuple[int, int], str | None] = {}

    def of(self, place: str) -> str | EllipsisType | None:
        """Return the parent's ID of what is at ``place`` in the store, None for a base; Ellipsis
        if there is no such item.

        Raises:
            CorruptError: what it says there makes no sense.
        """
        home = f"{self._root}/{place}"
        try:
            descriptor = os.open(f"{home}/{ITEM}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return ...
        try:
            # By what is open: another may have the name by now.
            status = os.fstat(descriptor)
            file = status.st_ino, status.st_mtime_ns
            known = self._known.get(file, ...)
            if known is not ...:
                return known
            data = os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)
        said = _parsed(home, data)["parent"]
        parent = None if said is None else str(said)
        # A younger file's number and time may be another's in a moment.
        if time.time_ns() - status.st_mtime_ns > _SETTLED:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[file] = parent
        return parent


class Common:
    """``common/LAYER``: what ``item.json`` says of all containers on one layer is the same, so it
    is written once and linked. A link takes a third of a small file's time, none of its 4 KiB on
    the disk, and need not wait for data to be written."""

    def __init__(self, root: str, parent: str | None, *, durable: bool) -> None:
        self._parent = parent
        self._durable = durable
        self._path = os.path.join(root, COMMON, _NO_PARENT if parent is None else parent)

    def link(self, path: str) -> None:
        """Make ``path`` a name of the file, unless it exists."""
        try:
            os.link(self._path, path)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EMLINK):
                raise
            # Nobody had one before, or it has 65,000 names, which is what ext4 lets a file have.
            _write(path, self._parent, 0, durable=self._durable)
            os.link(path, f"{path}.new")
            os.rename(f"{path}.new", self._path)
            if self._durable:  # who finds none doesn't look for containers
                sync_directory(os.path.dirname(self._path))

    def exists(self) -> bool:
        """Say whether a container on the layer was ever made."""
        return os.path.lexists(self._path)

    def remove(self) -> None:
        """Take the file's own name away."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)


def common_of(root: str) -> list[str]:
    """Return the layers that have such a file."""
    return [layer for layer in os.listdir(os.path.join(root, COMMON)) if is_id(layer)]


class UsageCache:
    """``usage.json`` in a tree's home: never synced, measured anew if absent or damaged."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "usage.json")

    def read(self, stamp: int) -> Usage | None:
        """Return what was measured when the store was in state ``stamp``."""
        try:
            with open(self._path, "rb") as file:
                found: dict[str, int] = json.load(file)
            if found.pop("stamp") != stamp:
                return None
            return Usage(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, stamp: int, usage: Usage) -> None:
        """Remember ``usage``; a tree that was removed meanwhile is no error."""
        aside = f"{self._path}.{os.urandom(4).hex()}"
        try:
            with open(aside, "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                json.dump({"stamp": stamp, **usage._asdict()}, file)
            os.rename(aside, self._path)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(aside)

    def forget(self) -> None:
        """Throw away what was measured."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
