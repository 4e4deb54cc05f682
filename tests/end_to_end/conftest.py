"""An image made by umoci and GNU tar, and what umoci itself unpacks of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import DRIVERS, ROOT, Picture, picture_of_directory, run

WHEN = 1_600_000_000_123_456_789
#: CAP_NET_RAW, effective, as setcap writes it (linux/capability.h, revision 2).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each of our drivers in turn."""
    return str(request.param)


@pytest.fixture
def shed_root(tmp_path: Path) -> Iterator[Path]:
    """Where a shed may be made; given back whatever modes are in it."""
    root = tmp_path / "shed"
    yield root
    for above, directories, _ in os.walk(root):
        for name in directories:
            path = Path(above, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with ``v1``, a GNU tar and a umoci layer, and ``v2``, one umoci layer more."""
    for tool in ("umoci", "tar"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; .ci/run installs it")
    place = tmp_path_factory.mktemp("umoci")
    base = place / "base"
    _fill(base)
    tar = place / "base.tar"
    owner = () if ROOT else ("--owner=1234", "--group=567")
    run(
        *("tar", "--create", "--file", tar, "--format=posix", "--sparse", "--numeric-owner"),
        *("--xattrs", "--xattrs-include=*", *owner, "--directory", base, "."),
    )
    made = place / "layout"
    run("umoci", "init", "--layout", made)
    run("umoci", "new", "--image", f"{made}:base")
    run("umoci", "raw", "add-layer", "--image", f"{made}:base", tar)
    for below, tag, change in (("base", "v1", _first_change), ("v1", "v2", _second_change)):
        bundle = place / f"bundle-{tag}"
        run("umoci", "unpack", *_rootless(), "--image", f"{made}:{below}", bundle)
        change(bundle / "rootfs")
        run("umoci", "repack", "--image", f"{made}:{tag}", bundle)
    run("umoci", "config", "--image", f"{made}:v2", "--config.cmd", "/bin/program")
    return made


@pytest.fixture(scope="session", params=("v1", "v2"))
def unpacked(
    request: pytest.FixtureRequest, layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Picture]:
    """A tag and what umoci unpacks of it."""
    bundle = tmp_path_factory.mktemp("unpacked") / "bundle"
    run("umoci", "unpack", *_rootless(), "--image", f"{layout}:{request.param}", bundle)
    return request.param, picture_of_directory(bundle / "rootfs")


def _rootless() -> tuple[str, ...]:
    return () if ROOT else ("--rootless",)


def _fill(root: Path) -> None:
    """One of everything that a tar can hold and this user can make."""
    for name in ("bin", "etc/conf.d", "lib", "srv/deep/er/and/deeper", "tmp", "var/empty"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/empty").chmod(0o700)
    program = root / "bin/program"
    program.write_bytes(b"#!/bin/sh\necho hello\n" * 50)
    program.chmod(0o755)
    os.link(program, root / "bin/alias")
    os.link(program, root / "lib/third-name")
    os.symlink("bin", root / "sbin")
    os.symlink("/etc/nowhere", root / "etc/dangling")
    for number in range(200):
        (root / f"lib/module{number}.py").write_text(f"value = {number}\n" * (number + 1))
    (root / "lib/big.bin").write_bytes(os.urandom(5 << 20))
    with (root / "srv/sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    (root / "etc/empty").touch()
    (root / "etc/conf.d/caf\udce9").write_text("a name in Latin-1")
    (root / ("srv/" + "n" * 255)).write_text("a long name")
    (root / "srv/deep/er/and/deeper/leaf").write_text("leaf")
    os.mkfifo(root / "tmp/pipe")
    (root / "etc/secret").write_text("secret")
    (root / "etc/secret").chmod(0o600)
    if ROOT:
        os.chown(root / "etc/secret", 1000, 2000)
        os.lchown(root / "sbin", 7, 8)
        program.chmod(0o4755)
        os.mknod(root / "tmp/null", 0o020666, os.makedev(1, 3))
        os.mknod(root / "tmp/disk", 0o060660, os.makedev(8, 1))
        os.setxattr(root / "bin/program", "security.capability", CAPABILITY)
    os.setxattr(root / "etc/empty", "user.note", b"a \xff note")
    for above, directories, files in os.walk(root, topdown=False):
        for name in (*files, *directories):
            os.utime(os.path.join(above, name), ns=(WHEN, WHEN), follow_symlinks=False)
    os.utime(root, ns=(WHEN, WHEN))


def _first_change(root: Path) -> None:
    (root / "etc/conf.d/new").write_text("new in the first layer above")
    (root / "lib/module7.py").write_text("value = 'changed'\n")
    (root / "lib/module8.py").unlink()
    shutil.rmtree(root / "srv/deep/er")
    (root / "srv/deep/er").mkdir()
    (root / "srv/deep/er/back").write_text("the directory came back with something else")
    (root / "etc/secret").chmod(0o640)


def _second_change(root: Path) -> None:
    (root / "etc/dangling").unlink()
    (root / "etc/dangling").write_text("a file now")
    shutil.rmtree(root / "etc/conf.d")
    (root / "bin/alias").unlink()
    with (root / "lib/big.bin").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"!")
    os.symlink("module7.py", root / "lib/module.py")
