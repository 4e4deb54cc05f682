"""An ordinary user's ``cowshed run``: in a namespace of its own, on every driver."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.running.identity import find_identity

from .helpers import CommandLine, wait_for

DRIVERS = ("chunk-dedup", "hardlink-farm", "naive-copy", "overlayfs")
#: Makes files of others that nobody but they and root may read.
OTHERS = "touch /mine; mkdir /d; touch /d/f; chown 33:44 /d /d/f; chmod 600 /d/f"
OWNERS = {"mine": (0, 0, 0o644), "d": (33, 44, 0o755), "d/f": (33, 44, 0o600)}


@pytest.fixture(autouse=True)
def ordinary() -> None:
    if os.geteuid() == 0:
        pytest.skip("root needs no namespace")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")


@pytest.fixture
def several() -> None:
    identity = find_identity()
    if identity is None or identity.single:
        pytest.skip("no subordinate IDs are set up, or newuidmap isn't installed")


@pytest.fixture(params=DRIVERS)
def line(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line, with a shed that has the image ``tools``."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COWSHED_")
    }
    environment |= {
        "COWSHED_ROOT": str(tmp_path / "shed"),
        "COWSHED_DRIVER": str(request.param),
        "COWSHED_DURABILITY": "none",
    }
    cowshed = CommandLine([sys.executable, "-m", "cowshed"], environment)
    done = cowshed("import", "-q", f"tar:{archive}", "tools")
    if b"namespace" in done.stderr or b"needs privilege" in done.stderr:
        pytest.skip(done.stderr.decode())
    assert done.returncode == 0, done.stderr.decode()
    yield cowshed
    for arguments in (("rm", "-f", *output(cowshed, "ps", "-aq").split()), ("rmi", "tools")):
        cowshed(*arguments)
    assert output(cowshed, "check", "--deep").endswith("No damage found\n")
    # Whatever it holds, its user can remove it.
    strangers = [one for one in (tmp_path / "shed").rglob("*") if one.lstat().st_uid != os.getuid()]
    assert strangers == []


def output(cowshed: CommandLine, *arguments: str) -> str:
    done = cowshed(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def wait_until_ready(cowshed: CommandLine, process: subprocess.Popen[bytes]) -> None:
    """Wait until ``/ready`` is among the changes."""
    said: list[bytes] = []

    def ready() -> bool:
        done = cowshed("diff", "box")
        said[:] = [done.stdout, done.stderr]
        assert process.poll() is None, process.communicate()
        return b"/ready" in done.stdout

    try:
        wait_for(ready, 30)
    except AssertionError:
        raise AssertionError(f"{said}; {output(cowshed, 'ps', '-a')}") from None


def owners(cowshed: CommandLine, container: str) -> dict[str, tuple[int, int, int]]:
    done = cowshed("export", container, "-")
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = {member.name.removeprefix("./").rstrip("/"): member for member in tar}
        return {
            name: (names[name].uid, names[name].gid, names[name].mode)
            for name in OWNERS
            if name in names
        }


def test_what_other_users_make_is_theirs_in_the_container_and_on_disk_the_users(
    line: CommandLine, several: None
) -> None:
    done = line("run", "--name", "box", "tools", "sh", "-c", OTHERS)
    assert done.returncode == 0, done.stderr.decode()
    assert output(line, "diff", "box").split() == ["A", "/d", "A", "/d/f", "A", "/mine"]
    assert owners(line, "box") == OWNERS
    output(line, "commit", "box", "mine")
    said = output(line, "run", "--rm", "mine", "stat", "-c", "%u:%g %a", "/mine", "/d/f")
    assert said.split() == ["0:0", "644", "33:44", "600"]
    output(line, "rm", "box")
    output(line, "rmi", "mine")


def test_a_running_container_is_seen_and_entered_from_outside(
    line: CommandLine, several: None
) -> None:
    script = f"{OTHERS}; touch /ready; while ! test -e /tmp/stop; do sleep 0.1; done"
    process = line.start("run", "--name", "box", "tools", "sh", "-c", script)
    try:
        wait_until_ready(line, process)
        assert owners(line, "box") == OWNERS
        # Others run beside it, on the same layers.
        assert output(line, "run", "--rm", "tools", "ls", "/bin/ls") == "/bin/ls\n"
        refused = line("rm", "box")
        assert refused.returncode == 1
        assert b"is running" in refused.stderr
        assert output(line, "exec", "box", "stat", "-c", "%u %a", "/d/f") == "33 600\n"
    finally:
        line("exec", "box", "touch", "/tmp/stop")
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_what_a_killed_run_leaves_is_taken_over(line: CommandLine, several: None) -> None:
    script = f"{OTHERS}; touch /ready; sleep 1000"
    process = line.start("run", "--name", "box", "tools", "sh", "-c", script)
    wait_until_ready(line, process)
    process.send_signal(signal.SIGKILL)
    process.wait(60)  # what it ran has its streams still
    assert output(line, "exec", "box", "stat", "-c", "%u %a", "/d/f") == "33 600\n"
    assert b"/ready" in line("diff", "box").stdout
    output(line, "rm", "-f", "box")
    assert output(line, "mount").split() == ["CONTAINER", "PATH", "HOW", "MODE", "USERS", "STATE"]


def test_it_begins_and_ends_in_the_directory_where_it_was_called(
    line: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("from outside\n")
    done = line("run", "--rm", "-v", "./here:/there", "tools", "cat", "/there/file", cwd=tmp_path)
    assert done.stdout == b"from outside\n", done.stderr.decode()


def test_a_mount_that_nobody_would_see_is_refused(line: CommandLine) -> None:
    output(line, "create", "--name", "box", "tools")
    script = "touch /tmp/ready; while ! test -e /tmp/stop; do sleep 0.1; done"
    process = line.start("run", "--name", "busy", "tools", "sh", "-c", script)
    try:
        wait_for(lambda: b"/tmp/ready" in line("diff", "busy").stdout)
        refused = line("mount", "box")
        assert refused.returncode == 1
        assert b"unshare --map-root-user --map-auto --mount" in refused.stderr
    finally:
        line("exec", "busy", "touch", "/tmp/stop")
        process.communicate(timeout=60)
