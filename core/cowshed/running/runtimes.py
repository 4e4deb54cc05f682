"""Runtimes: what starts a bundle's process, each behind the same few questions.

crun, runc, youki    OCI runtimes: they get the bundle
bubblewrap           gets the bundle as arguments; only ever as the container's root, or as one
                     user of an ordinary user's
plain                our own launcher (``inside``): namespaces, mounts, a new root
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from ..errors import StoreError, UsageError
from ..native.removal import remove_directory
from . import security
from .ending import kill_all
from .identity import Identity, map_users
from .process import CommandError
from .registry import PID
from .supervising import Launch

BUNDLED = "config.json"
_LOG = "log"
FAILED = 125
#: See memfd_create(2); Python has no name for it.
_MFD_EXEC = 0x10
#: Seconds until a process that was started is in its container at the latest, and a pause.
_ENTERING, _PAUSE = 10.0, 0.001
#: Variables that are for this process, not for what it starts.
_OURS = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET")


class Bundle(NamedTuple):
    """A bundle in its directory."""

    id: str
    directory: Path
    spec: Mapping[str, Any]

    @property
    def process(self) -> Mapping[str, Any]:
        """Its process."""
        found: Mapping[str, Any] = self.spec["process"]
        return found

    @property
    def uses_user_namespace(self) -> bool:
        """Whether it is an ordinary user's."""
        return "uidMappings" in self.spec["linux"]

    @property
    def single(self) -> bool:
        """Whether it has but one user or group, so that no group can be set (setgroups(2))."""
        maps = [self.spec["linux"].get(f"{kind}Mappings", ()) for kind in ("uid", "gid")]
        return self.uses_user_namespace and min(map(len, maps)) < 2

    def write(self) -> None:
        """Write its config.json.

        Raises:
            UsageError: text that isn't Unicode, which JSON can't say.
        """
        try:
            data = json.dumps(self.spec, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UsageError("the command and environment must be valid UTF-8") from None
        (self.directory / BUNDLED).write_bytes(data)
        (self.directory / PID).unlink(missing_ok=True)

    def pid(self) -> int | None:
        """Return its first process, once there is one."""
        try:
            return int((self.directory / PID).read_bytes())
        except (OSError, ValueError):
            return None

    def note_pid(self, pid: int) -> None:
        """Remember its first process."""
        (self.directory / PID).write_text(str(pid))


class Runtime(Protocol):
    """Starts processes."""

    @property
    def name(self) -> str: ...

    def run(self, bundle: Bundle) -> Launch:
        """Start the bundle's process as a container's first."""
        ...

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        """Start one more in the container that runs."""
        ...

    def check(self, bundle: Bundle, status: int) -> None:
        """Tell a failure of the runtime from one of the process.

        Raises:
            StoreError, CommandError: the process never ran.
        """

    def clear(self, bundle: Bundle) -> None:
        """Take away what the runtime keeps of a container that has ended, or kill it; after
        ``exec``, of that process alone."""


# -- OCI runtimes ----------------------------------------------------------------------------------


class OciRuntime:
    """crun, runc or youki. ``state``: where it keeps its containers."""

    def __init__(self, name: str, path: str, state: Path) -> None:
        self.name = name
        self.path = path
        self.state = state
        #: Where the files of the process are that it started last, and whether it was by ``exec``.
        self._place: Path | None = None
        self._beside = False

    def _launch(self, bundle: Bundle, place: Path, verb: str, *arguments: str) -> Launch:
        self._place = place
        pid_file, log = place / PID, place / _LOG
        log.unlink(missing_ok=True)
        where = ["--log", os.fspath(log), "--log-format", "json", verb]
        more = ["--pid-file", os.fspath(pid_file), *arguments, bundle.id]

        def forward(process: subprocess.Popen[bytes], number: int) -> None:
            # It passes on what it gets; what kills it would leave the process.
            if number == signal.SIGKILL:
                with suppress(OSError, ValueError):
                    os.kill(int(pid_file.read_bytes()), number)
                    return
            process.send_signal(number)

        return Launch(
            command=[*self._command, *where, *more],
            forward=forward,
            leads_terminal=True,
            # A service manager told us those; a runtime would act on them (sd_notify(3)).
            environment={name: text for name, text in os.environ.items() if name not in _OURS},
        )

    @property
    def _command(self) -> list[str]:
        own = ["--cgroup-manager=disabled"] if self.name == "crun" else []
        return [self.path, *own, "--root", os.fspath(self.state)]

    def run(self, bundle: Bundle) -> Launch:
        self.state.mkdir(mode=0o700, exist_ok=True)
        where = os.fspath(bundle.directory)
        return self._launch(bundle, bundle.directory, "run", "--bundle", where)

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        import tempfile  # with random: 3 ms

        place = Path(tempfile.mkdtemp(prefix="exec-", dir=bundle.directory))
        self._beside = True
        path = place / "process.json"
        path.write_text(json.dumps(process))
        return self._launch(bundle, place, "exec", "--process", os.fspath(path))

    def check(self, bundle: Bundle, status: int) -> None:
        said = [] if self._place is None else _errors(self._place / _LOG)
        if not said:
            return
        text = said[-1]
        command = str(bundle.process["args"][0])
        if "no such file" in text.lower() or "not found" in text.lower():
            if command in text:
                raise CommandError(command, "no such file in the container", 127)
        elif "permission denied" in text.lower() or "exec format error" in text.lower():
            why = "exec format error" if "format" in text.lower() else "permission denied"
            if "exec" in text.lower():
                raise CommandError(command, why, 126)
        raise StoreError(f"{self.name}: {text}")

    def clear(self, bundle: Bundle) -> None:
        if self._beside and self._place is not None:
            with suppress(OSError):
                remove_directory(*os.path.split(self._place))
        elif (self.state / bundle.id).exists():
            subprocess.run(
                [*self._command, "delete", "--force", bundle.id],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )


def _errors(path: Path) -> list[str]:
    found: list[str] = []
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    found.append(str(entry.get("msg", "")))
    return found


# -- processes that we start and know ourselves ----------------------------------------------------


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def _descriptor_of(data: bytes) -> int:
    """Return a descriptor that ``data`` can be read from."""
    descriptor = os.memfd_create("cowshed", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _guarded(program: str) -> str:
    """Return a path to execute ``program`` by: a copy's, if who is in the container could write the
    original, as until the container's own program is executed that is its /proc/self/exe
    (CVE-2019-5736)."""
    user = os.geteuid()
    if user != 0 and os.stat(program).st_uid != user and not os.access(program, os.W_OK):
        return program
    # Once for all runs of this process: 1 ms for 1 MB while the machine is busy.
    return f"/proc/{os.getpid()}/fd/{_sealed_copy(program)}"


@cache
def _sealed_copy(program: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("cowshed", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all can be executed
        copy = os.memfd_create("cowshed", flags)
    os.fchmod(copy, 0o555)
    with open(program, "rb") as file:
        done, size = 0, os.fstat(file.fileno()).st_size
        while done < size:
            done += os.sendfile(copy, file.fileno(), done, size - done)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


class _Status:
    """What a launcher says of its process."""

    def __init__(self, note: Callable[[int], None]) -> None:
        self._note = note
        self.read_end, self.write_end = _pipe()
        self.pid: int | None = None
        self.error = ""
        self.code = FAILED
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Listen no longer."""
        if self._file is not None:
            self._file.close()

    def follow(self, key: str) -> None:
        """Read until the process runs, or couldn't be started."""
        # bubblewrap has more to say when it ends, and would take offence if nobody listened.
        self._file = os.fdopen(self.read_end, "rb")
        for line in self._file:
            said = json.loads(line)
            if key in said:
                self.pid = said[key]
                if key != "pid":
                    return
            if "error" in said:
                self.error, self.code = said["error"], said["status"]
        # Our own launcher closes it by executing the program. Before, the root may be the host's.
        if self.pid is not None and not self.error:
            self._note(self.pid)

    def follow_into(self, root: str) -> None:
        """Do it for bubblewrap, which tells of its child before that has entered ``root``."""
        self.follow("child-pid")
        if self.pid is not None and entered(self.pid, root):
            self._note(self.pid)

    def forward(self, process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the process, or end a launcher that hasn't one yet."""
        if self.pid is not None:
            os.kill(self.pid, number)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            kill_all(process)


def entered(pid: int, root: str) -> bool:
    """Wait until a process has ``root`` as its own; False: it ended before, or never did."""
    wanted = os.stat(root)
    deadline = time.monotonic() + _ENTERING
    while time.monotonic() < deadline:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/root"), wanted):
                return True
        except PermissionError:
            pass  # it isn't to be looked into just now
        except OSError:
            return False
        time.sleep(_PAUSE)
    return False


class Plain:
    """Our own launcher."""

    name = "plain"

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity
        self._last: _Status | None = None

    def run(self, bundle: Bundle) -> Launch:
        return self._launch(bundle, dict(bundle.spec), bundle.note_pid, self.identity)

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        return join(self, bundle, process)

    def _launch(
        self,
        bundle: Bundle,
        config: dict[str, Any],
        note: Callable[[int], None],
        identity: Identity | None,
    ) -> Launch:
        config["single"] = bundle.single
        program = security.seccomp_program(os.uname().machine)
        self._last = status = _Status(note)
        given = [_descriptor_of(json.dumps(config).encode()), status.write_end]
        given.append(-1 if program is None else _descriptor_of(program))
        ready = go = -1
        if identity is not None:
            (ready, ready_in), (go_out, go) = _pipe(), _pipe()
            given += [ready_in, go_out]
        else:
            given += [-1, -1]

        def started() -> None:
            if identity is not None:
                _map(ready, go, identity)
            status.follow("pid")

        return Launch(
            command=[sys.executable, "-I", "-S", _INSIDE, *map(str, given)],
            executable=_guarded(sys.executable),
            descriptors=tuple(one for one in given if one >= 0),
            started=started,
            forward=status.forward,
            environment={
                "PYTHONDONTWRITEBYTECODE": "1",
                # For an interpreter that looks for its library beside itself.
                "LD_LIBRARY_PATH": os.path.join(sys.base_prefix, "lib"),
            },
        )

    def check(self, bundle: Bundle, status: int) -> None:
        failed(self._last, bundle.process)

    def clear(self, bundle: Bundle) -> None:
        if self._last is not None:
            self._last.close()


_INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside.py")


def failed(status: _Status | None, process: Mapping[str, Any]) -> None:
    """Raise what a launcher said."""
    if status is None or not status.error:
        return
    command = str(process["args"][0])
    if status.code in (126, 127):
        raise CommandError(command, status.error.removeprefix(f"{command}: "), status.code)
    raise StoreError(f"can't start a process in the container: {status.error}")


def join(plain: Plain, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
    """Start a process in the namespaces of a container's first, whoever made them."""
    config = {"join": bundle.pid(), "process": process}
    launcher = Plain()
    launch = launcher._launch(bundle, config, lambda pid: None, None)  # pyright: ignore[reportPrivateUsage]
    plain._last = launcher._last  # pyright: ignore[reportPrivateUsage]
    return launch


def _map(ready: int, go: int, identity: Identity) -> None:
    """Map a launcher's user namespace once it has made it."""
    with os.fdopen(ready, "rb") as ready_file, os.fdopen(go, "wb") as go_file:
        line = ready_file.readline()
        if not line.strip():
            return  # it says itself what went wrong
        map_users(line.strip().decode(), identity)
        go_file.write(b"\n")


# -- bubblewrap ------------------------------------------------------------------------------------


class Bubblewrap:
    """bwrap(1)."""

    name = "bubblewrap"

    def __init__(self, path: str, plain: Plain) -> None:
        self.path = path
        self.plain = plain
        self._status: _Status | None = None

    def run(self, bundle: Bundle) -> Launch:
        spec = bundle.spec
        user = spec["process"]["user"]
        if not bundle.uses_user_namespace and (user["uid"], user["gid"]) != (0, 0):
            raise StoreError(
                "bubblewrap can't start a process as another user than root; "
                "choose another runtime, as --runtime plain"
            )
        self._status = status = _Status(bundle.note_pid)
        descriptors = [status.write_end]
        arguments = self._arguments(spec)
        # Everybody can read a command line, and there are secrets in variables.
        variables = (one.partition("=") for one in spec["process"]["env"])
        words = [word for name, _, value in variables for word in ("--setenv", name, value)]
        descriptors.append(_descriptor_of(b"".join(os.fsencode(word) + b"\0" for word in words)))
        arguments += ["--args", str(descriptors[-1])]
        program = security.seccomp_program(os.uname().machine)
        if program is not None:
            descriptors.append(_descriptor_of(program))
            arguments += ["--seccomp", str(descriptors[-1])]
        arguments += ["--json-status-fd", str(status.write_end)]
        return Launch(
            command=[self.path, *arguments, "--", *spec["process"]["args"]],
            executable=_guarded(self.path),
            descriptors=tuple(descriptors),
            started=lambda: status.follow_into(spec["root"]["path"]),
            forward=status.forward,
        )

    def _arguments(self, spec: Mapping[str, Any]) -> list[str]:
        process = spec["process"]
        # As process 1 the command gets signals and children as it does with the others.
        arguments = ["--die-with-parent", "--as-pid-1", "--unshare-pid", "--unshare-ipc"]
        arguments += ["--unshare-uts", "--hostname", spec["hostname"]]
        if any(one["type"] == "network" for one in spec["linux"]["namespaces"]):
            arguments.append("--unshare-net")
        if "uidMappings" in spec["linux"]:
            user = process["user"]
            arguments += ["--unshare-user", "--uid", str(user["uid"]), "--gid", str(user["gid"])]
        arguments += ["--bind", spec["root"]["path"], "/"]
        for one in spec["mounts"]:
            arguments += _bubblewrap_mount(one)
        for path in spec["linux"]["maskedPaths"]:
            if os.path.isdir(path):
                arguments += ["--tmpfs", path, "--remount-ro", path]
            elif os.path.exists(path):
                arguments += ["--ro-bind", "/dev/null", path]
        for path in spec["linux"]["readonlyPaths"]:
            arguments += ["--ro-bind-try", path, path]
        if spec["root"]["readonly"]:
            arguments += ["--remount-ro", "/"]
        arguments += ["--cap-drop", "ALL"]
        for capability in process["capabilities"]["effective"]:
            arguments += ["--cap-add", capability]
        arguments += ["--chdir", process["cwd"], "--clearenv"]
        return arguments

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        return join(self.plain, bundle, process)

    def check(self, bundle: Bundle, status: int) -> None:
        if self._status is None:
            failed(self.plain._last, bundle.process)  # pyright: ignore[reportPrivateUsage]

    def clear(self, bundle: Bundle) -> None:
        if self._status is not None:
            self._status.close()
        self.plain.clear(bundle)


def _bubblewrap_mount(one: Mapping[str, Any]) -> list[str]:
    place, kind = one["destination"], one["type"]
    if kind == "bind":
        return ["--ro-bind" if "ro" in one["options"] else "--bind", one["source"], place]
    if place == "/proc":
        return ["--proc", place]
    if place == "/dev":
        return ["--dev", place]  # with terminals and shared memory
    if kind == "mqueue":
        return ["--mqueue", place]
    if place == "/sys":
        return ["--ro-bind", "/sys", place]
    return []
