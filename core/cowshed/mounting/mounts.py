"""Mounts: the mounts of a shed's containers, shared by whoever uses them.

A container has one mount at a time. ``mount`` makes it, or makes it stay; ``mounted`` makes or
joins it for a while, and the last one out takes it away unless it is to stay.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..boot import boot_id
from ..errors import BusyError, InUseError, NotFoundError, StoreError, UsageError
from ..native.hosting import ENTERED
from . import kernel, ways
from .format import format_here
from .lowers import Lowers, being_mounted
from .registry import How, Record, Registry, State, state

if TYPE_CHECKING:
    from ..locking import Lock
    from ..records import ContainerRecord
    from ..shed import Shed

#: Seconds to wait for somebody else who is mounting or unmounting the same container.
PATIENCE = 30.0


class Mounted(NamedTuple):
    """One mount, as ``Shed.mounts`` lists it."""

    container: str
    driver: str
    path: Path
    how: How
    read_only: bool
    #: Whether it stays when nobody uses it.
    lasting: bool
    #: Processes that hold it by ``mounted``; others may have files open in it.
    users: tuple[int, ...]
    #: ``elsewhere``: in another mount namespace. ``dead``: its server is gone. ``gone``: the mount
    #: is, and what was written in it is taken over when somebody looks.
    state: State

    @property
    def alive(self) -> bool:
        """Whether processes can use it, here or elsewhere."""
        return self.state in ("alive", "elsewhere")


class Mounts:
    """What ``Container`` and ``Shed`` do with mounts."""

    def __init__(self, shed: Shed) -> None:
        self._shed = shed
        self._root = os.fspath(shed.home.root)
        self.registry = Registry(shed.home.root / "mounts", durable=shed.config.durable)
        self.lowers = Lowers(shed)

    # -- making and taking away -----------------------------------------------------------------

    def mount(
        self,
        container: ContainerRecord,
        directory: Path | None,
        *,
        read_only: bool,
        no_suid: bool | None = None,
    ) -> Path:
        """See ``Container.mount``. ``no_suid``: let nobody gain privilege by a program in there;
        by default where somebody chose the directory, as others may reach it."""
        if os.environ.get(ENTERED):
            raise StoreError(
                "nobody but 'cowshed run' and 'exec' would see an ordinary user's mount; work in a "
                "namespace of your own (unshare --map-root-user --map-auto --mount)"
            )
        with self._changing(container.id):
            record = self._living(container.id)
            if record is None:
                record = self._make(
                    container, directory, read_only=read_only, lasting=True, no_suid=no_suid
                )
            else:
                _require_same(container, record, directory, read_only=read_only)
                self.registry.write(record._replace(lasting=True))
                if record.discard and self._shed.config.durable:
                    self.registry.sync(container.id)
            return Path(record.path)

    def unmount(self, container: ContainerRecord, *, force: bool) -> None:
        """See ``Container.unmount``."""
        with self._changing(container.id):
            record = self.registry.read(container.id)
            if record is None:
                self._clear(container.id, None)
                raise NotFoundError("mount", container.name)
            status = self._state(record)
            if status == "elsewhere":
                raise BusyError(
                    f"container {container.name} is mounted in another mount namespace, at "
                    f"{record.path}; end the processes in there"
                )
            alone = self._alone(container.id)
            if alone is None and not force:
                raise BusyError(
                    f"container {container.name} is mounted at {record.path} and in use"
                    f"{_by(record.users)}; wait for that to end, or use --force"
                )
            try:
                if status == "alive" and not force:
                    self._require_idle(container, record)
                self._take_down(record, status)
                self._clear(container.id, record)
            finally:
                if alone is not None:
                    alone.release()

    @contextmanager
    def mounted(
        self, container: ContainerRecord, *, read_only: bool, discard: bool = False
    ) -> Generator[Path]:
        """See ``Container.mounted``. ``discard``: nothing that is written need reach the disk, nor
        need the last one out tell the driver of it, as the container goes next."""
        with self._changing(container.id):
            record = self._living(container.id)
            if record is None:
                record = self._make(
                    container,
                    None,
                    read_only=read_only,
                    lasting=False,
                    discard=discard,
                    users=_with_me(()),
                )
            else:
                _require_same(container, record, None, read_only=read_only)
                self.registry.write(record._replace(users=_with_me(record.users)))
            using = self._shed.locks.acquire(_users_key(container.id), shared=True)
        try:
            yield Path(record.path)
        finally:
            self._leave(container, using, discard=discard)

    def _leave(self, container: ContainerRecord, using: Lock, *, discard: bool) -> None:
        with self._changing(container.id):
            using.release()
            record = self.registry.read(container.id)
            if record is None:
                return
            record = record._replace(users=_without_me(record.users))
            alone = None if record.lasting else self._alone(container.id)
            if alone is None:
                self.registry.write(record)
                return
            with alone:
                self._take_down(record, self._state(record))
                if discard:
                    self._forget(record)
                else:
                    self._clear(container.id, record)

    def _make(
        self,
        container: ContainerRecord,
        directory: Path | None,
        *,
        read_only: bool,
        lasting: bool,
        no_suid: bool | None = None,
        discard: bool = False,
        users: tuple[int, ...] = (),
    ) -> Record:
        layer = f"{container.driver}.{container.chain}"
        with self._nobody_writes(container):
            try:
                with self._shed.locks.acquire(being_mounted(layer), shared=True):
                    return self._mount(
                        container,
                        directory,
                        read_only=read_only,
                        lasting=lasting,
                        no_suid=no_suid,
                        discard=discard,
                        users=users,
                    )
            except BaseException:
                self.lowers.let_go(layer, self.registry.lowers)
                raise

    def _mount(
        self,
        container: ContainerRecord,
        directory: Path | None,
        *,
        read_only: bool,
        lasting: bool,
        no_suid: bool | None = None,
        discard: bool = False,
        users: tuple[int, ...] = (),
    ) -> Record:
        path = None if directory is None else _usable(directory)
        try:
            way = ways.choose(
                self._shed, container.driver, container.id, container.chain, read_only=read_only
            )
        except OSError as error:
            raise ways.explained(error, self._root, self._root, "overlay") from error
        in_place = way.native is not None and directory is None and not read_only
        if in_place:
            path = str(way.native)
        elif path is None:
            path = os.path.realpath(self.registry.default_path(container.id))
        layered = way.lower is not None
        record = Record(
            container=container.id,
            driver=container.driver,
            how=way.how,
            path=path,
            read_only=read_only,
            lasting=lasting,
            mounted=not in_place,
            boot=boot_id(),
            namespace=kernel.namespace(),
            made_ns=time.time_ns(),
            users=users,
            layered=layered,
            over=way.over,
            lowers=() if way.lower is None else self.lowers.among(way.lower),
            format=format_here(),
            discard=discard,
        )
        self.registry.write(record)
        if in_place:
            return record
        try:
            try:
                way.mount(path, read_only=read_only, discard=discard)
            except OSError as error:
                raise ways.explained(error, self._root, path, way.how) from error
            try:
                if no_suid is None:
                    no_suid = directory is not None
                kernel.restrict(path, read_only=read_only, no_suid=no_suid)
                point = kernel.point_at(path)
                record = record._replace(device="" if point is None else point.device)
                self.registry.write(record)
                if layered and not read_only and not discard and self._shed.config.durable:
                    self.registry.sync(container.id)
            except BaseException:
                ways.take_down(self._shed, record)
                raise
        except BaseException:
            self.registry.forget(container.id)
            raise
        return record

    def _nobody_writes(self, container: ContainerRecord) -> Lock:
        """Keep others from writing the container's tree, which they may not once it is mounted."""
        return self._shed.container(container.id).writer_lock()

    def _require_idle(self, container: ContainerRecord, record: Record) -> None:
        """Refuse to unmount what processes have something open in."""
        if not record.mounted:
            return
        try:
            kernel.unmount(record.path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                return  # the driver, or fusermount, may know how
            raise BusyError(
                f"container {container.name} is mounted at {record.path} and processes have "
                "something open there; end them, or use --force"
            ) from None

    def _take_down(self, record: Record, status: State) -> None:
        there = status in ("alive", "dead") and record.mounted
        if there and kernel.point_at(record.path) is not None:
            ways.take_down(self._shed, record)

    def _clear(self, container: str, record: Record | None) -> None:
        """Forget a mount that isn't any more."""
        if record is not None and record.discard and self._shed.config.durable:
            # Nobody synced what was written, and now it stays.
            places = (os.fspath(self._shed.home.drivers / record.driver), self._root)
            for path in {os.stat(path).st_dev: path for path in places}.values():
                _sync_all(path)
        self._refresh(container, record, last=True)
        if record is None:
            self.registry.forget(container)
        else:
            self._forget(record)

    def _forget(self, record: Record) -> None:
        self.registry.forget(record.container)
        for place in record.lowers:
            self._shed.kept.keep(place)

    def let_go(self, driver: str, layers: Iterable[str]) -> set[str]:
        """Take away mounts of layers that are to be removed; return those that processes in other
        mount namespaces may be looking at."""
        there = self.lowers.mounted()
        names = {f"{driver}.{layer}": layer for layer in layers}
        for name in names.keys() & there:
            self.lowers.let_go(name, self.registry.lowers)
        return {names[name] for name in names.keys() & self.lowers.mounted()}

    # -- before somebody looks ------------------------------------------------------------------

    def settle(self, containers: Iterable[str]) -> None:
        """Let the driver know all that processes wrote in ``containers`` until now.

        Costs one look into the file system for a container that isn't mounted.
        """
        if not self.registry.any():
            return
        for container in containers:
            if self.registry.has(container):
                with self._changing(container):
                    record = self.registry.read(container)
                    if record is None or self._state(record) in ("gone", "dead"):
                        if record is not None:
                            self._take_down(record, self._state(record))
                        self._clear(container, record)
                    else:
                        self._refresh(container, record)

    def settle_all(self) -> None:
        """Do it for all containers."""
        self.settle(self.registry.containers())

    def _refresh(self, container: str, record: Record | None, *, last: bool = False) -> None:
        if record is None or record.read_only:
            return
        if record.discard and not record.lasting and record.boot != boot_id():
            return  # the machine stopped: of what was never synced there may be a part
        driver = self._shed.driver(record.driver)
        try:
            if record.layered:
                from .absorbing import absorb

                home = self.registry.home(container)
                absorb(home, record.format, driver, container, record.over, last=last)
            elif record.how == "native":
                # Opened for writing, a native tree forgets what was remembered about it.
                driver.tree(container, writable=True).close()
        except NotFoundError:
            return  # removed by force

    # -- looking --------------------------------------------------------------------------------

    def in_use(self, container: str) -> Record | None:
        """Return the record of a mount that somebody uses, or that is to stay; take away one that
        nobody does."""
        if not self.registry.has(container):
            return None
        with self._changing(container):
            return self._living(container)

    def _state(self, record: Record) -> State:
        """Say what has become of a mount. A process in the container that outlived who ran it keeps
        the mount, in a namespace of its own."""
        found = state(record)
        if found == "gone" and record.boot == boot_id():
            runs = self._shed.running.registry.process(record.container) is not None
            return "elsewhere" if runs else found
        return found

    def is_here(self, record: Record) -> bool:
        """Say whether we could use a mount: it lives, and not in another mount namespace."""
        return self._state(record) == "alive"

    def is_mounted(self, container: str) -> bool:
        """Say whether processes may be using a container's mount, here or elsewhere."""
        record = self.registry.read(container)
        return record is not None and self._state(record) in ("alive", "elsewhere")

    def list(self) -> list[Mounted]:
        """See ``Shed.mounts``."""
        return [
            Mounted(
                container=record.container,
                driver=record.driver,
                path=Path(record.path),
                how=record.how,
                read_only=record.read_only,
                lasting=record.lasting,
                users=record.users,
                state=self._state(record),
            )
            for record in self.registry.records()
        ]

    def points(self) -> set[str]:
        """Return the directories in the shed that show something else than what is in it."""
        roots = {
            os.fspath(self.registry.home(container) / "root")
            for container in self.registry.containers()
        }
        return roots | self.lowers.places()

    def require_not_written(self, container: ContainerRecord) -> None:
        """Refuse to write in a container's tree while processes write in its mount: neither would
        see the other's, unless both use the driver's own directory.

        Raises:
            BusyError: names the mount.
        """
        if not self.registry.has(container.id):
            return
        record = self.registry.read(container.id)
        if record is None or record.read_only or record.how == "native":
            return
        if self._state(record) in ("alive", "elsewhere"):
            raise BusyError(
                f"container {container.name} is mounted at {record.path}; write there, or unmount "
                "it first"
            )

    def require_unmounted(
        self, containers: Iterable[ContainerRecord], *, force: bool, discard: bool = False
    ) -> None:
        """Refuse to remove what is mounted, or unmount it by force. What somebody mounted in a
        container's own directory is theirs, whatever the force. ``discard``: what was written in
        mounts that nobody uses any more need not be taken over before.

        Raises:
            InUseError: names the mount.
        """
        containers = list(containers)
        self._require_nothing_inside(containers)
        if not self.registry.any():
            return
        for container in containers:
            if not self.registry.has(container.id):
                continue
            with self._changing(container.id):
                record = self._living(container.id, discard=discard)
                if record is not None and not force:
                    raise InUseError(
                        f"container {container.name} is mounted at {record.path}"
                        f"{_by(record.users)}; 'cowshed umount {container.name}' first, or use "
                        "--force"
                    )
                if record is not None:
                    self._take_down(record, self._state(record))
                    self._forget(record)
                else:
                    self.registry.forget(container.id)

    def _require_nothing_inside(self, containers: Iterable[ContainerRecord]) -> None:
        drivers = os.path.join(os.path.realpath(self._shed.home.drivers), "")
        points = kernel.points(about=drivers)
        inside = [one.path for one in points if one.path.startswith(drivers)]
        if not inside:
            return
        ours = {
            record.path for record in map(self.registry.read, self.registry.containers()) if record
        }
        for container in containers:
            for path in inside:
                if container.id in path.split("/") and path not in ours:
                    raise InUseError(
                        f"something is mounted in container {container.name}: 'umount {path}' first"
                    )

    def sweep(self) -> None:
        """Clear away what crashed processes and servers left."""
        for container in self.registry.containers():
            lock = self._shed.locks.attempt(_change_key(container))
            if lock is not None:
                with lock:
                    self._living(container)
        if self.lowers.root.exists():
            with self._shed.catalog.read() as transaction:
                layers = [layer.chain for layer in transaction.layers()]
            self.lowers.sweep(self.registry.lowers, layers)

    # -- how ------------------------------------------------------------------------------------

    def _changing(self, container: str) -> Lock:
        return self._shed.locks.acquire(
            _change_key(container),
            timeout=PATIENCE,
            what=f"the mount of container {container[:12]}",
        )

    def _alone(self, container: str) -> Lock | None:
        """Keep users out of a mount; None: there are some. The first process of a container may
        have outlived the ``cowshed run`` that was one, or be just about to start."""
        runs = self._shed.running.registry
        if runs.process(container) is not None or runs.may_start(container):
            return None
        return self._shed.locks.attempt(_users_key(container))

    def _living(self, container: str, *, discard: bool = False) -> Record | None:
        """Return the record of a mount that lives, or nobody's but in use; clear away another, with
        what was written in it where that is to ``discard``."""
        record = self.registry.read(container)
        if record is None:
            if self.registry.has(container):
                self._clear(container, None)
            return None
        status = self._state(record)
        if status in ("alive", "elsewhere"):
            if record.lasting:
                return record
            # Users that were killed didn't leave.
            alone = self._alone(container)
            if alone is None:
                return record
            alone.release()
        self._take_down(record, status)
        if discard:
            self._forget(record)
        else:
            self._clear(container, record)
        return None


def _sync_all(path: str) -> None:
    from ..native.syscalls import OPEN_DIRECTORY, syncfs

    descriptor = os.open(path, OPEN_DIRECTORY)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)


