"""Inside: the program that puts a process into namespaces, where no OCI runtime is.

    python -I -S inside.py CONFIG STATUS FILTER READY GO

It stands alone: a fresh interpreter runs it, as forking a process that has threads isn't safe, and
it imports little, as that is most of what it takes. CONFIG is a descriptor to read a bundle's
config.json from, for ``exec`` with ``join``, the number of a process in the container; STATUS a
descriptor to write to: ``{"pid": N}`` once the process exists and ``{"error": TEXT, "status": N}``
if it couldn't be started; FILTER one to read a seccomp program from. A new user namespace is mapped
by who started us: we write a line to READY once it is there and wait for one from GO. A descriptor
that isn't needed is -1.

This process stays outside, waits and exits as its child did: 128+n for a signal.

The order of steps: namespaces; a child that is process 1; its mounts, made through descriptors that
the kernel resolved inside the root (RESOLVE_IN_ROOT), so no link leads out; the new root; what is
hidden; the seccomp filter while there is the privilege to set it; user and capabilities; the
program.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import struct
import sys

TYPE_CHECKING = False  # typing takes 8 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

libc = ctypes.CDLL(None, use_errno=True)

NEW = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
    "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000,
}  # fmt: skip
FILES = {"user": "user", "mount": "mnt", "uts": "uts", "ipc": "ipc", "network": "net", "pid": "pid"}
FLAGS = {
    "ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "strictatime": 0x1000000,
}  # fmt: skip
IGNORED = ("rro", "rw", "rprivate", "bind", "rbind", "newinstance")
NO_DEVICES = struct.pack("QQQQ", FLAGS["nodev"], 0, 0, 0)
REMOUNT, BIND, RECURSIVE, PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
DETACH, NO_FOLLOW = 2, 8
OPENAT2 = 437
MOUNT_SETATTR, OPEN_TREE, MOVE_MOUNT = 442, 428, 429
IN_ROOT, NO_MAGIC = 0x10, 0x02
MISSING = (errno.ENOENT, errno.ENOTDIR)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip


class Failed(Exception):
    """What couldn't be done, and the exit status that says so."""

    def __init__(self, text: str, status: int = 125) -> None:
        super().__init__(text)
        self.status = status


def checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def call(number: int, what: str, *arguments: int | bytes) -> int:
    values = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *values), what)


def prctl(option: int, *arguments: int | bytes) -> int:
    values = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    result: int = libc.prctl(option, *values)
    return result


def mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    encoded = [None if one is None else os.fsencode(one) for one in (source, target, kind)]
    result = libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode())
    checked(result, f"mount at {target}")


def inside(root: int, path: str) -> int:
    """Open what ``path`` leads to below an open directory, as a chroot would resolve it."""
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, IN_ROOT | NO_MAGIC)
    return call(OPENAT2, path, root, os.fsencode(path.lstrip("/")) or b".", how, 24)


