"""POSIX's rules, call by call: a mount and a native directory give the same answers.

What pjdfstest asks, in short: errors, permissions of other users, privilege that a write takes
away, times that a call moves. The image's files are asked, so that each answer comes from a lower
layer first and from what was written over it later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.errors import DriverError

from .conftest import DRIVERS, require_mounts, unmount_all
from .pictures import differences, of_directory, of_tree

USER, GROUP, OTHER = 1234, 2345, 3456
LONG = "l" * 256


def make_ruled(root: Path) -> None:
    """Fill a directory whose files belong to several."""
    for name, owner, mode in (
        ("roots", 0, 0o755), ("users", USER, 0o755), ("sticky", 0, 0o1777), ("open", 0, 0o777),
        ("closed", 0, 0o700), ("grouped", USER, 0o2775), ("full", USER, 0o755),
    ):  # fmt: skip
        (root / name).mkdir()
        (root / name / "file").write_bytes(b"0123456789")
        (root / name / "other").write_bytes(b"other")
        (root / name / "below").mkdir()
        for path in (root / name, root / name / "file", root / name / "below"):
            os.chown(path, owner, GROUP if name == "grouped" else owner)
        (root / name).chmod(mode)
    (root / "link").symlink_to("users/file")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "to-directory").symlink_to("users")
    os.mkfifo(root / "fifo")
    shutil.copy("/bin/true", root / "program")
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("both", 0o6755), ("secret", 0o600)):
        (root / name).write_bytes(b"privileged")
        (root / name).chmod(mode)
    (root / "writable").write_bytes(b"privileged")
    (root / "writable").chmod(0o6777)
    (root / "mine").write_bytes(b"mine")
    os.chown(root / "mine", USER, GROUP)


def opened(path: str, flags: int) -> object:
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.close(descriptor)
    return True


def mode_after(path: str, act: Callable[[], object]) -> tuple[object, int]:
    return act(), stat.S_IMODE(os.lstat(path).st_mode)


def overwrite(path: str) -> object:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def moved(act: Callable[[], object], *paths: str) -> list[tuple[bool, bool]]:
    """Say whether mtime and ctime of ``paths`` moved."""
    before = [os.lstat(path) for path in paths]
    time.sleep(0.02)
    act()
    return [
        (one.st_mtime_ns != now.st_mtime_ns, one.st_ctime_ns != now.st_ctime_ns)
        for one, now in zip(before, (os.lstat(path) for path in paths), strict=True)
    ]


def run_while_written() -> object:
    descriptor = os.open("program", os.O_WRONLY)
    try:
        return subprocess.run(["./program"], check=True)
    finally:
        os.close(descriptor)


def move(path: str, to: str) -> None:
    """Move a directory as mv does: where the kernel can't (EXDEV), by copying."""
    try:
        os.rename(path, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        os.rmdir(to)
        shutil.copytree(path, to, symlinks=True)
        shutil.rmtree(path)


def bind_socket(path: str) -> object:
    with socket.socket(socket.AF_UNIX) as one:
        return one.bind(path)


def lease() -> object:
    descriptor = os.open("mine", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        again = os.open("mine", os.O_RDWR)
        try:
            return fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(again)
    finally:
        os.close(descriptor)


def too_large() -> object:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return os.truncate("open/file", 101)


Call = tuple[int, Callable[[], object]]
CALLS: dict[str, Call] = {
    # names
    "mkdir over a file": (0, lambda: os.mkdir("roots/file")),
    "mkdir over a dangling link": (0, lambda: os.mkdir("dangling")),
    "mkdir below a file": (0, lambda: os.mkdir("roots/file/x")),
    "mkdir with too long a name": (0, lambda: os.mkdir(LONG)),
    "a name of 255 bytes": (0, lambda: os.mkdir(LONG[1:])),
    "stat below a file": (0, lambda: os.stat("roots/file/x")),
    "stat of a loop": (0, lambda: os.stat("loop")),
    "stat with a slash after a file": (0, lambda: os.stat("roots/file/")),
    "a path below a loop": (0, lambda: os.stat("loop/x")),
    "unlink a directory": (0, lambda: os.unlink("roots/below")),
    "unlink what isn't there": (0, lambda: os.unlink("roots/nothing")),
    "rmdir a file": (0, lambda: os.rmdir("roots/file")),
    "rmdir a full directory": (0, lambda: os.rmdir("full")),
    "rmdir the dot": (0, lambda: os.rmdir("roots/.")),
    "rmdir by a link": (0, lambda: os.rmdir("to-directory")),
    "link a directory": (0, lambda: os.link("roots", "linked")),
    "link over a file": (0, lambda: os.link("mine", "roots/file")),
    "link a symlink itself": (0, lambda: os.link("link", "link-too", follow_symlinks=False)),
    "the link to it": (0, lambda: os.readlink("link-too")),
    "symlink over a file": (0, lambda: os.symlink("x", "mine")),
    "an empty symlink": (0, lambda: os.symlink("", "empty")),
    "a symlink of 4095 bytes": (0, lambda: os.symlink("y" * 4095, "longest")),
    "its length": (0, lambda: os.lstat("longest").st_size),
    "readlink of a file": (0, lambda: os.readlink("mine")),
    "rename to itself": (0, lambda: os.rename("mine", "mine")),
    "rename a directory below itself": (0, lambda: os.rename("full", "full/below/x")),
    "rename a file over a directory": (0, lambda: os.rename("mine", "full/below")),
    "rename a directory over a file": (0, lambda: os.rename("full/below", "mine")),
    "rename over a full directory": (0, lambda: move("roots/below", "full")),
    "rename over an empty directory": (0, lambda: move("full", "roots/below")),
    "what is there then": (0, lambda: sorted(os.listdir("roots/below"))),
    "rename between names of one file": (
        0,
        lambda: (os.link("roots/other", "open/same"), os.rename("open/same", "roots/other")),
    ),
    "both are there still": (0, lambda: os.path.exists("open/same")),
    "rename what isn't there": (0, lambda: os.rename("nothing", "something")),
    "rename the dot": (0, lambda: os.rename("roots/.", "x")),
    # opening
    "open a directory to write": (0, lambda: opened("roots", os.O_RDWR)),
    "open a file as a directory": (0, lambda: opened("mine", os.O_DIRECTORY)),
    "open a link that isn't to be followed": (0, lambda: opened("link", os.O_NOFOLLOW)),
    "create what is there": (0, lambda: opened("mine", os.O_CREAT | os.O_EXCL)),
    "create where a dangling link is": (0, lambda: opened("dangling", os.O_CREAT | os.O_EXCL)),
    "create through a dangling link": (0, lambda: opened("dangling", os.O_CREAT | os.O_WRONLY)),
    "where it leads": (0, lambda: os.path.exists("nowhere")),
    "open a fifo to write that nobody reads": (0, lambda: opened("fifo", os.O_WRONLY)),
    "write to a program that runs": (0, run_while_written),
    "a socket where a file is": (0, lambda: bind_socket("mine")),
    "a lock that another one has": (0, lease),
    "truncate a directory": (0, lambda: os.truncate("roots", 0)),
    "truncate to less than nothing": (0, lambda: os.truncate("mine", -1)),
    "truncate to more than is allowed": (0, too_large),
    "an attribute that isn't there": (0, lambda: os.getxattr("mine", "user.no")),
    "an attribute of a fifo": (0, lambda: os.setxattr("fifo", "user.x", b"")),
    "an attribute of no kind": (0, lambda: os.setxattr("mine", "nokind.x", b"")),
    "an attribute that must be new": (
        0,
        lambda: [os.setxattr("mine", "user.x", b"", os.XATTR_CREATE) for _ in range(2)],
    ),
    "a device where a file is": (0, lambda: os.mknod("mine", stat.S_IFCHR | 0o600)),
    # other users
    "read a secret": (USER, lambda: opened("secret", os.O_RDONLY)),
    "look into a closed directory": (USER, lambda: os.listdir("closed")),
    "look below a closed directory": (USER, lambda: os.stat("closed/file")),
    "write another's file": (USER, lambda: opened("roots/file", os.O_WRONLY)),
    "create in another's directory": (USER, lambda: opened("roots/new", os.O_CREAT)),
    "remove from another's directory": (USER, lambda: os.unlink("roots/file")),
    "remove another's from an open one": (USER, lambda: os.unlink("open/other")),
    "remove another's from a sticky one": (USER, lambda: os.unlink("sticky/file")),
    "rename another's in a sticky one": (USER, lambda: os.rename("sticky/file", "sticky/x")),
    "rename over another's in a sticky one": (
        USER,
        lambda: (opened("sticky/mine", os.O_CREAT), os.rename("sticky/mine", "sticky/file")),
    ),
    "rename another's directory": (USER, lambda: os.rename("sticky/below", "open/taken")),
    "chmod another's": (USER, lambda: os.chmod("roots/file", 0o777)),
    "chown one's own away": (USER, lambda: os.chown("mine", OTHER, -1)),
    "chown one's own to another group": (USER, lambda: os.chown("mine", -1, OTHER)),
    "chown one's own to one's group": (USER, lambda: os.chown("mine", -1, USER)),
    "set times of another's": (USER, lambda: os.utime("roots/file", ns=(1, 2))),
    "touch another's that one may write": (USER, lambda: os.utime("writable")),
    "set times of another's that one may write": (USER, lambda: os.utime("writable", ns=(1, 2))),
    "an attribute of another's": (USER, lambda: os.setxattr("roots/file", "user.x", b"")),
    "a trusted attribute": (USER, lambda: os.setxattr("mine", "trusted.x", b"")),
    "a device": (USER, lambda: os.mknod("open/device", stat.S_IFCHR, os.makedev(1, 3))),
    "what one may": (USER, lambda: [os.access("mine", way) for way in (4, 2, 1)]),
    "a file in a setgid directory": (
        USER,
        lambda: (opened("grouped/new", os.O_CREAT), os.stat("grouped/new").st_gid)[1],
    ),
    "a directory in a setgid directory": (
        USER,
        lambda: (os.mkdir("grouped/within"), os.stat("grouped/within").st_mode)[1],
    ),
    # privilege
    "a write takes setuid and setgid": (
        USER, lambda: mode_after("writable", lambda: overwrite("writable"))),
    "root's write takes nothing": (0, lambda: mode_after("both", lambda: overwrite("both"))),
    "chown takes setuid": (0, lambda: mode_after("setuid", lambda: os.chown("setuid", 1, 1))),
    "chown takes setgid": (0, lambda: mode_after("setgid", lambda: os.chown("setgid", 1, 1))),
    "a member only sets setgid": (
        USER, lambda: mode_after("mine", lambda: os.chmod("mine", 0o2755))),
    "truncating takes setuid": (
        USER,
        lambda: (
            shutil.copy("writable", "open/mine"), os.chmod("open/mine", 0o4777),
            mode_after("open/mine", lambda: os.truncate("open/mine", 1)))[2],
    ),
    # times
    # Not the directory's: its ctime moves as overlayfs copies the file up (README, "Mounting").
    "chmod moves": (0, lambda: moved(lambda: os.chmod("users/file", 0o611), "users/file")),
    "write moves": (0, lambda: moved(lambda: overwrite("users/file"), "users/file", "users")),
    "link moves": (
        0, lambda: moved(lambda: os.link("users/file", "users/l"), "users/file", "users")),
    "unlink moves": (0, lambda: moved(lambda: os.unlink("users/l"), "users/file", "users")),
    "rename moves": (
        0,
        lambda: moved(lambda: os.rename("users/file", "users/n"), "users", "open")),
    "rename elsewhere moves": (
        0,
        lambda: moved(lambda: os.rename("users/other", "open/o"), "users", "open")),
    "mkdir moves": (0, lambda: moved(lambda: os.mkdir("users/d"), "users", "open")),
    "truncate to the same moves": (
        0, lambda: moved(lambda: os.truncate("users/n", 10), "users/n")),
    "an attribute moves": (
        0, lambda: moved(lambda: os.setxattr("users/n", "user.y", b""), "users/n")),
    "utime is exact": (
        0,
        lambda: (os.utime("users/n", ns=(5, 10**18 + 1)), os.stat("users/n").st_mtime_ns)[1],
    ),
    "a removed file has no name": (
        0,
        lambda: (
            descriptor := os.open("users/n", os.O_RDONLY), os.unlink("users/n"),
            os.fstat(descriptor).st_nlink)[2],
    ),
    "a removed directory takes nothing": (
        0,
        lambda: (
            descriptor := os.open("users/d", os.O_RDONLY), os.rmdir("users/d"),
            os.open("x", os.O_CREAT, dir_fd=descriptor)),
    ),
}  # fmt: skip


def answer(root: Path, call: Call) -> object:
    """Return what a call says in a process of its own, of that user, that works in ``root``."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.chdir(root)
            os.umask(0o022)
            user, act = call
            if user:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            try:
                said = act()
                found: object = said if not isinstance(said, os.stat_result) else said.st_mode
            except OSError as error:
                found = errno.errorcode.get(error.errno or 0)
            os.write(writer, pickle.dumps(found))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(process, 0)
    return pickle.loads(data) if data else "died"


@pytest.mark.parametrize("driver", DRIVERS)
def test_calls_are_answered_as_a_native_directory_does(
    driver: str, tmp_path: Path, mount: Callable[..., Path]
) -> None:
    require_mounts()
    # What a file system has room for, as in a symlink, is its own.
    place = mount("xfs") / f"rules-{os.getpid()}" if driver == "reflink" else tmp_path / "rules"
    native = place / "native"
    native.mkdir(parents=True)
    make_ruled(native)
    with Shed(place / "shed", driver=driver, overrides={"durability": "none"}) as shed:
        try:
            shed.import_image(f"dir:{native}", "ruled")
        except DriverError as error:
            pytest.skip(str(error))
        container = shed.create("ruled")
        with shed.driver(driver).tree(container.record.chain) as tree:
            layer = of_tree(tree)
        try:
            with container.mounted() as path:
                for name, call in CALLS.items():
                    assert (name, answer(path, call)) == (name, answer(native, call))
                seen = of_directory(path)
                with container.tree() as tree:
                    assert differences(seen, of_tree(tree)) == []
            with container.tree() as tree:
                assert differences(seen, of_tree(tree)) == []
            with shed.driver(driver).tree(container.record.chain) as tree:
                assert differences(layer, of_tree(tree)) == []
        finally:
            unmount_all(shed)
