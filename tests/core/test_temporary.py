"""Temporary containers: gone in the end, whatever happens to whoever made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.errors import ConflictError, NotFoundError
from cowshed.records import LeaseRecord

#: Makes a temporary container, says so, and waits to be killed.
LEFT = """
import sys, time
from cowshed import Shed
with Shed(sys.argv[1]) as shed, shed.temporary("image", sys.argv[2]) as container:
    print(container.id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A shed with an image, driver naive-copy."""
    content = tmp_path / "content"
    content.mkdir()
    (content / "file").write_text("content")
    root = tmp_path / "shed"
    with Shed(root, driver="naive-copy", overrides={"durability": "none"}) as shed:
        shed.import_image(f"dir:{content}", "image")
    return root


@pytest.fixture
def shed(root: Path) -> Iterator[Shed]:
    with Shed(root, overrides={"durability": "none"}) as shed:
        yield shed


def leases(shed: Shed) -> list[LeaseRecord]:
    with shed.catalog.read() as transaction:
        return list(transaction.leases())


def start(root: Path, name: str) -> subprocess.Popen[str]:
    """Let a process make one; return when it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEFT, str(root), name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def names(root: Path) -> list[str]:
    """Return what somebody who opens the shed sees."""
    with Shed(root) as shed:
        return sorted(container.name for container in shed.containers())


def test_it_is_a_container_like_others_while_it_lives(shed: Shed) -> None:
    with shed.temporary("image", "brief") as container:
        assert [one.id for one in shed.containers()] == [container.id]
        with container.tree(writable=True) as tree:
            tree.write_bytes("new", b"new")
        assert [change.path for change in container.diff()] == ["new"]
        container.commit("committed")
        with pytest.raises(ConflictError):
            shed.create("image", "brief")
    assert shed.containers() == [] and leases(shed) == []
    with shed.create("committed").tree() as tree:
        assert tree.read_bytes("new") == b"new"


def test_it_goes_when_something_goes_wrong(shed: Shed) -> None:
    with pytest.raises(ZeroDivisionError), shed.temporary("image"):
        1 / 0  # noqa: B018  # pyright: ignore[reportUnusedExpression]
    with pytest.raises(NotFoundError), shed.temporary("unknown"):
        pass
    assert shed.containers() == [] and leases(shed) == []


def test_somebody_else_may_remove_it(shed: Shed) -> None:
    with shed.temporary("image") as container:
        container.remove()
        assert shed.containers() == []
    assert leases(shed) == []


def test_a_killed_process_leaves_it_to_whoever_opens_the_shed_next(root: Path) -> None:
    process = start(root, "left")
    try:
        assert names(root) == ["left"]
    finally:
        kill(process)
    assert names(root) == []
    with Shed(root) as shed:
        assert leases(shed) == []
        assert [item.id for item in shed.driver("naive-copy").items() if item.parent] == []
        assert shed.check(deep=True) == []


def test_gc_finds_all_that_were_left(root: Path) -> None:
    processes = [start(root, f"left-{number}") for number in range(6)]
    try:
        with Shed(root) as shed:
            for process in processes[:5]:
                kill(process)
            assert shed.gc().leases == 5
            assert [container.name for container in shed.containers()] == ["left-5"]
    finally:
        kill(processes[5])
    assert names(root) == []


def test_it_goes_though_the_driver_has_lost_it(root: Path) -> None:
    process = start(root, "left")
    kill(process)
    (container,) = (root / "drivers/naive-copy/containers").iterdir()
    container.rename(root.parent / "lost")
    assert names(root) == []
    with Shed(root) as shed:
        assert shed.check(deep=True) == [] and leases(shed) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount")
def test_it_stays_while_somebody_else_has_it_mounted(root: Path) -> None:
    process = start(root, "left")
    with Shed(root) as shed:
        shed.container("left").mount()
        kill(process)
        assert names(root) == ["left"]
        shed.container("left").unmount()
    assert names(root) == []


def test_of_a_thousand_in_use_whoever_opens_the_shed_looks_at_two(shed: Shed) -> None:
    ids = sorted(f"~{os.urandom(8).hex()}" for _ in range(1000))
    with shed.catalog.write() as transaction:
        for id in ids:
            transaction.put_lease(LeaseRecord(id=id, operation="run"))
    with shed.catalog.read() as transaction:
        assert not transaction.other_leases()
        some = [tuple(transaction.some_leases_of_containers(2)) for _ in range(50)]
    assert {len(pair) for pair in some} == {2}
    assert len(set(some)) > 1
    with shed.catalog.write() as transaction:
        for id in ids[1:]:
            transaction.delete_lease(id)
    with shed.catalog.read() as transaction:
        assert transaction.some_leases_of_containers(2) == ids[:1]
    with shed.catalog.write() as transaction:
        transaction.put_lease(LeaseRecord(id="0" * 16, operation="import"))
    with shed.catalog.read() as transaction:
        assert transaction.other_leases()
