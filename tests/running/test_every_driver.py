"""Processes in containers of every driver, each mounted in that driver's way."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cowshed import Container, Shed
from cowshed.errors import DriverError, InUseError
from cowshed.mounting import absorbing

from .helpers import as_root, letters, sh

DRIVERS = ("naive-copy", "hardlink-farm", "chunk-dedup", "overlayfs", "reflink")

pytestmark = as_root


@pytest.fixture(scope="module", params=DRIVERS)
def stable(
    request: pytest.FixtureRequest,
    archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mount: Callable[..., Path],
) -> Iterator[Shed]:
    """A shed of each driver with the image ``tools``."""
    place = tmp_path_factory.mktemp(request.param) / "shed"
    if request.param == "reflink":
        place = mount("xfs") / f"running-{os.getpid()}"
    with Shed(place, driver=request.param, overrides={"durability": "none"}) as shed:
        try:
            shed.import_image(f"tar:{archive}", "tools")
        except DriverError as error:
            pytest.skip(str(error))
        yield shed
        assert shed.containers() == [] and shed.mounts() == []
        assert [one for one in shed.check(deep=True) if one.severity != "notice"] == []
    shutil.rmtree(place)


@contextmanager
def created(shed: Shed) -> Generator[Container]:
    """A container for a while."""
    container = shed.create("tools")
    try:
        yield container
    finally:
        container.remove(force=True)


SCRIPT = """
set -e
echo one > /tmp/one
echo two >> /etc/passwd
ln /tmp/one /tmp/another
mv /var/www /var/moved
rm /bin/garbage
mkfifo /tmp/fifo
chmod 600 /etc/group
chown 33:44 /tmp/another
exec 3< /etc/passwd
rm /etc/passwd
tail -n 1 <&3
"""
CHANGES = [
    "C /bin", "D /bin/garbage", "C /etc", "C /etc/group", "D /etc/passwd", "C /tmp",
    "A /tmp/another", "A /tmp/fifo", "A /tmp/one", "C /var", "A /var/moved", "D /var/www",
]  # fmt: skip


def test_what_a_process_did_is_the_containers_and_the_next_one_starts_clean(stable: Shed) -> None:
    with created(stable) as container:
        assert sh(container, SCRIPT) == "two\n"
        assert letters(container) == CHANGES
        with container.tree() as tree:
            one = tree.stat("tmp/another")
            assert (one.uid, one.gid, one.size, one.links) == (33, 44, 4, 2)
        assert sh(container, "cat /tmp/one; ls -A /var").split() == ["one", "moved"]
        assert letters(container) == CHANGES
    with created(stable) as fresh:
        assert sh(fresh, "ls -A /tmp; ls /bin/garbage; tail -n 1 /etc/passwd").split() == [
            "/bin/garbage",
            "huge:x:99999999999:0::/:/bin/sh",
        ]
        assert letters(fresh) == []


def test_what_a_container_wrote_that_goes_next_isnt_kept_for_nothing(
    stable: Shed, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    really = absorbing.absorb

    def absorb(home: Path, *rest: Any, **more: Any) -> None:
        kept.append(home.name)
        really(home, *rest, **more)

    monkeypatch.setattr(absorbing, "absorb", absorb)
    script = ["sh", "-c", "echo new > /tmp/new; rm -r /var; echo done"]
    assert stable.run("tools", script, capture=True).stdout == b"done\n"
    assert kept == []
    ended = stable.run("tools", script, capture=True, name="stays", remove=False)
    container = stable.container("stays")
    try:
        assert ended.stdout == b"done\n"
        assert letters(container) == ["C /tmp", "A /tmp/new", "D /var"]
    finally:
        container.remove(force=True)


def test_others_that_use_a_container_keep_what_was_written(stable: Shed) -> None:
    with created(stable) as container:
        with container.mounted() as path:
            container.run(["sh", "-c", "echo new > /tmp/new; exit 3"], discard=True)
            assert (path / "tmp/new").read_text() == "new\n"
        assert letters(container) == ["C /tmp", "A /tmp/new"]
        with container.tree() as tree:
            assert "proc" not in tree.listdir("")
        assert container.inspect()["State"]["ExitCode"] == 3


def test_device_nodes_of_an_image_open_nothing(stable: Shed) -> None:
    with created(stable) as container:
        with container.tree(writable=True) as tree:
            tree.mknod("tmp/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        script = "[ -c /tmp/zero ] && ! head -c 1 /tmp/zero"
        for user in ("root", "www"):
            assert sh(container, script, user=user, runtime="plain") == ""


def test_a_commit_is_an_image_that_runs(stable: Shed) -> None:
    with created(stable) as container:
        sh(container, "echo kept > /etc/kept; rm /bin/script")
        container.commit("committed", changes=['CMD ["cat", "/etc/kept"]'])
    try:
        ended = stable.run("committed", capture=True)
        assert (ended.status, ended.stdout) == (0, b"kept\n")
        assert stable.run("committed", ["ls", "/bin/script"], capture=True).status == 2
    finally:
        stable.remove_image("committed", force=True)


def test_thirty_two_containers_run_at_once_off_one_image(stable: Shed) -> None:
    """Each sees what it wrote itself, and they do run at once: each waits for the last."""
    results: dict[int, bytes | None] = {}
    many = 32
    place = stable.root.parent / f"gate-{os.getpid()}"
    place.mkdir()

    def run(number: int) -> None:
        with Shed(stable.root, driver=stable.config["driver"]) as one:
            script = (
                f"echo {number} >> /etc/group; touch /gate/{number}; "
                f"while [ $(ls /gate | wc -l) -lt {many} ]; do sleep 0.1; done; "
                "tail -n 1 /etc/group"
            )
            ended = one.run(
                "tools", ["sh", "-c", script], volumes=[(place, "/gate")], capture=True, timeout=300
            )
            results[number] = ended.stdout

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(many)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(place)
    assert results == {number: b"%d\n" % number for number in range(many)}
    assert stable.containers() == []


def test_a_container_is_handed_over_as_a_bundle(stable: Shed, tmp_path: Path) -> None:
    if shutil.which("runc") is None:
        pytest.skip("runc isn't installed")
    with created(stable) as container:
        bundle = container.bundle(tmp_path / "bundle", ["sh", "-c", "echo by others > /tmp/x"])
        assert letters(container) == []
        with pytest.raises(InUseError, match="handed over as a bundle"):
            container.run(["true"])
        command = ["runc", "run", "--bundle", str(bundle), f"cowshed-every-{os.getpid()}"]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        finally:
            container.unmount()
        assert letters(container) == ["C /tmp", "A /tmp/x"]
