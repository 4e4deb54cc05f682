"""Images and processes that would like to be elsewhere: nothing in a container's tree is followed
or executed outside of it, whatever links, pipes and devices it has."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cowshed import Container, Shed
from cowshed.errors import CowshedError, StoreError
from cowshed.running import launchers
from cowshed.running.process import CommandError

from .helpers import as_root, letters, sh, started, wait_for

SECRET = "evil:x:77:77:evil:/:/bin/sh\n"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that a container has links to; it must stay as it is."""
    place = tmp_path / "outside"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    for name in ("passwd", "group"):
        (place / name).write_text(SECRET)
    for name in ("hosts", "hostname", "resolv.conf"):
        (place / name).write_bytes(b"")
    ran = place / "ran"
    program = place / "program"
    program.write_text(f"#!/bin/sh\necho ran > {ran}\n")
    program.chmod(0o755)
    before = _picture(place)
    yield place
    assert _picture(place) == before


def _picture(place: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        one.name: (one.lstat().st_mode, one.lstat().st_mtime_ns, one.read_bytes())
        for one in sorted(place.iterdir())
    }


def _targets(outside: Path) -> tuple[str, ...]:
    """Return ways to say a place outside, as a link in a root's subdirectory would."""
    return f"{outside}", f"{'../' * 40}{str(outside)[1:]}", f"/proc/self/root{outside}"


@pytest.fixture(params=range(3), ids=("absolute", "upwards", "magic"))
def target(request: pytest.FixtureRequest, outside: Path) -> str:
    """Each in turn."""
    return _targets(outside)[request.param]


def _link(box: Container, path: str, target: str) -> None:
    with box.tree(writable=True) as tree:
        if tree.exists(path):
            tree.remove_tree(path)
        tree.symlink(target, path)


def test_users_are_read_in_the_container_alone(box: Container, target: str) -> None:
    _link(box, "etc/passwd", f"{target}/passwd")
    _link(box, "etc/group", f"{target}/group")
    for user in ("evil", "0:evil"):
        with pytest.raises(StoreError, match=r"no (user|group) 'evil' in the container's"):
            box.run(["true"], user=user)


def test_files_of_the_runtime_go_where_links_lead_in_the_container(
    box: Container, target: str, runtime: str
) -> None:
    for name in ("hosts", "hostname", "resolv.conf"):
        _link(box, f"etc/{name}", f"{target}/{name}")
    before = letters(box)
    assert sh(
        box, "cat /etc/hostname; echo new > /etc/hosts; :", hostname="cow", runtime=runtime
    ) in (
        "cow\n",
        "",
    )
    assert letters(box) == before


def test_an_etc_that_is_a_link_stays_in_the_container(
    box: Container, target: str, runtime: str
) -> None:
    _link(box, "etc", target)
    before = letters(box)
    try:
        sh(box, "true", runtime=runtime)
    except CowshedError as error:
        assert str(error).count("\n") == 0
    assert letters(box) == before


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_system_directories_that_are_links_are_refused(
    box: Container, target: str, name: str
) -> None:
    _link(box, name, target)
    with pytest.raises(
        StoreError, match=rf"/?{name} in the container(: Too many| is no directory, but a link)"
    ):
        box.run(["true"])


@pytest.mark.parametrize("name", ["dev/shm", "dev/null", "dev/pts", "proc/sys", "sys/firmware"])
def test_links_below_system_directories_lie_under_what_is_mounted_there(
    box: Container, target: str, runtime: str, name: str
) -> None:
    with box.tree(writable=True) as tree:
        tree.mkdir(name.split("/")[0])
        tree.symlink(target, name)
    sh(box, "echo x > /dev/null; touch /dev/shm/x; [ -c /dev/null ]", runtime=runtime)


def test_a_working_directory_through_a_link_is_the_containers(
    box: Container, target: str, runtime: str
) -> None:
    _link(box, "srv", target)
    if target.startswith("/proc"):
        with pytest.raises(StoreError, match="leads to /proc/self/root"):
            box.run(["true"], cwd="/srv/new", runtime=runtime)
        return
    said = sh(box, "pwd; touch here; ls", cwd="/srv/new", runtime=runtime).split()
    assert said[0].endswith("/outside/new") and said[1:] == ["here"]


def test_a_working_directory_of_somebodys_open_files_is_refused(box: Container) -> None:
    _link(box, "srv", "/proc/self/fd/8")
    for directory in ("/srv", "/proc/self/fd/7", "/srv/../../etc", "/dev/fd/9"):
        with pytest.raises(StoreError, match=r"leads to /(proc/self|dev/fd)"):
            box.run(["true"], cwd=directory)


