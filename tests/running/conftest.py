"""A small image of this machine's own shell and tools, and every runtime that works here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from cowshed import Container, Shed
from cowshed.running.choosing import NAMES, probe

from .helpers import CommandLine

PROGRAMS = (
    "sh", "bash", "cat", "chmod", "chown", "env", "head", "id", "ln", "ls", "mkdir", "mkfifo",
    "mv", "readlink", "rm", "seq", "sleep", "stat", "stty", "tail", "touch", "true", "tty", "wc",
    "hostname", "mount", "mknod",
)  # fmt: skip

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
broken line
www:x:33:33:www:/var/www:/bin/sh
huge:x:99999999999:0::/:/bin/sh
"""
GROUP = "root:x:0:\nwww:x:33:\nstaff:x:50:www,nobody\nextra:x:44:www\n"

#: Seconds after which a test is given up, and what it runs killed, unless its module says more.
PATIENCE = 300


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no process that never ends hold everything up."""
    seconds = int(getattr(request.module, "PATIENCE", PATIENCE))

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def archive(rootfs: Path) -> Path:
    """The same as a layer, everything root's as in any image."""
    path = rootfs.parent / "rootfs.tar"

    def of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(path, "w") as file:
        file.add(rootfs, ".", filter=of_root)
    return path


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a shell and what it needs, and no mount points."""
    root = tmp_path_factory.mktemp("rootfs") / "root"
    for directory in ("bin", "etc", "root", "tmp", "var/www"):
        (root / directory).mkdir(parents=True)
    for name in PROGRAMS:
        found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if found is None:
            pytest.skip(f"{name} isn't installed")
        _copy_program(os.path.realpath(found), root / "bin" / name, root)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o755)  # whatever the umask
    (root / "tmp").chmod(0o1777)
    for name in ("passwd", "group"):
        (root / "etc" / name).chmod(0o644)
    script = root / "bin/script"
    script.write_text("#!/bin/nowhere\n")
    script.chmod(0o755)
    garbage = root / "bin/garbage"
    garbage.write_bytes(b"\x7fELF but not quite")
    garbage.chmod(0o755)
    return root


def _copy_program(source: str, target: Path, root: Path) -> None:
    shutil.copy2(source, target)
    said = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
    for word in said.split():
        if word.startswith("/"):
            library = root / word.lstrip("/")
            if not library.exists():
                library.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(os.path.realpath(word), library)


@pytest.fixture(scope="session")
def shed_root(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shed with the image ``tools``, in a driver that can be mounted here."""
    root = tmp_path_factory.mktemp("shed") / "shed"
    with Shed(root, driver=_driver(), overrides={"durability": "none"}) as shed:
        shed.import_image(f"tar:{archive}", "tools")
    return root


def _driver() -> str:
    return "overlayfs" if os.geteuid() == 0 else "naive-copy"


@pytest.fixture
def shed(shed_root: Path) -> Iterator[Shed]:
    with Shed(shed_root, driver=_driver(), overrides={"durability": "none"}) as shed:
        yield shed
        for container in shed.containers():
            container.remove(force=True)
        assert shed.mounts() == []


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn."""
    name = str(request.param)
    problem = probe(name)
    if problem is not None:
        pytest.skip(problem)
    return name


@pytest.fixture
def box(shed: Shed) -> Container:
    """A container."""
    return shed.create("tools", "box")


@pytest.fixture
def cowshed(shed_root: Path, shed: Shed) -> CommandLine:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COWSHED_")
    }
    environment |= {
        "COWSHED_ROOT": str(shed_root),
        "COWSHED_DRIVER": _driver(),
        "COWSHED_DURABILITY": "none",
    }
    return CommandLine([sys.executable, "-m", "cowshed"], environment)
