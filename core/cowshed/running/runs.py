"""Runs: which containers run, how they ended, and what runs left in them (see ``starter``).

A container runs at most once at a time: its first process, and beside that any number by ``exec``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import BusyError, InUseError, NotFoundError
from ..records import ContainerRecord
from . import stubs
from .registry import Registry, State

if TYPE_CHECKING:
    from ..container import Container
    from ..entry import Change, Entry
    from ..locking import Lock
    from ..shed import Shed
    from .starter import Starter

#: Seconds to wait for a container that was killed, and a pause.
_ENDING, _PAUSE = 10.0, 0.01


class Runs:
    """What the shed knows of processes in its containers."""

    def __init__(self, shed: Shed) -> None:
        self._shed = shed
        self.registry = Registry(shed.home.root / "running")

    # -- starting -------------------------------------------------------------------------------

    @property
    def starter(self) -> Starter:
        """What starts processes."""
        from .starter import Starter

        return Starter(self._shed, self)

    # -- what a run leaves ----------------------------------------------------------------------

    def ended(self, container: str, status: int | None, *, stubs_stay: bool = False) -> None:
        """Note the end of a run. ``status``: None where nobody saw it. ``stubs_stay``: what was
        made to mount on is there still."""
        state = self.registry.read(container)
        if state is not None:
            state = state._replace(
                finished_ns=state.finished_ns or time.time_ns(),
                status=137 if status is None else status,
                stubs=state.stubs if stubs_stay else (),
            )
            self.registry.write(container, state)

    def stubs_of(self, container: str) -> tuple[str, ...]:
        """Return what is in a container for a run only."""
        state = self.registry.read(container)
        return () if state is None else state.stubs

    def require_kept(self, container: Container) -> None:
        """Refuse a container that somebody else may be running."""
        state = self.registry.read(container.id)
        if state is not None and state.bundle:
            raise InUseError(
                f"container {container.name} is handed over as a bundle, in {state.bundle}; "
                f"'cowshed umount {container.name}' takes it back"
            )

    # -- who runs -------------------------------------------------------------------------------

    def running(self, container: str) -> bool:
        """Say whether a container's first process exists, or is about to."""
        state = self.registry.read(container)
        if state is None or state.status is not None or state.bundle:
            return False
        lock = self._shed.locks.attempt(_key(container))
        if lock is None:
            return True
        lock.release()
        return self.registry.process(container) is not None or self.registry.may_start(container)

    def state(self, container: str) -> State | None:
        """Return a container's last run; None: it never ran."""
        return self.registry.read(container) if self.registry.any() else None

    def require_stopped(self, records: Iterable[ContainerRecord], *, force: bool) -> None:
        """Refuse to remove what runs, or kill it by force.

        Raises:
            InUseError: names the process that runs it.
        """
        if not self.registry.any():
            return
        for record in records:
            if not self.running(record.id):
                continue
            if not force:
                raise InUseError(
                    f"container {record.name} is running{self._by(record.id)}; end that first, "
                    "or use --force"
                )
            self._kill(record)

    def _kill(self, record: ContainerRecord) -> None:
        import signal

        deadline = time.monotonic() + _ENDING
        while self.running(record.id):
            pid = self.registry.process(record.id)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise BusyError(f"container {record.name} was killed and doesn't end; try again")
            time.sleep(_PAUSE)

    def forget(self, containers: Iterable[str]) -> None:
        """Remove what is known of containers that are gone."""
        if self.registry.any():
            for container in containers:
                self._forget(container)

    def _forget(self, container: str) -> None:
        from .choosing import make
        from .runtimes import Bundle

        state = self.registry.read(container)
        if state is not None and (self.registry.root / state.runtime / container).exists():
            bundle = Bundle(id=container, directory=self.registry.home(container), spec={})
            make(state.runtime, self.registry.root, None).clear(bundle)
        self.registry.forget(container)

    def _by(self, container: str) -> str:
        state = self.registry.read(container)
        if state is None or not os.path.exists(f"/proc/{state.supervisor}"):
            return ""
        return f" (by process {state.supervisor})"

    @contextmanager
    def alone(self, container: Container) -> Generator[Lock]:
        """Be the one who runs it. RunningError: somebody does."""
        lock = self._shed.locks.attempt(_key(container.id))
        if lock is None:
            raise RunningError(
                f"container {container.name} is running{self._by(container.id)}; wait for that, "
                "or use exec for one more process in it"
            )
        with lock:
            if self.registry.process(container.id) is not None:
                raise RunningError(
                    f"container {container.name} is running; its 'cowshed run' was killed, "
                    f"'cowshed rm --force {container.name}' ends it"
                )
            yield lock

    # -- before somebody looks ------------------------------------------------------------------

    def settle(self, records: Iterable[ContainerRecord]) -> None:
        """Clear away what a killed run left in containers."""
        if not self.registry.any():
            return
        for record in records:
            state = self.registry.read(record.id)
            if state is None or not (state.stubs or state.status is None):
                continue
            lock = self._shed.locks.attempt(_key(record.id))
            if lock is not None:
                with lock, suppress(NotFoundError):  # it was removed meanwhile
                    self.settle_one(record)

    def settle_one(self, record: ContainerRecord) -> None:
        """Do it for one that nobody else runs just now."""
        state = self.registry.read(record.id)
        if state is None or (state.status is not None and not state.stubs):
            return
        if state.bundle:
            if self._shed.mounting.is_mounted(record.id):
                return
        elif self.registry.process(record.id) is not None or self.registry.may_start(record.id):
            return
        if state.stubs and not self._shed.read_only and not self._clear(record, state.stubs):
            return
        if state.bundle:
            self.registry.forget(record.id)
        else:
            self.ended(record.id, state.status)

    def _clear(self, record: ContainerRecord, made: tuple[str, ...]) -> bool:
        """Take stubs out of a container, without a mount if it has none, as that takes privilege
        and time; return whether it could be done from here."""
        from .rootfs import Rootfs

        mounting = self._shed.mounting
        mount = mounting.in_use(record.id)
        if mount is None or mount.read_only or mount.how == "native":
            with self._shed.container(record.id).tree(writable=True) as tree:
                stubs.remove(tree, made)
            return True
        if not mounting.is_here(mount):
            return False  # they stay hidden until that mount is gone
        with (
            mounting.mounted(record, read_only=False) as path,
            Rootfs(os.path.realpath(path)) as root,
        ):
            stubs.clear(root, made)
        return True

    def shown(self, record: ContainerRecord, changes: Iterable[Change]) -> Iterator[Change]:
        """Leave out of a container's changes what is there for a run only."""
        hidden = self.hidden(record)
        if not hidden:
            yield from changes
            return
        with ExitStack() as stack:
            below = None
            if record.chain:
                driver = self._shed.driver(record.driver)
                below = stack.enter_context(driver.tree(record.chain))

            def look(path: str) -> Entry | None:
                try:
                    return None if below is None else below.stat(path)
                except (FileNotFoundError, NotADirectoryError):
                    return None

            yield from stubs.without(changes, hidden, look)

    def hidden(self, record: ContainerRecord) -> frozenset[str]:
        """Return the paths in a container that are there for a run only."""
        state = self.registry.read(record.id) if self.registry.any() else None
        if state is None or not state.stubs:
            return frozenset()
        with self._shed.driver(record.driver).tree(record.id) as tree:
            return stubs.present(tree, state.stubs)

    def clear_fork(self, record: ContainerRecord, driver: str, fork: str) -> None:
        """Take out of a fork what its origin has for a run only."""
        state = self.registry.read(record.id) if self.registry.any() else None
        if state is None or not state.stubs:
            return
        with self._shed.driver(driver).tree(fork, writable=True) as tree:
            stubs.remove(tree, state.stubs)

    def sweep(self) -> None:
        """Forget containers that are gone."""
        for container in self.registry.containers():
            if len(container) != 64:
                continue
            with self._shed.catalog.read() as transaction:
                record = transaction.container(container)
            if record is not None:
                self.settle([record])
                continue
            lock = self._shed.locks.attempt(_key(container))
            if lock is not None:
                with lock:
                    self._forget(container)


class RunningError(InUseError):
    """The container runs already."""


def _key(container: str) -> str:
    return f"running:{container}"
