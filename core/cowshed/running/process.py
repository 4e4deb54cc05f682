"""Process: what the image's config and the options come to, as Docker puts them together."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, cast

from ..errors import CowshedError, StoreError, UsageError
from .options import Options, Volume, require_clean
from .rootfs import Rootfs
from .users import User, find_user

#: Where programs are looked for if neither image nor options say.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NOT_EXECUTABLE, NOT_FOUND = 126, 127
_SCRIPT_LINE = 256


class CommandError(CowshedError):
    """The command isn't there (127) or can't be executed (126)."""

    def __init__(self, command: str, why: str, status: int) -> None:
        super().__init__(f"{command}: {why}")
        self.exit_status = status


class Process(NamedTuple):
    """One process to be, everything decided."""

    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    #: Without any link on the way.
    directory: str
    user: User
    terminal: bool = False
    #: The terminal's lines and columns; None: as the runtime likes.
    size: tuple[int, int] | None = None


def make_process(
    root: Rootfs,
    config: Mapping[str, object],
    options: Options,
    hostname: str,
    size: tuple[int, int] | None = None,
) -> Process:
    """Decide what runs.

    Raises:
        UsageError: there is no command, or a directory that isn't absolute.
        StoreError: no such user.
        CommandError: the command isn't there or can't be executed.
    """
    arguments = _arguments(config, options)
    _require_files(root)
    user = make_user(root, config, options)
    environment = _environment(config, options, hostname, user)
    directory = options.directory or _text(config.get("WorkingDir")) or "/"
    if not directory.startswith("/"):
        raise UsageError(f"the working directory must be absolute, not {directory!r}")
    where, mode = resolved(root, directory)
    if mode is not None and not stat.S_ISDIR(mode):
        raise StoreError(f"working directory {directory} is no directory in the container")
    if where.split("/")[0] in ("proc", "dev", "sys"):
        # What a runtime has open there is the host's (CVE-2024-21626).
        raise StoreError(f"working directory {directory} leads to /{where}; choose another, by -w")
    process = Process(
        arguments=arguments,
        environment=tuple(f"{name}={value}" for name, value in environment.items()),
        directory="/" + where,
        user=user,
        terminal=options.terminal,
        size=size if options.terminal else None,
    )
    require_clean((*process.arguments, *process.environment), "the command or environment")
    return process


def make_user(root: Rootfs, config: Mapping[str, object], options: Options) -> User:
    """Decide who runs it.

    Raises:
        StoreError: no such user.
    """
    return find_user(root, _text(config.get("User")) if options.user is None else options.user)


def _require_files(root: Rootfs) -> None:
    """Refuse user databases that runc, which opens them, can't read, or would wait for without
    end."""
    for name in ("etc/passwd", "etc/group"):
        try:
            where, mode = root.resolve(name)
        except OSError:
            continue
        if where.startswith("dev/") or (mode is not None and not stat.S_ISREG(mode)):
            raise StoreError(f"/{name} in the container is no file; make it one, or remove it")


def resolved(root: Rootfs, path: str) -> tuple[str, int | None]:
    """Return where ``path`` leads in the container; see ``Rootfs.resolve``.

    Raises:
        StoreError: it leads nowhere.
    """
    try:
        return root.resolve(path)
    except OSError as error:
        raise StoreError(f"{path} in the container: {error.strerror}") from None


def make_directory(root: Rootfs, process: Process, volumes: tuple[Volume, ...]) -> None:
    """Make the working directory if it is missing, as Docker does: it is the container's, or the
    volume's that it lies in. Behind a link in a volume it is the runtime's to find.

    Raises:
        StoreError: it can't be made.
    """
    from .stubs import make

    path = process.directory
    around = [one for one in volumes if f"{path}/".startswith(f"{one.target}/")]
    if not around:
        make(root, path.lstrip("/"), directory=True)
        return
    volume = max(around, key=lambda one: len(one.target))
    rest = path[len(volume.target) + 1 :]
    if not os.path.isdir(volume.source):
        return
    with Rootfs(volume.source) as inside:
        where, mode = resolved(inside, rest)
        if mode is not None or where != rest:
            return
        why = "the volume is read-only"
        if not volume.read_only:
            try:
                make(inside, rest, directory=True)
                return
            except OSError as error:
                why = error.strerror or "it can't be made"
        raise StoreError(f"working directory {path} isn't in volume {volume.source}: {why}")


def make_volumes(root: Rootfs, config: Mapping[str, object]) -> None:
    """Make the directories that the image calls volumes, where it lacks them, as Docker does. They
    are the container's own: nobody keeps volumes for it."""
    from .stubs import make

    volumes = config.get("Volumes")
    if not isinstance(volumes, Mapping):
        return
    for path in cast(Mapping[object, object], volumes):
        if isinstance(path, str) and path.startswith("/"):
            with suppress(OSError):  # what needs it will say so
                where, mode = root.resolve(path)
                if mode is None:
                    make(root, where, directory=True)


