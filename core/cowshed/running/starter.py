"""Starter: processes in containers, from the image's config to the exit status.

The steps of a run: the container is mounted; what isn't there to mount over is made, and noted
before; the bundle is written; a runtime starts it; the end is noted; what was made is taken away.
Killed in between, the next look at the container does the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CowshedError, NotFoundError, StoreError
from . import stubs
from .registry import State, begun
from .runs import RunningError

if TYPE_CHECKING:
    from ..container import Container
    from ..shed import Shed
    from .identity import Identity
    from .options import Options
    from .process import Process
    from .rootfs import Rootfs
    from .runs import Runs
    from .runtimes import Bundle, Runtime
    from .supervising import Ended, Signals, Streams
    from .users import User

#: Seconds that ``exec`` waits for a container that is just being started, and a pause.
_STARTING, _PAUSE = 10.0, 0.01


class Starter:
    """Starts processes for ``Container`` and ``Shed``."""

    def __init__(self, shed: Shed, runs: Runs) -> None:
        self._shed = shed
        self._runs = runs
        self._registry = runs.registry

    # -- running --------------------------------------------------------------------------------

    def run(
        self,
        container: Container,
        options: Options,
        streams: Streams,
        signals: Signals | None = None,
        *,
        discard: bool = False,
    ) -> Ended:
        """Run a container's first process until it ends. ``discard``: what it wrote goes with it,
        as the container is to be removed."""
        with self._runs.alone(container):
            self._runs.settle_one(container.record)
            self._runs.require_kept(container)
            mounting = self._shed.mounting
            with mounting.mounted(container.record, read_only=False, discard=discard) as path:
                try:
                    return self._run(
                        container, options, streams, signals, str(path), discard=discard
                    )
                finally:
                    if signals is not None:
                        signals.over()

    def _run(
        self,
        container: Container,
        options: Options,
        streams: Streams,
        signals: Signals | None,
        path: str,
        *,
        discard: bool,
    ) -> Ended:
        from .process import make_user
        from .rootfs import Rootfs
        from .supervising import supervise

        with Rootfs(os.path.realpath(path)) as root:
            home = self._registry.home(container.id)
            config = container.image_config()
            runtime, identity = self._choose(options, make_user(root, config, options))
            state = begun(runtime=runtime.name, supervisor=os.getpid())
            size = _size(options, streams)
            with self._prepared(
                container, root, config, options, identity, home, state, size
            ) as bundle:
                status = None
                try:
                    bundle.write()
                    runtime.clear(bundle)  # what a run left that was killed with its runtime
                    ended = supervise(
                        runtime.run(bundle),
                        streams,
                        terminal=bool(bundle.process["terminal"]),
                        signals=signals,
                    )
                    status = ended.status
                    if status:
                        runtime.check(bundle, status)
                    return ended
                except CowshedError as error:
                    status = error.exit_status if error.exit_status > 2 else 125
                    raise
                finally:
                    if signals is not None:
                        signals.over()
                    runtime.clear(bundle)
                    if not discard:
                        # Before they are forgotten: who is killed in between leaves a note of them.
                        stubs.clear(root, self._runs.stubs_of(container.id))
                    # If it stays after all, the next look takes them out.
                    self._runs.ended(container.id, status, stubs_stay=discard)

    @contextmanager
    def _prepared(
        self,
        container: Container,
        root: Rootfs,
        config: Mapping[str, object],
        options: Options,
        identity: Identity | None,
        home: Path,
        state: State,
        size: tuple[int, int] | None = None,
    ) -> Generator[Bundle]:
        """Make the bundle, and the stubs, which are there as long as anybody uses it."""
        from .process import make_directory, make_process, make_volumes, require_executable
        from .runtimes import Bundle
        from .spec import find_places, make_spec, write_etc

        hostname = options.hostname or container.id[:12]
        process = make_process(root, config, options, hostname, size)
        _require_mapped(process, identity)
        places = find_places(root, options.volumes)
        require_executable(root, process, tuple(one.target for one in places.volumes))
        missing = tuple(_missing(root, places.missing))
        self._registry.write(container.id, state._replace(stubs=missing))
        try:
            for place, directory in places.missing:
                stubs.make(root, place, directory=directory)
            if not options.read_only:
                make_volumes(root, config)
                make_directory(root, process, places.volumes)
            write_etc(os.fspath(home), hostname, options.network)
            yield Bundle(
                id=container.id,
                directory=home,
                spec=make_spec(
                    root=root.path,
                    process=process,
                    places=places,
                    bundle=os.fspath(home),
                    hostname=hostname,
                    read_only=options.read_only,
                    network=options.network,
                    identity=identity,
                    annotations={"org.opencontainers.image.ref.name": container.name},
                ),
            )
        except BaseException:
            stubs.clear(root, missing)
            raise

    def _choose(self, options: Options, user: User) -> tuple[Runtime, Identity | None]:
        from .choosing import BUBBLEWRAP, RUNC, choose
        from .identity import find_identity, obstacle

        identity = find_identity()
        problem = obstacle(identity)
        if problem:
            raise StoreError(f"no process can be started in a container: {problem}")
        asked = options.runtime or self._shed.config["run"].get("runtime")

        def unsuited(name: str) -> str | None:
            if name == BUBBLEWRAP and (user.uid, user.gid) != (0, 0):
                return "it can't start a process as another user than root"
            if name == RUNC and identity is not None and user.groups:
                return "it gives an ordinary user's processes one group only"
            if name == BUBBLEWRAP and options.terminal:
                # It would share process group and signals with its process.
                return "it gives no process a terminal of its own"
            return None

        runtime = choose(asked, self._registry.root, identity, unsuited)
        if runtime.name == BUBBLEWRAP and identity is not None:
            identity = identity.only_own()
        return runtime, identity

    # -- one more process -----------------------------------------------------------------------

    def exec(
        self,
        container: Container,
        options: Options,
        streams: Streams,
        signals: Signals | None = None,
    ) -> Ended:
        """Run a process in a container that runs, else as its first one."""
        deadline = time.monotonic() + _STARTING
        while True:
            pid = self._registry.process(container.id)
            if pid is not None:
                return self._join(container, options, streams, signals, pid)
            try:
                return self.run(container, options, streams, signals)
            except RunningError:
                # It is being started, or has just ended.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _join(
        self,
        container: Container,
        options: Options,
        streams: Streams,
        signals: Signals | None,
        pid: int,
    ) -> Ended:
        import json

        from .choosing import make
        from .identity import find_identity
        from .process import make_process, require_executable
        from .rootfs import Rootfs
        from .runtimes import BUNDLED, Bundle
        from .spec import process_spec
        from .supervising import supervise
        from .users import find_user

        home = self._registry.home(container.id)
        state = self._registry.read(container.id)
        if state is None:
            raise NotFoundError("running container", container.name)
        spec: dict[str, Any] = json.loads((home / BUNDLED).read_bytes())
        bundle = Bundle(id=container.id, directory=home, spec=spec)
        # What the process will see, volumes and all; its root is where the kernel says it is.
        config = dict(container.image_config())
        with Rootfs(f"/proc/{pid}/root") as root:
            # Its user, directory and variables, but for the home of its own user.
            first = spec["process"]
            uid, gid = first["user"]["uid"], first["user"]["gid"]
            own = f"HOME={find_user(root, str(uid)).home}"
            config["Env"] = [one for one in first["env"] if one != own]
            config["User"], config["WorkingDir"] = f"{uid}:{gid}", first["cwd"]
            process = make_process(
                root, config, options, str(spec["hostname"]), _size(options, streams)
            )
            if options.user is None:
                groups = tuple(first["user"].get("additionalGids", ()))
                user = process.user._replace(uid=uid, gid=gid, groups=groups)
                process = process._replace(user=user)
            require_executable(root, process)
        runtime = make(state.runtime, self._registry.root, find_identity())
        wanted = process_spec(process)
        bundle = bundle._replace(spec={**spec, "process": wanted})
        try:
            ended = supervise(
                runtime.exec(bundle, wanted), streams, terminal=process.terminal, signals=signals
            )
            if ended.status:
                runtime.check(bundle, ended.status)
            return ended
        finally:
            runtime.clear(bundle)

    # -- for others -----------------------------------------------------------------------------

    def bundle(self, container: Container, directory: Path, options: Options) -> Path:
        """See ``Container.bundle``."""
        import json

        from .identity import find_identity
        from .rootfs import Rootfs

        with self._runs.alone(container):
            self._runs.settle_one(container.record)
            self._runs.require_kept(container)
            _require_empty(directory)
            directory = directory.resolve()
            identity = find_identity()
            there = self._shed.mounting.is_mounted(container.id)
            path = self._mount_for_bundle(container, directory, identity)
            made = False
            try:
                with Rootfs(os.path.realpath(path)) as root:
                    state = begun(bundle=os.fspath(directory))
                    prepared = self._prepared(
                        container,
                        root,
                        container.image_config(),
                        options,
                        identity,
                        directory,
                        state,
                    )
                    with prepared as bundle:
                        spec = dict(bundle.spec)
                        if path.parent == directory:
                            spec["root"] = {**spec["root"], "path": path.name}
                        text = json.dumps(spec, ensure_ascii=False, indent=2)
                        (directory / "config.json").write_text(text + "\n", "utf-8")
                        made = True
            finally:
                if not made:
                    if not there:
                        with suppress(CowshedError):
                            container.unmount()
                    self._registry.forget(container.id)
                    _empty(directory)
            return directory

    def _mount_for_bundle(
        self, container: Container, directory: Path, identity: Identity | None
    ) -> Path:
        rootfs = directory / "rootfs"
        if identity is not None:
            return container.mount()  # who isn't root can't mount it there
        # What gains privilege in the container, as sudo does, is for nobody else of this machine.
        directory.chmod(0o700)
        rootfs.mkdir()
        try:
            return self._shed.mounting.mount(
                container.record, rootfs, read_only=False, no_suid=False
            )
        except BaseException:
            rootfs.rmdir()
            raise


def _size(options: Options, streams: Streams) -> tuple[int, int] | None:
    if not options.terminal:
        return None
    from .terminal import size_of

    return size_of(streams)


def _missing(root: Rootfs, places: Sequence[tuple[str, bool]]) -> Iterator[str]:
    """Yield every path that has to be made for ``places``, parents first."""
    seen: set[str] = set()
    for place, _ in places:
        parts = place.split("/")
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            if here not in seen and root.resolve(here)[1] is None:
                seen.add(here)
                yield here


def _require_mapped(process: Process, identity: Identity | None) -> None:
    user = process.user
    if identity is not None and not identity.has(user.uid, user.gid):
        raise StoreError(
            f"user {user.uid}:{user.gid} can't be had here without subordinate IDs; set them up in "
            "/etc/subuid and /etc/subgid and install newuidmap (package uidmap), or run as root"
        )


def _require_empty(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        strangers = os.listdir(directory)
    except OSError as error:
        raise StoreError(f"{directory} can't be a bundle: {error.strerror}") from None
    if strangers:
        raise StoreError(f"{directory} isn't empty; write the bundle into an empty directory")


def _empty(directory: Path) -> None:
    """Take out of a directory what we put there for a bundle."""
    from .runtimes import BUNDLED
    from .spec import ETC

    for name in (*ETC, BUNDLED):
        (directory / name).unlink(missing_ok=True)
    with suppress(OSError):
        (directory / "rootfs").rmdir()
