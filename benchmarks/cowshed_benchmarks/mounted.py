"""Mounted: who shows an image's files at a directory, for ``mounting`` to measure.

WORK/files/           the image's files, which plain overlayfs and fuse-overlayfs show
WORK/CONTENDER/       a shed, or an upper directory and a mount point
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .measuring import ProgramError, run

if TYPE_CHECKING:
    from cowshed import Shed

PLAIN, PLAIN_FUSE = "plain overlayfs", "fuse-overlayfs"
IMAGE, CONTAINER = "mounted", "measured"


class Unable(Exception):
    """It can't be measured here; the message says why."""


class Contender(Protocol):
    """Shows one file system, which can be written in."""

    name: str
    #: The process that serves it, while mounted; None: the kernel does.
    server: int | None

    def mount(self) -> Path:
        """Show it, and return where."""
        ...

    def unmount(self) -> None:
        """Let nobody see it any more."""

    def close(self) -> None:
        """Leave nothing mounted."""


class Driver:
    """A container of a driver's, mounted by the library as ``cowshed mount`` does it."""

    def __init__(self, name: str, place: Path, image: str, driver: str, way: str = "auto") -> None:
        from cowshed.errors import CowshedError

        self.name = name
        self.place = place
        self.server: int | None = None
        try:
            self.shed = opened(place, driver, image, way)
        except CowshedError as error:
            raise Unable(str(error)) from None

    def mount(self) -> Path:
        path = self.shed.container(CONTAINER).mount()
        self.server = server_of(self.place)
        return path

    def unmount(self) -> None:
        self.shed.container(CONTAINER).unmount()

    def close(self) -> None:
        for mount in self.shed.mounts():
            self.shed.container(mount.container).unmount(force=True)
        self.shed.close()


#: Mounts, says where, and waits to be told to go.
_INSIDE = """
import sys
from cowshed import Shed
with Shed(sys.argv[1], driver="chunk-dedup") as shed:
    with shed.container(sys.argv[2]).mounted() as path:
        print(path, flush=True)
        sys.stdin.read()
"""


class Namespace:
    """chunk-dedup's mount in a user namespace, where names come from the FUSE server as well."""

    def __init__(self, name: str, work: Path, image: str) -> None:
        from cowshed.errors import CowshedError

        self.name = name
        self.place = work / "chunk-dedup"
        self.server: int | None = None
        self._process: subprocess.Popen[str] | None = None
        try:
            opened(self.place, "chunk-dedup", image).close()
        except CowshedError as error:
            raise Unable(str(error)) from None

    def mount(self) -> Path:
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", _INSIDE]
        self._process = subprocess.Popen(
            [*command, str(self.place), CONTAINER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        path = self._process.stdout.readline().strip()
        if not path:
            raise ProgramError("unshare: nothing was mounted in a user namespace")
        self.server = server_of(self.place)
        return Path(f"/proc/{self._process.pid}/root{path}")

    def unmount(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        self.unmount()


class Plain:
    """An overlay over plain files: the kernel's, or fuse-overlayfs's."""

    def __init__(self, name: str, work: Path, image: str) -> None:
        if name == PLAIN_FUSE and shutil.which(name) is None:
            raise Unable("it isn't installed")
        self.name = name
        self.server: int | None = None
        self._lower = _unpacked(work, image)
        self._place = work / name.replace(" ", "-")
        self._point = self._place / "merged"
        for path in (self._place / "upper", self._place / "work", self._point):
            path.mkdir(parents=True, exist_ok=True)

    def mount(self) -> Path:
        upper, below = self._place / "upper", self._place / "work"
        options = f"lowerdir={self._lower},upperdir={upper},workdir={below}"
        if self.name == PLAIN_FUSE:
            run([PLAIN_FUSE, "-o", options, self._point])
            self.server = _running(PLAIN_FUSE, str(self._point))
        else:
            run(["mount", "-t", "overlay", "-o", f"{options},xino=on", "overlay", self._point])
        return self._point

    def unmount(self) -> None:
        run(["umount", self._point])

    def close(self) -> None:
        if self._point.is_mount():
            run(["umount", "--lazy", self._point])


def _driver(driver: str, way: str = "auto") -> Callable[[str, Path, str], Contender]:
    def make(name: str, work: Path, image: str) -> Contender:
        return Driver(name, work / name.replace(", ", "-"), image, driver, way)

    return make


#: By name, as they are shown: first those of which the kernel reads the data, then the others.
KERNEL: dict[str, Callable[[str, Path, str], Contender]] = {
    PLAIN: Plain,
    "overlayfs": _driver("overlayfs"),
    "hardlink-farm": _driver("hardlink-farm"),
    "chunk-dedup, cache": _driver("chunk-dedup", "cache"),
    "reflink": _driver("reflink"),
    "naive-copy": _driver("naive-copy"),
}
FUSE: dict[str, Callable[[str, Path, str], Contender]] = {
    PLAIN_FUSE: Plain,
    "chunk-dedup": _driver("chunk-dedup"),
    "chunk-dedup, in a user namespace": Namespace,
}
CONTENDERS = KERNEL | FUSE


def opened(place: Path, driver: str, image: str, way: str = "auto") -> Shed:
    """Open a shed with the image and a container on it."""
    from cowshed import Shed
    from cowshed.errors import NotFoundError

    shed = Shed(place, driver=driver, overrides={"mount.way": way})
    try:
        try:
            shed.container(CONTAINER)
        except NotFoundError:
            shed.import_image(image, IMAGE)
            shed.create(IMAGE, name=CONTAINER)
    except BaseException:
        shed.close()
        raise
    return shed


def _unpacked(work: Path, image: str) -> Path:
    """Return a directory with the image's files."""
    files = work / "files"
    if not files.exists():
        aside = work / "files.unpacking"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with opened(work / "chunk-dedup", "chunk-dedup", image) as shed:
            tar = ["tar", "-xp", "--xattrs", "--xattrs-include=*", "-C", str(aside)]
            archive = work / "files.tar"
            with archive.open("wb") as file:
                shed.container(CONTAINER).export(file)
            run([*tar, "-f", archive])
            archive.unlink()
        aside.rename(files)
    return files


def server_of(place: Path) -> int | None:
    """Return the process that serves the FUSE mounts of a shed: its log says what it can't do."""
    logs: set[int] = set()
    for path in (place / "lowers").glob("*.log"):
        logs.add(path.stat().st_ino)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{name}/fd/2").st_ino in logs:
                return int(name)
    return None


def _running(program: str, argument: str) -> int | None:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if os.path.basename(words[0]) == program.encode() and argument.encode() in words:
                return int(name)
    return None