def _change_key(container: str) -> str:
    return f"mount:{container}"


def _users_key(container: str) -> str:
    return f"mounted:{container}"


def _usable(directory: Path) -> str:
    """Return the real path of a directory that somebody wants a container at."""
    try:
        if os.listdir(directory):
            raise StoreError(f"{directory} isn't empty; mount at an empty directory")
    except FileNotFoundError:
        raise UsageError(f"{directory} doesn't exist; make it first") from None
    except NotADirectoryError:
        raise UsageError(f"{directory} is no directory") from None
    except OSError as error:
        raise StoreError(f"{directory} can't be used: {error.strerror}") from None
    return os.path.realpath(directory)


def _require_same(
    container: ContainerRecord, record: Record, directory: Path | None, *, read_only: bool
) -> None:
    """Refuse to share a mount that isn't what is wanted."""
    problem = ""
    if state(record) == "elsewhere":
        problem = "in another mount namespace"
    elif record.read_only != read_only:
        problem = "read-only" if record.read_only else "to be written in"
    elif directory is not None and os.path.realpath(directory) != record.path:
        problem = "there"
    if problem:
        raise InUseError(
            f"container {container.name} is mounted already, at {record.path}, {problem}; "
            "unmount it first"
        )


def _by(users: tuple[int, ...]) -> str:
    living = [user for user in users if os.path.exists(f"/proc/{user}")]
    if not living:
        return ""
    shown = ", ".join(map(str, living[:5])) + (", …" if len(living) > 5 else "")
    return f" by process{'es' if len(living) > 1 else ''} {shown}"


def _with_me(users: tuple[int, ...]) -> tuple[int, ...]:
    return (*(user for user in users if os.path.exists(f"/proc/{user}")), os.getpid())


def _without_me(users: tuple[int, ...]) -> tuple[int, ...]:
    rest = list(users)
    if os.getpid() in rest:
        rest.remove(os.getpid())
    return tuple(user for user in rest if os.path.exists(f"/proc/{user}"))
