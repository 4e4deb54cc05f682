"""Sheds with one image of everything that a file system can hold, one per driver."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from cowshed import Shed
from cowshed.container import Container
from cowshed.errors import DriverError

from .pictures import Picture, differences, of_directory, of_tree

DRIVERS = ("naive-copy", "hardlink-farm", "chunk-dedup", "overlayfs", "reflink")
#: Those whose containers are mounted by ``mounting.layered``.
LAYERED = ("hardlink-farm", "chunk-dedup")
#: 0x2 of version 2: CAP_NET_RAW permitted, effective.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@attrs.frozen
class Stable:
    """A shed with the image ``everything``."""

    shed: Shed
    driver: str
    #: What the image's layer held when it was imported.
    layer: Picture

    def container(self) -> Container:
        """Make a container."""
        return self.shed.create("everything")

    def layer_now(self, container: Container) -> Picture:
        """Look at the layer that a container stands on."""
        with self.shed.driver(self.driver).tree(container.record.chain) as tree:
            return of_tree(tree)

    def assert_exact(self, container: Container, path: Path) -> None:
        """What the driver says of the container is what processes see at ``path``."""
        seen = of_directory(path)
        with container.tree() as tree:
            assert differences(seen, of_tree(tree)) == []

    def assert_layer_whole(self, container: Container) -> None:
        """Nothing reached the layer."""
        assert differences(self.layer, self.layer_now(container)) == []


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one of each."""
    root = tmp_path_factory.mktemp("everything")
    make_everything(root)
    return root


def make_everything(root: Path) -> None:
    """Fill a directory with one of each, as far as privilege goes."""
    for name in ("etc/deep/er", "usr/lib", "tmp", "empty", "many"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/deep/er/file").write_bytes(b"deep" * 1000)
    (root / "etc/deep/other").write_bytes(b"other")
    (root / "etc/nothing").touch()
    (root / "etc/link").symlink_to("/etc/passwd")
    (root / "etc/dangling").symlink_to("nowhere/at/all")
    (root / "usr/lib/big").write_bytes(bytes(range(256)) * 20_000)
    (root / "usr/lib/one").write_bytes(b"linked")
    os.link(root / "usr/lib/one", root / "usr/lib/two")
    os.link(root / "usr/lib/one", root / "etc/three")
    # Some drivers number files of several names from 1.
    (root / "1").write_bytes(b"a name, and no number")
    (root / "2").symlink_to("1")
    # Equal in all, but two files: a farm has one inode for them.
    for name in ("usr/lib/equal", "etc/equal"):
        (root / name).write_bytes(b"equal")
        os.utime(root / name, ns=(10**18 + 7, 10**18 + 7))
    (root / "usr/lib/tool").write_bytes(b"#!/bin/sh\n")
    (root / "usr/lib/tool").chmod(0o4755)
    with (root / "usr/lib/sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    os.mkfifo(root / "tmp/fifo")
    os.setxattr(root / "etc/nothing", "user.comment", b"nothing in it")
    for number in range(300):
        (root / f"many/{'n' * 200}{number}").write_bytes(b"%d" % number)
    # Undecodable in UTF-8.
    (root / os.fsdecode(b"etc/\xff\xfe")).write_bytes(b"bytes")
    if os.geteuid() == 0:
        os.chown(root / "etc/deep/other", 33, 44)
        os.chown(root / "empty", 1000, 1000)
        os.mknod(root / "tmp/null", 0o020666, os.makedev(1, 3))
        os.setxattr(root / "usr/lib/tool", "security.capability", CAPABILITY)
        os.setxattr(root / "etc/passwd", "trusted.secret", b"\0\1")
    os.utime(root / "usr", ns=(5 * 10**17 + 1, 5 * 10**17 + 1))


Make = Callable[[str], Stable]


@pytest.fixture(scope="session")
def make_stable(
    everything: Path, tmp_path_factory: pytest.TempPathFactory, mount: Callable[..., Path]
) -> Iterator[Make]:
    """Open the shed of a driver, one for all tests."""
    made: dict[str, Stable] = {}

    def make(driver: str) -> Stable:
        if driver not in made:
            if driver == "reflink":
                place = mount("xfs") / f"stable-{os.getpid()}"
            else:
                place = tmp_path_factory.mktemp(driver)
            shed = Shed(place, driver=driver, overrides={"durability": "none"})
            try:
                shed.import_image(f"dir:{everything}", "everything")
            except DriverError as error:
                pytest.skip(str(error))
            container = shed.create("everything")
            stable = Stable(shed, driver, {})
            made[driver] = attrs.evolve(stable, layer=stable.layer_now(container))
            container.remove()
        return made[driver]

    yield make
    for stable in made.values():
        unmount_all(stable.shed)
        stable.shed.close()


def unmount_all(shed: Shed) -> None:
    """Leave no mount behind, whatever a test did."""
    for mount in shed.mounts():
        with suppress(Exception):
            shed.container(mount.container).unmount(force=True)
    shed.mounting.sweep()


def require_mounts() -> None:
    """Skip where this process can't mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root; test_unprivileged goes into a user namespace")


@pytest.fixture(params=DRIVERS)
def stable(request: pytest.FixtureRequest, make_stable: Make) -> Stable:
    """A shed of each driver."""
    require_mounts()
    return make_stable(request.param)


@pytest.fixture(params=LAYERED)
def layered(request: pytest.FixtureRequest, make_stable: Make) -> Stable:
    """A shed of each driver that core mounts itself."""
    require_mounts()
    return make_stable(request.param)


@pytest.fixture
def listening() -> Iterator[Callable[[Path], None]]:
    """Make sockets that somebody listens at."""
    opened: list[socket.socket] = []

    def listen(path: Path) -> None:
        one = socket.socket(socket.AF_UNIX)
        opened.append(one)
        here = os.open(path.parent, os.O_PATH)
        try:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)
        one.listen()

    yield listen
    for one in opened:
        one.close()
