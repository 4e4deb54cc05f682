"""Container: an image and one thin read-write layer in one driver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack, cast

from .context import Closing
from .errors import AmbiguousError, ConflictError, NotFoundError
from .names import container_name, is_id_prefix
from .records import ContainerRecord

if TYPE_CHECKING:
    from .catalog import Transaction
    from .driver import Driver, Usage
    from .entry import Change
    from .image import Image
    from .locking import Lock
    from .running.options import How
    from .running.supervising import Ended, Streams
    from .shed import Shed
    from .tree import Tree

#: Seconds to wait for another process that is writing the same container.
WRITER_PATIENCE = 10.0


class Container:
    """One container of a shed, as it was when it was looked up."""

    def __init__(self, shed: Shed, record: ContainerRecord) -> None:
        self._shed = shed
        self.record = record

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def driver(self) -> str:
        """Name of the driver that holds it."""
        return self.record.driver

    @property
    def image_id(self) -> str:
        """ID of its image; empty if it was made on nothing."""
        return self.record.image

    @property
    def created_ns(self) -> int:
        """When it was made, ns since the epoch."""
        return self.record.created_ns

    # -- the file system ----------------------------------------------------------------------

    def tree(self, *, writable: bool = False) -> Tree:
        """Open its file system. One process at a time writes; readers never wait.

        Raises:
            BusyError: somebody else has been writing it for ten seconds.
        """
        driver = self._settled()
        if not writable:
            return driver.tree(self.id)
        self._shed.require_writable()
        lock = self.writer_lock()
        try:
            self._shed.mounting.require_not_written(self.record)
            # The container may have moved while we waited.
            record = find(self._shed, self.id).record
            tree = self._shed.driver(record.driver).tree(self.id, writable=True)
        except BaseException:
            lock.release()
            raise
        return cast("Tree", _Locked(tree, lock))

    def _settled(self) -> Driver:
        """Return its driver, which knows what processes in its mount have written until now."""
        self._shed.running.settle([self.record])
        self._shed.mounting.settle([self.id])
        return self._shed.driver(self.driver)

    # -- processes ----------------------------------------------------------------------------

    def mount(self, directory: Path | None = None, *, read_only: bool = False) -> Path:
        """Make its file system a directory that processes can use; return that directory.

        It stays until ``unmount``, whatever becomes of this process, where the system allows.
        Mounting what is mounted already makes that mount stay.

        Raises:
            StoreError: it can't be mounted here; says what is missing.
            InUseError: it is mounted already, elsewhere or otherwise.
        """
        return self._shed.operate(
            "mount",
            {"container": self.id, "read_only": read_only},
            lambda: self._shed.mounting.mount(self.record, directory, read_only=read_only),
        )

    def unmount(self, *, force: bool = False) -> None:
        """Take its mount away.

        Raises:
            NotFoundError: it isn't mounted.
            BusyError: processes use it; ``force`` takes it away from them.
        """
        self._shed.operate(
            "umount",
            {"container": self.id, "force": force},
            lambda: self._shed.mounting.unmount(self.record, force=force),
        )

    def mounted(self, *, read_only: bool = False) -> AbstractContextManager[Path]:
        """Yield a directory that processes can use until the context is left. Several users, of
        several processes too, share one mount, and the last one out takes it away."""
        return self._shed.mounting.mounted(self.record, read_only=read_only)

    def run(
        self,
        command: Sequence[str] = (),
        *,
        input: bytes | None = None,
        capture: bool = False,
        timeout: float | None = None,
        discard: bool = False,
        **how: Unpack[How],
    ) -> Ended:
        """Run its image's command, or ``command``, as its first process, and wait for the end.

        Streams are ours, standard input is empty or ``input``; with ``capture`` output is returned.
        After ``timeout`` seconds it is killed. ``discard`` is for a container that is removed next:
        what is written may be lost, which saves the time to keep it. ``how``: see ``How``. Whatever
        it ends with is in ``status``, as a shell says it.

        Raises:
            InUseError: it runs already; ``exec`` starts one more process in it.
            CommandError: the command isn't there (``exit_status`` 127) or can't be executed (126).
            StoreError: it can't be run here; says what is missing.
        """
        from .running.options import make_options

        streams = _streams(input, capture, timeout)
        options = make_options(command, how)
        return self._shed.operate(
            "run",
            {"container": self.id, "command": tuple(command)},
            lambda: self._shed.running.starter.run(self, options, streams, discard=discard),
        )

    def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes | None = None,
        capture: bool = False,
        timeout: float | None = None,
        **how: Unpack[How],
    ) -> Ended:
        """Run one more process in it, or if it doesn't run, its first; the image's entry point
        isn't used. Otherwise see ``run``. Environment, directory and user are all that can be
        chosen in a container that runs."""
        from .running.options import make_options

        streams = _streams(input, capture, timeout)
        options = make_options(command, how, entrypoint=())
        return self._shed.operate(
            "exec",
            {"container": self.id, "command": tuple(command)},
            lambda: self._shed.running.starter.exec(self, options, streams),
        )

    def bundle(self, directory: Path, command: Sequence[str] = (), **how: Unpack[How]) -> Path:
        """Make ``directory`` a bundle (OCI runtime-spec) that others can run, and mount the
        container there, until ``unmount``; return its absolute path.

        Raises:
            StoreError: the directory isn't empty, or the container can't be mounted.
        """
        from .running.options import make_options

        options = make_options(command, how)
        return self._shed.operate(
            "bundle",
            {"container": self.id, "directory": directory},
            lambda: self._shed.running.starter.bundle(self, directory, options),
        )

    def image_config(self) -> Mapping[str, object]:
        """Return what its image says about processes; nothing if there is no image."""
        image = self._image()
        return {} if image is None else image.config.config

    def writer_lock(self) -> Lock:
        """Keep other writers out, as ``tree(writable=True)`` does."""
        return self._shed.locks.acquire(
            lock_key(self.id), timeout=WRITER_PATIENCE, what=f"container {self.name}"
        )

    def diff(self) -> list[Change]:
        """Return what changed since it was made, exactly, in path order.

        The root is listed where its mode, owner or xattrs changed; that its time did, because
        something was made in it, goes without saying, as with Docker.
        """
        return self._shed.operate("diff", {"container": self.id}, lambda: list(self._changes()))

    def _changes(self) -> Iterator[Change]:
        import attrs

        driver = self._settled()
        for change in self._shed.running.shown(self.record, driver.changes(self.id)):
            if not change.path and self.record.chain:
                with driver.tree(self.record.chain) as below:
                    before = attrs.evolve(below.stat(""), mtime_ns=change.entry.mtime_ns)
                if before == change.entry:
                    continue
            yield change

    def usage(self) -> Usage:
        """Say what its read-write layer costs (``exclusive``) and holds (``apparent``)."""
        return self._settled().usage(self.id)

    def export(self, out: BinaryIO) -> None:
        """Write its whole file system as a tar."""
        from .archive import write_tree

        def run() -> None:
            with self.tree() as tree:
                write_tree(tree, out, hidden=self._shed.running.hidden(self.record))

        self._shed.operate("export", {"container": self.id}, run)

    # -- making more --------------------------------------------------------------------------

    def commit(
        self,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
    ) -> Image:
        """Make an image of it: its image's layers, shared, and one layer of what it changed.

        ``changes`` are Dockerfile instructions, as ``docker commit --change`` takes them.

        Raises:
            UsageError: a change that isn't one.
        """
        from .committing import commit

        return self._shed.operate(
            "commit",
            {"container": self.id, "image": name},
            lambda: commit(self._shed, self.record, name, author, message, changes),
            vetoable=True,
        )

    def fork(self, name: str | None = None) -> Container:
        """Make another container equal to this one as it is now; the two share what they can."""
        from .creating import fork

        return self._shed.operate(
            "fork", {"container": self.id}, lambda: fork(self._shed, self.record, name),
            vetoable=True,
        )  # fmt: skip

    def rename(self, name: str) -> None:
        """Give it another name. ConflictError: it is taken."""
        name = container_name(name)

        def run() -> None:
            with self._shed.catalog.write() as transaction:
                record = transaction.container(self.id)
                if record is None:
                    raise NotFoundError("container", self.name)
                require_free(transaction, name)
                transaction.rename_container(record, name)
            self.record = self.record._replace(name=name)

        self._shed.operate("rename", {"container": self.id, "name": name}, run)

    def remove(self, *, force: bool = False) -> None:
        """Remove it and exactly its read-write layer."""
        self._shed.remove_containers([self.id], force=force)

    def inspect(self) -> dict[str, Any]:
        """Return what ``docker container inspect`` would, and what only Cowshed knows."""
        usage = self.usage()
        image = self._image()
        return {
            "Id": self.id,
            "Created": _rfc3339(self.created_ns),
            "Name": f"/{self.name}",
            "Image": f"sha256:{self.image_id}" if self.image_id else "",
            "Driver": self.driver,
            "State": self._state(),
            "Config": {} if image is None else dict(image.config.config),
            "GraphDriver": {"Name": self.driver, "Data": {"Layer": self.record.chain}},
            "SizeRw": usage.apparent,
            "SizeRootFs": usage.apparent + (0 if image is None else image.size),
            "SizeOnDisk": usage.exclusive,
        }

    def _state(self) -> dict[str, Any]:
        state = self._shed.running.state(self.id)
        running = self._shed.running.running(self.id)
        if state is None or state.bundle:
            return {"Status": "created", "Running": False}
        return {
            "Status": "running" if running else "exited",
            "Running": running,
            "Pid": (self._shed.running.registry.process(self.id) or 0) if running else 0,
            "ExitCode": state.status or 0,
            "StartedAt": _rfc3339(state.started_ns),
            "FinishedAt": "" if running else _rfc3339(state.finished_ns),
            "Runtime": state.runtime,
        }

    def _image(self) -> Image | None:
        try:
            return self._shed.image(f"sha256:{self.image_id}") if self.image_id else None
        except NotFoundError:
            return None  # removed by force


class _Locked(Closing):
    """A writable tree that lets go of its writer lock when it is closed."""

    def __init__(self, tree: Tree, lock: Lock) -> None:
        self._tree = tree
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

    def close(self) -> None:
        try:
            self._tree.close()
        finally:
            self._lock.release()


def _streams(input: bytes | None, capture: bool, timeout: float | None) -> Streams:
    import subprocess

    from .running.supervising import Streams

    out = subprocess.PIPE if capture else None
    return Streams(stdout=out, stderr=out, input=input, timeout=timeout)


# -- looking up ----------------------------------------------------------------------------------


def find(shed: Shed, reference: str) -> Container:
    """See ``Shed.container``."""
    with shed.catalog.read() as transaction:
        return Container(shed, find_record(transaction, reference))


def find_record(transaction: Transaction, reference: str) -> ContainerRecord:
    """Look a container up in a transaction; see ``Shed.container``."""
    id = transaction.container_named(reference) if 0 < len(reference) <= 255 else None
    if len(reference) == 64 and is_id_prefix(reference) and transaction.container(reference):
        id = reference  # a whole ID means that container, whatever another is called
    if id is None:
        matches = (
            transaction.ids_with_prefix("containers", reference) if is_id_prefix(reference) else []
        )
        if len(matches) > 1:
            raise AmbiguousError("container", reference, matches)
        if not matches:
            known = [record.name for record in transaction.containers()]
            raise NotFoundError("container", reference, known[:1000])
        id = matches[0]
    record = transaction.container(id)
    if record is None:
        raise NotFoundError("container", reference)
    return record


def list_containers(shed: Shed) -> list[Container]:
    """Return all containers, newest first."""
    with shed.catalog.read() as transaction:
        records = list(transaction.containers())
    records.sort(key=lambda record: (-record.created_ns, record.name))
    return [Container(shed, record) for record in records]


def require_free(transaction: Transaction, name: str) -> None:
    """Raise ConflictError if a container has that name."""
    taken = transaction.container_named(name)
    if taken is not None:
        raise ConflictError(
            f"the name {name!r} is in use by container {taken[:12]}; "
            "remove or rename that one, or choose another name"
        )


def current(transaction: Transaction, record: ContainerRecord) -> ContainerRecord:
    """Return a container as it is now: renamed, perhaps, or moved. NotFoundError: it is gone."""
    found = transaction.container(record.id)
    if found is None:
        raise NotFoundError("container", record.name)
    return found


def lock_key(id: str) -> str:
    """Return the key of the lock that a container's writer holds."""
    return f"container:{id}"


def _rfc3339(ns: int) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000))
    return f"{moment}.{ns % 1_000_000_000:09d}Z"
