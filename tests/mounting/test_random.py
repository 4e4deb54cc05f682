"""Random operations on a mount and on a native directory at once: both must answer the same.

What one process does to one file is in the manner of fsx; what it does to names goes beyond what
programs usually do. From time to time the driver has to say exactly what the mount holds.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from cowshed import Shed
from cowshed.mounting.lowers import Lowers

from .conftest import LAYERED, require_mounts, unmount_all
from .pictures import Picture, Seen, differences, of_directory, of_tree
from .test_mounts import wait_for

_libc = ctypes.CDLL(None, use_errno=True)
_NO_REPLACE, _EXCHANGE = 1, 2
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
#: Nothing waits for the other end of a fifo.
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK
LARGEST = 300_000


def make_base(root: Path) -> None:
    """Fill a directory. No file has two names: writing to one of those parts it from the others
    on every overlay that isn't mounted with ``index=on``."""
    root.chmod(0o755)
    random_ = random.Random(7)
    for directory in ("a", "a/b", "a/b/c", "d", "e"):
        (root / directory).mkdir()
        for number in range(4):
            (root / directory / f"f{number}").write_bytes(random_.randbytes(random_.choice(
                [0, 10, 5_000, 140_000])))  # fmt: skip
    (root / "a/link").symlink_to("b/f1")
    (root / "d/up").symlink_to("../a")


class Both:
    """Does each operation in two places; an operation returns what can be compared."""

    def __init__(self, one: Path, other: Path, seed: int) -> None:
        self.roots = (one, other)
        self.random = random.Random(seed)
        self.done: list[str] = []

    def step(self) -> None:
        name, act = self.random.choice(ACTS)
        state = self.random.getstate()
        answers: list[object] = []
        for root in self.roots:
            self.random.setstate(state)
            try:
                answers.append(act(self, root))
            except OSError as error:
                answers.append(errno.errorcode.get(error.errno or 0))
        self.done.append(name)
        assert answers[0] == answers[1], (self.done[-10:], answers)

    # -- choosing -------------------------------------------------------------------------------

    def path(self, root: Path) -> Path:
        """Choose something that is there, or was, or could be."""
        part = self.random.choice
        depth = self.random.randrange(3)
        names = [part("abcdef") for _ in range(depth)]
        return root.joinpath(*names, part(["f0", "f1", "f2", "f3", "a", "b", "d", "new", "link"]))

    def data(self) -> bytes:
        return self.random.randbytes(self.random.choice([1, 100, 4096, 20_000]))


def write(both: Both, root: Path) -> object:
    flags = both.random.choice([os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_APPEND])
    descriptor = os.open(both.path(root), flags | _FLAGS, 0o644)
    try:
        return os.pwrite(descriptor, both.data(), both.random.randrange(LARGEST))
    finally:
        os.close(descriptor)


def read(both: Both, root: Path) -> object:
    descriptor = os.open(both.path(root), os.O_RDONLY | _FLAGS)
    try:
        return os.pread(descriptor, 50_000, both.random.randrange(LARGEST))
    finally:
        os.close(descriptor)


def truncate(both: Both, root: Path) -> object:
    return os.truncate(both.path(root), both.random.randrange(LARGEST))


def write_memory(both: Both, root: Path) -> object:
    descriptor = os.open(both.path(root), os.O_RDWR | _FLAGS)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            return None
        with mmap.mmap(descriptor, 0) as memory:
            at = both.random.randrange(size)
            data = both.data()[: size - at]
            memory[at : at + len(data)] = data
            return size
    finally:
        os.close(descriptor)


def allocate(both: Both, root: Path) -> object:
    mode = both.random.choice([0, _KEEP_SIZE, _KEEP_SIZE | _PUNCH_HOLE, _ZERO_RANGE])
    at, length = both.random.randrange(LARGEST), both.random.randrange(1, 50_000)
    descriptor = os.open(both.path(root), os.O_RDWR | _FLAGS)
    try:
        place, size = ctypes.c_long(at), ctypes.c_long(length)
        if _libc.fallocate(descriptor, mode, place, size) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def copy_range(both: Both, root: Path) -> object:
    source = os.open(both.path(root), os.O_RDONLY | _FLAGS)
    try:
        target = os.open(both.path(root), os.O_RDWR | _FLAGS)
        try:
            if os.fstat(source).st_ino == os.fstat(target).st_ino:
                return None
            at = both.random.randrange(LARGEST)
            try:
                return os.copy_file_range(source, target, 30_000, 10, at)
            except OSError as error:
                # What the FUSE server shows lies on another file system than what is written;
                # programs copy by hand then.
                if error.errno != errno.EXDEV:
                    raise
                data = os.pread(source, 30_000, 10)
                return os.pwrite(target, data, at) if data else 0
        finally:
            os.close(target)
    finally:
        os.close(source)


def write_removed(both: Both, root: Path) -> object:
    path = both.path(root)
    descriptor = os.open(path, os.O_RDWR | _FLAGS)
    try:
        os.unlink(path)
        os.pwrite(descriptor, b"gone", 3)
        return os.pread(descriptor, 1000, 0), os.fstat(descriptor).st_nlink
    finally:
        os.close(descriptor)


def name_nameless(both: Both, root: Path) -> object:
    path = both.path(root)
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
    procfs = os.open("/proc/self/fd", os.O_RDONLY)
    try:
        os.write(descriptor, both.data())
        return os.link(str(descriptor), path, src_dir_fd=procfs, follow_symlinks=True)
    finally:
        os.close(procfs)
        os.close(descriptor)


def rename(both: Both, root: Path) -> object:
    return os.rename(both.path(root), both.path(root))


