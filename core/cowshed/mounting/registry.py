"""Registry: which containers are mounted, where and how, and by whom they are used.

    ROOT/mounts/CONTAINER/mount.json     the record, there before the mount and gone after it
    ROOT/mounts/CONTAINER/root/          where it is mounted if nobody said where
    ROOT/mounts/CONTAINER/upper/ work/   what processes wrote, as overlayfs keeps it (``format``)
    ROOT/mounts/CONTAINER/absorbed.json  what of that the driver has already (``memo``)

Whoever changes anything about a container's mount holds the lock ``mount:ID``; whoever uses it
holds ``mounted:ID`` shared, which a killed process drops. So the last one out is known for sure,
and process numbers, which other namespaces can't tell apart, are only for messages. A container's
first process, which may outlive who started it, uses the mount as well.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..boot import boot_id
from ..home import made
from ..partials import sync_directory
from . import kernel
from .format import Format
from .lowers import answers

How = Literal["native", "overlay", "fuse"]

_RECORD = "mount.json"


class Record(NamedTuple):
    """One container's mount."""

    container: str
    driver: str
    how: How
    path: str
    read_only: bool
    #: Whether it stays when nobody uses it.
    lasting: bool
    #: Whether there is a mount at all: a native directory is used as it is.
    mounted: bool
    boot: str
    namespace: int
    made_ns: int
    #: ``major:minor`` of what is mounted, once it is.
    device: str = ""
    #: Processes that used it when this was written.
    users: tuple[int, ...] = ()
    #: Whether there is an upper directory that is to be absorbed.
    layered: bool = False
    #: The layer that it lies over, or nothing; and the mounts that show it (``lowers``).
    over: str = ""
    lowers: tuple[str, ...] = ()
    #: How it was mounted.
    format: Format = Format()
    #: Whether what is written there goes when nobody uses it any more, with the container, unless
    #: it is made to last. None of it is synced.
    discard: bool = False


State = Literal["alive", "dead", "gone", "elsewhere"]


class Registry:
    """The records below ``root``, which is made when it is needed."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self._durable = durable

    def home(self, container: str) -> Path:
        """Return the directory of one container's mount."""
        return self.root / container

    def any(self) -> bool:
        """Say whether anything is mounted, in one call."""
        return self.root.exists()

    def has(self, container: str) -> bool:
        """Say whether there is something to look at."""
        return self.home(container).exists()

    def containers(self) -> list[str]:
        """Return the containers that have a record, or what is left of one."""
        try:
            return sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []

    def read(self, container: str) -> Record | None:
        """Return a record; None: there is none, or it can't be read."""
        try:
            found: dict[str, Any] = json.loads((self.home(container) / _RECORD).read_bytes())
            for name in ("users", "lowers"):
                found[name] = tuple(found[name])
            found["format"] = Format.read(found["format"])
            return Record(**found)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def records(self) -> Iterator[Record]:
        """Yield all records."""
        for container in self.containers():
            record = self.read(container)
            if record is not None:
                yield record

    def lowers(self) -> set[str]:
        """Return where layers are mounted that containers use."""
        return {place for record in self.records() for place in record.lowers}

    def write(self, record: Record) -> None:
        """Write a record, in place of the one there was."""
        home = made(self.root, record.container)
        path = home / _RECORD
        aside = home / f"{_RECORD}.{os.urandom(4).hex()}"
        with aside.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            written = {**record._asdict(), "format": record.format.written()}
            if not record.discard:
                del written["discard"]  # what earlier versions don't know
            # Not by dump, which is written in Python and takes ten times as long.
            file.write(json.dumps(written))
            if self._durable and _is_worth_a_sync(record):
                # Without it what processes wrote belongs to nobody; before, they couldn't.
                file.flush()
                os.fsync(file.fileno())
        os.rename(aside, path)

    def forget(self, container: str) -> None:
        """Remove a record and all that belongs to it. Nothing is mounted there any more."""
        home = self.home(container)
        root = home / "root"
        try:
            root.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            # A runtime that lost its mount may have made something there.
            if error.errno != errno.ENOTEMPTY or kernel.point_at(os.fspath(root)) is not None:
                raise
        from ..native.removal import remove_directory  # with ctypes

        with suppress(FileNotFoundError):
            remove_directory(os.fspath(self.root), container)

    def default_path(self, container: str) -> Path:
        """Return the directory to mount at if nobody said where; made if need be."""
        return made(self.root, container, "root")

    def sync(self, container: str) -> None:
        """Make what is in the directory of one container's mount durable."""
        for directory in (self.home(container), self.root, self.root.parent):
            sync_directory(directory)


def _is_worth_a_sync(record: Record) -> bool:
    if record.read_only or (record.discard and not record.lasting):
        return False
    return record.layered and bool(record.device)


def state(record: Record) -> State:
    """Say what has become of a mount: it may have died with its server, been taken away by
    somebody, or gone with the machine's last boot; one in another mount namespace can't be used
    here."""
    if record.boot != boot_id():
        return "gone"
    if not record.mounted:
        return "alive" if os.path.isdir(record.path) else "gone"
    if record.namespace != kernel.namespace():
        for process in kernel.processes_in(record.namespace):
            # It may have ended since; another one knows, too.
            with suppress(OSError):
                return "elsewhere" if _is_at(record, process) else "gone"
        # Into a user namespace beside ours nobody may look. Who has ended isn't in it any more.
        hidden = not kernel.in_first_user_namespace() and (
            record.lasting or any(os.path.exists(f"/proc/{user}") for user in record.users)
        )
        return "elsewhere" if hidden else "gone"
    if not _is_at(record, "self"):
        return "gone"
    return "alive" if all(map(answers, record.lowers)) else "dead"


def _is_at(record: Record, process: str) -> bool:
    point = kernel.point_at(record.path, process)
    return point is not None and (not record.device or point.device == record.device)