def place(root: int, path: str, directory: bool) -> int:
    """Open a place to mount at, which is made if it is in a file system of the container's own."""
    try:
        return inside(root, path)
    except FileNotFoundError:
        above, _, name = path.rstrip("/").rpartition("/")
        parent = place(root, above, True)
        try:
            where = f"/proc/self/fd/{parent}/{name}"
            if directory:
                os.mkdir(where, 0o755)
            else:
                os.close(os.open(where, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        finally:
            os.close(parent)
        return inside(root, path)


def put(root: int, one: dict[str, Any], no_devices: int = FLAGS["nodev"]) -> None:
    """Make one mount of the config. What is bound shows no devices, unless it is one of ours."""
    flags, options = 0, one.get("options", ())
    data: list[str] = []
    for option in options:
        if option in FLAGS:
            flags |= FLAGS[option]
        elif option not in IGNORED:
            data.append(option)
    source = one["source"]
    bind = "bind" in options or "rbind" in options
    target = place(root, one["destination"], not bind or os.path.isdir(source))
    where = f"/proc/self/fd/{target}"
    try:
        if not bind:
            mount(source, where, one["type"], flags, ",".join(data))
            return
        # A clone of its own, made read-only before it is seen: mount_setattr(2), Linux 5.12.
        clone = call(OPEN_TREE, source, -100, os.fsencode(source), 1 | 0x80000 | 0x8000)
        try:
            attributes = struct.pack("QQQQ", flags & 0xF | no_devices, 0, PRIVATE, 0)
            call(MOUNT_SETATTR, source, clone, b"", 0x1000 | 0x8000, attributes, 32)
            call(MOVE_MOUNT, one["destination"], clone, b"", target, b"", 0x04 | 0x40)
        finally:
            os.close(clone)
    finally:
        os.close(target)


def devices(root: int, terminal: bool) -> None:
    """Show the six harmless devices of the host, the links programs expect, and the terminal."""
    for name in DEVICES:
        put(root, {"destination": f"/dev/{name}", "source": f"/dev/{name}", "options": ["bind"]}, 0)
    where = f"/proc/self/fd/{inside(root, '/dev')}"
    for name, target in (
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
    ):  # fmt: skip
        os.symlink(target, f"{where}/{name}")
    if terminal:
        source = os.ttyname(0)
        put(root, {"destination": "/dev/console", "source": source, "options": ["bind"]}, 0)


def hide(paths: list[str], read_only: list[str]) -> None:
    for path in paths:
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", 1, "size=0k")
        elif os.path.exists(path):
            mount("/dev/null", path, None, BIND)
    for path in read_only:
        if os.path.exists(path):
            mount(path, path, None, BIND | RECURSIVE)
            kept = os.statvfs(path).f_flag & 0xF
            mount(None, path, None, BIND | REMOUNT | 1 | kept)


def enter_root(config: dict[str, Any]) -> None:
    """Make the mounts and let the container's root be ours."""
    path = config["root"]["path"]
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount(path, path, None, BIND | RECURSIVE)
    # A driver's own directory has the image's device nodes as they are.
    call(MOUNT_SETATTR, path, -100, os.fsencode(path), 0x8000, NO_DEVICES, 32)
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for one in config["mounts"]:
        put(root, one)
    devices(root, config["process"].get("terminal", False))
    os.fchdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    # The old root lies over the new one now.
    checked(libc.umount2(b".", DETACH), "umount of the old root")
    os.chdir("/")
    hide(config["linux"].get("maskedPaths", []), config["linux"].get("readonlyPaths", []))
    if config["root"].get("readonly"):
        attributes = struct.pack("QQQQ", 1, 0, 0, 0)
        call(MOUNT_SETATTR, "/", -100, b"/", 0, attributes, 32)


def loopback() -> None:
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sH14x", b"lo", 1 | 64)  # up and running
        fcntl.ioctl(one, 0x8914, request)


def become(process: dict[str, Any], program: bytes, single: bool) -> None:
    """Drop to the user and capabilities of the config; the filter comes while we may set it."""
    os.umask(0o022)
    kept = [CAPABILITIES.index(one[4:]) for one in process["capabilities"]["bounding"]]
    for number in range(64):
        if number not in kept and prctl(24, number) < 0:  # PR_CAPBSET_DROP
            break
    if program:
        install(program)
    user = process["user"]
    if not single:
        os.setgroups(user.get("additionalGids", ()))
    if process.get("terminal"):
        os.fchown(0, user["uid"], -1)
    prctl(8, 1)  # PR_SET_KEEPCAPS: capset says what is kept
    os.setresgid(user["gid"], user["gid"], user["gid"])
    os.setresuid(user["uid"], user["uid"], user["uid"])
    held = sum(1 << CAPABILITIES.index(one[4:]) for one in process["capabilities"]["effective"])
    header = struct.pack("II", 0x20080522, 0)
    low, high = held & 0xFFFFFFFF, held >> 32
    checked(libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")
    prctl(8, 0)


def install(program: bytes) -> None:
    """Install a seccomp filter, which needs CAP_SYS_ADMIN, or no_new_privs, which we don't set."""
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    checked(prctl(22, 2, pointer), "seccomp")


def execute(process: dict[str, Any]) -> NoReturn:
    try:
        os.chdir(process["cwd"])
    except OSError as error:
        raise Failed(f"working directory {process['cwd']}: {error.strerror}", 126) from None
    environment = dict(one.split("=", 1) for one in process["env"])
    for number in (*ENDING, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)  # whatever Python and who called us ignore
    command = process["args"][0]
    candidates = [command]
    if "/" not in command:
        candidates = [f"{one or '.'}/{command}" for one in environment.get("PATH", "").split(":")]
    worst = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for candidate in candidates:
        try:
            os.execve(candidate, process["args"], environment)
        except OSError as error:
            if error.errno not in MISSING:
                worst = error
    status = 127 if worst.errno in MISSING else 126
    raise Failed(f"{command}: {worst.strerror}", status)


def start(config: dict[str, Any], program: bytes) -> NoReturn:
    """What process 1 does, or one more process of the container."""
    process = config["process"]
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody would wait for us
    os.setsid()
    if process.get("terminal"):
        # No module of Python can be imported any more where the mounts are the container's.
        checked(libc.ioctl(0, ctypes.c_ulong(0x540E), 0), "the terminal")  # TIOCSCTTY
    if "join" not in config:
        if config.get("hostname"):
            name = config["hostname"].encode()
            checked(libc.sethostname(name, len(name)), "sethostname")
        if any(one["type"] == "network" for one in config["linux"]["namespaces"]):
            loopback()
        enter_root(config)
    become(process, program, config.get("single", False))
    prctl(1, signal.SIGKILL)  # forgotten with the user
    execute(process)


def namespaces(config: dict[str, Any], ready: int, go: int) -> None:
    """Enter or make them; a new user namespace is mapped by who started us."""
    if "join" in config:
        opened: list[tuple[str, int]] = []
        for name, file in FILES.items():
            theirs = os.open(f"/proc/{config['join']}/ns/{file}", os.O_RDONLY)
            # Those that we have already may not be ours to enter.
            if not os.path.samestat(os.stat(f"/proc/self/ns/{file}"), os.fstat(theirs)):
                opened.append((name, theirs))
        for name, theirs in opened:
            checked(libc.setns(theirs, 0), f"the container's {name} namespace")
            os.close(theirs)
        return
    wanted = [one["type"] for one in config["linux"]["namespaces"]]
    if "user" in wanted:
        checked(libc.unshare(NEW["user"]), "a user namespace")
        os.write(ready, b"%d\n" % os.getpid())
        if os.read(go, 1) != b"\n":
            raise Failed("the user namespace couldn't be mapped")
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    rest = sum(NEW[one] for one in wanted if one != "user")
    checked(libc.unshare(rest), "namespaces")


def main() -> NoReturn:
    descriptors = [int(one) for one in sys.argv[1:]]
    config_in, status, program_in, ready, go = descriptors
    prctl(1, signal.SIGKILL)
    with os.fdopen(config_in, "rb") as file:
        config = json.loads(file.read())
    program = b""
    if program_in >= 0:
        with os.fdopen(program_in, "rb") as file:
            program = file.read()
    for one in (status, ready, go):
        if one >= 0:
            os.set_inheritable(one, False)  # the container's process gets none

    def say(**what: int | str) -> None:
        os.write(status, json.dumps(what).encode() + b"\n")

    def failed(error: Exception) -> None:
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        say(error=text, status=getattr(error, "status", 125))

    try:
        namespaces(config, ready, go)
        prctl(4, 0)  # PR_SET_DUMPABLE: what is in the container already can't look into us
        child = os.fork()
    except (OSError, Failed) as error:
        failed(error)
        os._exit(125)
    if child == 0:
        try:
            start(config, program)
        except (OSError, Failed, KeyError, ValueError) as error:
            failed(error)
            os._exit(getattr(error, "status", 125))
    say(pid=child)
    os.close(status)
    for one in (ready, go):
        if one >= 0:
            os.close(one)
    # The container has the streams; who reads its output waits for nobody else.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    _, result = os.waitpid(child, 0)
    os._exit(128 + os.WTERMSIG(result) if os.WIFSIGNALED(result) else os.WEXITSTATUS(result))


if __name__ == "__main__":
    main()