def test_volumes_through_links_are_mounted_in_the_container(
    box: Container, target: str, runtime: str, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("given\n")
    _link(box, "srv", target)
    before = letters(box)
    volumes = [(tmp_path / "given", "/srv/new/er", "ro")]
    if target.startswith("/proc"):
        with pytest.raises(CowshedError, match="the runtime's own"):
            box.run(["true"], volumes=volumes, runtime=runtime)
    else:
        assert sh(box, "cat /srv/new/er/file", volumes=volumes, runtime=runtime) == "given\n"
    assert letters(box) == before


def test_a_volume_within_a_volume_follows_no_link(
    box: Container, outside: Path, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/link").symlink_to(outside)
    for target in ("/srv/link", "/srv/link/passwd"):
        volumes = [(tmp_path / "given", "/srv"), (tmp_path / "given", target)]
        with pytest.raises(CowshedError, match="is, or lies behind, a link"):
            box.run(["true"], volumes=volumes)


def test_programs_outside_arent_executed(box: Container, target: str, runtime: str) -> None:
    _link(box, "bin/linked", f"{target}/program")
    _link(box, "opt", target)
    with box.tree(writable=True) as tree:
        tree.write_bytes("bin/scripted", f"#!{target}/program\n".encode())
        tree.chmod("bin/scripted", 0o755)
    for command, path in (("linked", "/bin"), ("/opt/program", "/bin"), ("program", "/opt:/bin"),
                          ("scripted", "/bin")):  # fmt: skip
        try:
            ended = box.run([command], environment={"PATH": path}, runtime=runtime)
        except CommandError as error:
            assert error.exit_status in (126, 127)
        else:  # below /proc only the runtime can see, and bubblewrap's own status is 1
            assert runtime == "bubblewrap" and ended.status == 1


@as_root
@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_file_isnt_read(box: Container, runtime: str, kind: str) -> None:
    """A fifo would block who opens it, a tape would be rewound."""
    mode, rdev = {
        "fifo": (stat.S_IFIFO, 0),
        "device": (stat.S_IFCHR, os.makedev(1, 5)),  # endless zeros
        "directory": (stat.S_IFDIR, 0),
    }[kind]

    def put(name: str, permissions: int = 0o666) -> None:
        with box.tree(writable=True) as tree:
            if tree.exists(name):
                tree.unlink(name)
            if kind == "directory":
                tree.mkdir(name)
            else:
                tree.mknod(name, mode | permissions, rdev)

    for name in ("etc/hosts", "etc/resolv.conf", "bin/odd"):
        put(name, 0o777)
    before = letters(box)
    assert sh(box, "echo fine", runtime=runtime) == "fine\n"
    with pytest.raises(CommandError):
        box.run(["odd"], runtime=runtime)
    assert letters(box) == before
    for name in ("etc/group", "etc/passwd"):
        put(name)  # runc would open it
        with pytest.raises(StoreError, match=f"/{name} in the container is no file"):
            box.run(["true"], user="0:0", runtime=runtime)


@as_root
def test_no_process_has_the_hosts_devices(box: Container, runtime: str, tmp_path: Path) -> None:
    os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    said = sh(
        box,
        "for p in /dev /tmp /dev/shm /mnt; do mknod $p/loop b 7 0 2> /dev/null || echo refused; "
        "done; head -c 1 /mnt/zero 2> /dev/null | wc -c; head -c 1 /dev/zero | wc -c",
        volumes=[(tmp_path, "/mnt")],
        runtime=runtime,
    )
    assert said.split() == ["refused"] * 4 + ["0", "1"]


@as_root
def test_what_starts_a_process_is_nobodys_to_write(
    shed: Shed, box: Container, runtime: str
) -> None:
    """Until its own program is executed, that is what its /proc/self/exe means (CVE-2019-5736)."""
    if runtime not in ("plain", "bubblewrap"):
        pytest.skip("runtimes of their own have their own ways")
    with started(box, "while [ ! -e /tmp/stop ]; do sleep 0.05; done", runtime=runtime):
        wait_for(lambda: shed.running.registry.process(box.id) is not None)
        pid = shed.running.registry.process(box.id)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        with open(f"/proc/{fields[1]}/exe", "rb") as launcher:
            seals = fcntl.fcntl(launcher, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE and seals & fcntl.F_SEAL_SEAL


def test_a_process_has_nothing_open_but_its_streams(box: Container, runtime: str) -> None:
    said = sh(box, "ls /proc/self/fd", runtime=runtime)
    assert said.split() == ["0", "1", "2", "3"]  # the last is ls's own


def test_no_command_line_tells_variables(shed: Shed, box: Container, runtime: str) -> None:
    secret = os.urandom(8).hex()
    script = "touch /tmp/ready; while [ ! -e /tmp/stop ]; do sleep 0.05; done"
    with started(box, script, runtime=runtime, environment={"SECRET": secret}):
        wait_for(lambda: "A /tmp/ready" in letters(box))
        said = box.exec(["sh", "-c", "echo $SECRET"], capture=True, environment={"A": secret})
        assert said.stdout == f"{secret}\n".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                assert secret.encode() not in path.read_bytes()


def test_a_process_is_known_once_it_has_the_containers_root(tmp_path: Path) -> None:
    """Before, who looks below /proc/PID/root would see the host's files."""
    noted: list[int] = []
    for line in (b'{"error": "no", "status": 126}\n', b""):
        status = launchers.Status(noted.append)
        os.write(status.write_end, b'{"pid": 7}\n' + line)
        thread = threading.Thread(target=status.follow, args=("pid",), daemon=True)
        thread.start()
        wait_for(lambda status=status: status.pid == 7)
        assert noted == []
        os.close(status.write_end)
        thread.join(60)
        status.close()
    assert noted == [7]

    with subprocess.Popen(["sleep", "1000"]) as process:
        assert launchers.entered(process.pid, "/")
        found: list[bool] = []
        thread = threading.Thread(
            target=lambda: found.append(launchers.entered(process.pid, str(tmp_path))), daemon=True
        )
        thread.start()
        thread.join(0.1)
        assert found == []
        process.kill()
        thread.join(60)
        assert found == [False]


def test_a_user_database_that_is_a_link_to_a_terminal_isnt_waited_for(box: Container) -> None:
    _link(box, "etc/group", "../dev/stdin")
    with pytest.raises(StoreError, match="/etc/group in the container is no file"):
        box.run(["true"])


def test_a_huge_user_database_isnt_read_to_its_end(box: Container) -> None:
    with box.tree(writable=True) as tree:
        tree.truncate("etc/passwd", 1 << 40)
    with pytest.raises(StoreError, match="no user 'nemo'"):
        box.run(["true"], user="nemo")


def test_links_in_circles_are_refused(box: Container) -> None:
    _link(box, "etc/passwd", "passwd")
    _link(box, "srv", "srv")
    with pytest.raises(StoreError, match="no user 'www'"):
        box.run(["true"], user="www")
    for how in ({"cwd": "/srv"}, {"volumes": [("/", "/srv/x")]}):
        with pytest.raises(StoreError, match="Too many levels of symbolic links"):
            box.run(["true"], **how)  # type: ignore[arg-type]
    with pytest.raises(CommandError, match="symbolic links"):
        box.run(["/srv"])


def test_mount_points_are_taken_away_in_the_container_alone(
    box: Container, outside: Path, runtime: str
) -> None:
    """A process puts a link where a directory of mount points was."""
    said = sh(
        box,
        f"mv /etc /moved 2> /dev/null && ln -s {outside} /etc; mkdir -p /srv; "
        f"ln -s {outside} /srv/link; echo done",
        runtime=runtime,
        volumes=[(outside, "/srv/kept/volume", "ro")],
    )
    assert said == "done\n"


def test_exec_looks_up_users_and_directories_in_the_container_alone(
    box: Container, outside: Path, runtime: str
) -> None:
    """A process that runs has a /proc of its own, with links that lead anywhere."""
    script = (
        "for n in passwd group; do rm /etc/$n; ln -s /proc/1/root/outside/$n /etc/$n; done; "
        "ln -s /proc/1/root /root/out; ln -s /proc/1/cwd /root/cwd; touch /tmp/ready; "
        "while [ ! -e /tmp/stop ]; do sleep 0.05; done"
    )
    ended: list[int] = []

    def run() -> None:
        ended.append(box.run(["sh", "-c", script], runtime=runtime, timeout=120).status)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: "A /tmp/ready" in letters(box) or not thread.is_alive())
        with pytest.raises(StoreError, match="no user 'evil'"):
            box.exec(["true"], user="evil")
        for directory in ("/root/out", "/root/cwd", "/proc/self/cwd", "/proc/1/root/etc"):
            # Refused, or read as the text that it says: the container's own.
            with suppress(StoreError):
                inside = ["sh", "-c", "[ . -ef / ] || [ . -ef /etc ]"]
                assert box.exec(inside, cwd=directory).status == 0
    finally:
        box.exec(["touch", "/tmp/stop"])  # which the end of the other may kill
        thread.join(60)
    assert ended == [0]
