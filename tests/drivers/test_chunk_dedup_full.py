"""chunk-dedup: on a full disk, what is removed goes, and its space comes back."""

from __future__ import annotations

import hashlib
import io
import os
import random
import resource
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cowshed.entry import Entry, Kind
from cowshed.errors import NoSpaceError
from cowshed_drivers.chunk_dedup import collect as collect_module
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.options import Options


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def seal(driver: ChunkDedup, name: str, count: int) -> None:
    noise = random.Random(name)
    with driver.stage(None) as stage:
        for number in range(count):
            data = noise.randbytes(600)
            entry = Entry(path=f"f{number}", kind=Kind.FILE, mode=0o644, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(key(name))


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """Give a small disk of its own, if this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def full(disk: Path, root: Path) -> Generator[None]:
    """Fill a disk of its own; else let no file become longer than the index is."""
    if os.path.ismount(disk):
        descriptor = os.open(disk / "filling", os.O_WRONLY | os.O_CREAT)
        try:
            with pytest.raises(OSError, match="No space"):
                while True:
                    os.write(descriptor, bytes(4096))
        finally:
            os.close(descriptor)
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (root / "index" / "data.mdb").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_everything_can_be_removed_from_a_full_disk(disk: Path) -> None:
    root = disk / "d"
    root.mkdir(mode=0o700)
    # A layer of thousands of objects touches every page of the index.
    count = 4000 if os.path.ismount(disk) else 200
    with ChunkDedup(root, Options()) as driver:
        seal(driver, "one", count)
        seal(driver, "two", count)
        driver.prepare(key("c"), key("one"))
        with full(disk, root):
            for name in ("c", "one", "two"):
                driver.remove(key(name))
            driver.collect()
            assert list(driver.items()) == []
            assert list((root / "packs").iterdir()) == []
        seal(driver, "one", 50)
        assert list(driver.verify(key("one"), deep=True)) == []


def test_what_is_removed_stays_so_if_its_space_must_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise NoSpaceError("no space left")

    (tmp_path / "d").mkdir(mode=0o700)
    with ChunkDedup(tmp_path / "d", Options()) as driver:
        seal(driver, "one", 10)
        with monkeypatch.context() as patch:
            patch.setattr(collect_module, "_delete", no_space)
            driver.remove(key("one"))
            with pytest.raises(NoSpaceError):
                driver.collect()
        assert list(driver.items()) == []
        assert driver.collect() > 0
        assert list((tmp_path / "d" / "packs").iterdir()) == []