def rename_specially(both: Both, root: Path) -> object:
    flags = both.random.choice([_NO_REPLACE, _EXCHANGE])
    one, other = os.fsencode(both.path(root)), os.fsencode(both.path(root))
    if _libc.renameat2(-100, one, -100, other, flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")
    return None


def replace(both: Both, root: Path) -> object:
    path = both.path(root)
    beside = path.with_name("beside")
    beside.write_bytes(both.data())
    try:
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise
    return None


def link(both: Both, root: Path) -> object:
    return os.link(both.path(root), both.path(root), follow_symlinks=False)


def look(both: Both, root: Path) -> object:
    status = both.path(root).lstat()
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return status.st_mode, status.st_uid, size


def list_names(both: Both, root: Path) -> object:
    return sorted(os.listdir(both.path(root).parent))


def remove_all(both: Both, root: Path) -> object:
    if both.random.randrange(4):
        return None
    path = both.path(root)
    if not stat.S_ISDIR(path.lstat().st_mode):
        return None  # rmtree would open a fifo, and wait
    return shutil.rmtree(path)


def set_xattr(both: Both, root: Path) -> object:
    name = both.random.choice(["user.a", "user.b", "trusted.c"])
    return os.setxattr(both.path(root), name, both.data()[:200], follow_symlinks=False)


def remove_xattr(both: Both, root: Path) -> object:
    try:
        return os.removexattr(
            both.path(root), both.random.choice(["user.a", "user.b", "trusted.c"])
        )
    except OSError as error:
        # What the FUSE server says once for all where an image has no attribute at all.
        if error.errno == errno.EOPNOTSUPP:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None
        raise


ACTS: list[tuple[str, Callable[[Both, Path], object]]] = [
    (act.__name__, act)
    for act in (
        *(write, write, read, read, truncate, write_memory, allocate, copy_range, write_removed),
        *(name_nameless, rename, rename, rename_specially, replace, link, look, list_names),
        *(remove_all, set_xattr, remove_xattr),
    )
] + [
    ("mkdir", lambda both, root: os.mkdir(both.path(root), 0o755)),
    ("rmdir", lambda both, root: os.rmdir(both.path(root))),
    ("unlink", lambda both, root: os.unlink(both.path(root))),
    ("symlink", lambda both, root: os.symlink("f1", both.path(root))),
    ("chmod", lambda both, root: os.chmod(both.path(root), both.random.choice([0o600, 0o4755]))),
    ("chown", lambda both, root: os.lchown(both.path(root), both.random.randrange(99), 5)),
    ("fifo", lambda both, root: os.mkfifo(both.path(root))),
    ("utime", lambda both, root: os.utime(both.path(root), ns=(5, both.random.randrange(10**18)))),
]


def _timeless(picture: Picture) -> Picture:
    def bare(seen: Seen) -> Seen:
        return attrs.evolve(seen, mtime_ns=0)

    return {path: bare(seen) for path, seen in picture.items()}


@pytest.fixture(scope="module")
def shed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shed]:
    require_mounts()
    base = tmp_path_factory.mktemp("base")
    make_base(base)
    shed = Shed(
        tmp_path_factory.mktemp("random"),
        driver=request.param[0],
        overrides={"durability": "none", "mount.way": request.param[1].removesuffix("-alone")},
    )
    shed.import_image(f"dir:{base}", "base")
    with pytest.MonkeyPatch.context() as patch:
        if request.param[1] == "fuse-alone":  # as where there is no EROFS: names are served, too
            patch.setattr(Lowers, "by_erofs", lambda *_: None)
        yield shed
        unmount_all(shed)
    shed.close()


WAYS = [*((driver, "auto") for driver in LAYERED), ("naive-copy", "auto")]
WAYS += [("chunk-dedup", way) for way in ("cache", "fuse-alone")]


@pytest.mark.parametrize("shed", WAYS, indirect=True, ids=lambda way: "-".join(way))
@pytest.mark.parametrize("seed", range(3))
def test_a_mount_answers_as_a_native_directory_does(shed: Shed, seed: int, tmp_path: Path) -> None:
    native = tmp_path / "native"
    make = tmp_path / "base"
    make.mkdir()
    make_base(make)
    subprocess.run(["cp", "-a", make, native], check=True)
    container = shed.create("base")
    with shed.driver(container.driver).tree(container.record.chain) as tree:
        layer = of_tree(tree)
    for part in range(4):
        with container.mounted() as path:
            both = Both(path, native, seed * 100 + part)
            for number in range(400):
                both.step()
                if number % 100 == 50:
                    with container.tree() as tree:
                        assert differences(of_directory(path), of_tree(tree)) == []
            seen = of_directory(path)
            assert differences(_timeless(seen), _timeless(of_directory(native))) == []
        with container.tree() as tree:
            assert differences(seen, of_tree(tree)) == []
    with shed.driver(container.driver).tree(container.record.chain) as tree:
        assert differences(layer, of_tree(tree)) == []
    container.remove()


def test_a_session_that_is_ended_leaves_no_mount(tmp_path: Path) -> None:
    require_mounts()
    place = tmp_path / "session"
    one = f"{test_a_mount_answers_as_a_native_directory_does.__name__}[0-hardlink-farm-auto]"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    session = subprocess.Popen(
        [*command, f"--basetemp={place}", f"{__file__}::{one}"], stdout=subprocess.DEVNULL
    )

    def mounted() -> bool:
        return f"{place}/" in Path("/proc/self/mountinfo").read_text(errors="replace")

    wait_for(lambda: mounted() or session.poll() is not None, 120)
    assert mounted()
    session.terminate()
    assert session.wait(120) == pytest.ExitCode.INTERRUPTED
    assert not mounted()