def _arguments(config: Mapping[str, object], options: Options) -> tuple[str, ...]:
    entrypoint = _words(config.get("Entrypoint"))
    command = _words(config.get("Cmd"))
    if options.entrypoint is not None:
        entrypoint = tuple(word for word in options.entrypoint if word)
        command = ()
    arguments = (*entrypoint, *(options.command or command))
    if not arguments:
        raise UsageError("the image says no command; give one")
    if not arguments[0]:
        raise UsageError("the command is empty")
    return arguments


def _environment(
    config: Mapping[str, object], options: Options, hostname: str, user: User
) -> dict[str, str]:
    found = {"PATH": PATH, "HOSTNAME": hostname}
    if options.terminal:
        found["TERM"] = "xterm"
    for text in _words(config.get("Env")):
        name, equals, value = text.partition("=")
        if name and equals:
            found[name] = value
    for name, wanted in options.environment.items():
        if wanted is None:
            found.pop(name, None)
        else:
            found[name] = wanted
    found.setdefault("HOME", user.home)
    return found


def _words(value: object) -> tuple[str, ...]:
    """Read a list of an image's config, which once was allowed to be a single string."""
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list):
        return tuple(word for word in cast("list[object]", value) if isinstance(word, str))
    return ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# -- can it be executed? -------------------------------------------------------------------------


def require_executable(root: Rootfs, process: Process, volumes: tuple[str, ...] = ()) -> None:
    """Refuse what the kernel would refuse, before anything is started.

    What lies in volumes, whose paths in the container are given, only the runtime can see.

    Raises:
        CommandError: it isn't there or can't be executed.
    """
    command = process.arguments[0]
    if "/" in command:
        candidates = [os.path.join(process.directory, command)]
    else:
        path = next((one[5:] for one in process.environment if one.startswith("PATH=")), PATH)
        candidates = [
            os.path.join(process.directory, directory, command) for directory in path.split(":")
        ]
    best: CommandError | None = None
    for candidate in candidates:
        try:
            where, mode = root.resolve(candidate)
        except OSError as error:
            why = os.strerror(error.errno or errno.ENOENT)
            best = best or CommandError(command, why, NOT_FOUND)
            continue
        if any(f"/{where}/".startswith(f"{volume}/") for volume in volumes) or where.startswith(
            ("proc/", "dev/", "sys/")
        ):
            return
        if mode is None:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            _require_interpreter(root, command, where)
            return
        why = "is a directory" if stat.S_ISDIR(mode) else "permission denied"
        best = CommandError(command, why, NOT_EXECUTABLE)
    if best is not None:
        raise best
    why = "no such file in the container" if "/" in command else "not found in $PATH"
    raise CommandError(command, why, NOT_FOUND)


def _require_interpreter(root: Rootfs, command: str, path: str) -> None:
    """Refuse what the kernel couldn't start: a script whose interpreter is missing, for which its
    ENOENT names the script, or what is no program of this machine."""
    try:
        first = root.read_start(path, _SCRIPT_LINE)
    except OSError:
        return
    if not first.startswith(b"#!"):
        if not _known(first) and not _more_formats():
            why = "exec format error: no script, and no program for this kind of machine"
            raise CommandError(command, why, NOT_EXECUTABLE)
        return
    words = first[2:].split(b"\n")[0].split()
    if not words:
        return
    name = os.fsdecode(words[0])
    try:
        _, mode = root.resolve(name)
    except OSError:
        mode = None
    if mode is None:
        raise CommandError(command, f"its interpreter {name} isn't in the container", NOT_FOUND)


#: Values of e_machine in elf(5) that each machine runs.
_MACHINES = {"x86_64": (62, 3), "aarch64": (183, 40)}


def _known(first: bytes) -> bool:
    """Say whether the kernel knows the format of a program by itself."""
    machines = _MACHINES.get(os.uname().machine)
    if machines is None:
        return True
    return first.startswith(b"\x7fELF") and int.from_bytes(first[18:20], "little") in machines


def _more_formats() -> bool:
    """Say whether somebody taught the kernel others (binfmt_misc), such as an emulator's."""
    try:
        return bool(set(os.listdir("/proc/sys/fs/binfmt_misc")) - {"register", "status"})
    except OSError:
        return False
