"""What a process is given, on every runtime."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from cowshed import Container, Shed
from cowshed.errors import InUseError, StoreError, UsageError
from cowshed.mounting import Mounts
from cowshed.running.choosing import probe
from cowshed.running.process import CommandError
from cowshed.running.registry import Registry, State, begun

from .helpers import as_root, letters, sh, started, wait_for

SYSTEM = ("dev", "proc", "sys")
#: Docker's fourteen capabilities but MKNOD.
CAPABILITIES = 0xA00425FB


def test_a_process_writes_in_its_container_and_nothing_of_the_runtime_stays(
    box: Container, runtime: str
) -> None:
    seen = sh(box, "echo hello > /tmp/file; ls /", runtime=runtime).split()
    with box.tree() as tree:
        assert sorted(seen) == sorted({*(one.name for one in tree.scandir("")), *SYSTEM})
    assert letters(box) == ["C /tmp", "A /tmp/file"]
    assert box.usage().apparent == 6


def test_diff_commit_export_and_fork_are_exact_while_a_process_runs(
    shed: Shed, box: Container, runtime: str
) -> None:
    def run() -> None:
        with Shed(shed.root, overrides={"durability": "none"}) as mine:
            command = [
                "sh",
                "-c",
                "echo one > /tmp/one; while [ ! -e /tmp/stop ]; do sleep 0.05; done",
            ]
            mine.container("box").run(command, runtime=runtime, timeout=120)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: "A /tmp/one" in letters(box) or not thread.is_alive())
        assert letters(box) == ["C /tmp", "A /tmp/one"]
        out = io.BytesIO()
        box.export(out)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            names = archive.getnames()
        assert "tmp/one" in names and not {"proc", "dev", "sys", "etc/hosts"} & set(names)
        image = box.commit("committed")
        assert [layer.entries for layer in image.layers][1:] == [2]
        fork = box.fork("fork")
        assert letters(fork) == ["C /tmp", "A /tmp/one"]
        with pytest.raises(InUseError, match=f"box is running .by process {os.getpid()}"):
            box.remove()
        with pytest.raises(InUseError, match="box is running"):
            box.run(["true"])
        assert box.inspect()["State"]["Running"] is True
    finally:
        box.exec(["touch", "/tmp/stop"])
        thread.join(60)
    assert letters(box) == ["C /tmp", "A /tmp/one", "A /tmp/stop"]
    shed.remove_containers(["fork"])
    shed.remove_image("committed", force=True)


def test_streams_stay_separate_and_input_arrives(box: Container, runtime: str) -> None:
    ended = box.run(
        ["sh", "-c", "cat; echo out; echo err >&2; exit 3"],
        input=b"given\n",
        capture=True,
        runtime=runtime,
    )
    assert (ended.status, ended.stdout, ended.stderr) == (3, b"given\nout\n", b"err\n")


def test_without_input_there_is_none(box: Container, runtime: str) -> None:
    assert sh(box, "cat | wc -c", runtime=runtime).strip() == "0"


@pytest.mark.parametrize("number", [9, 15, 6])
def test_death_by_a_signal_is_128_and_its_number(box: Container, runtime: str, number: int) -> None:
    ended = box.run(["sh", "-c", f"(kill -{number} $$) ; sh -c 'kill -{number} $$'"],
                    runtime=runtime)  # fmt: skip
    assert ended.status == 128 + number


@pytest.mark.parametrize(
    ("command", "status", "why"),
    [
        ("nosuch", 127, "nosuch: not found in"),
        ("/bin/nosuch", 127, "no such file"),
        ("/bin/script", 127, "its interpreter /bin/nowhere isn't"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
        ("/bin/garbage", 126, "(?i)exec format error"),
    ],
)
def test_a_command_that_cant_be_run_says_why(
    box: Container, runtime: str, command: str, status: int, why: str
) -> None:
    with pytest.raises(CommandError, match=why) as caught:
        box.run([command], runtime=runtime)
    assert caught.value.exit_status == status
    assert letters(box) == []


def test_environment_directory_and_hostname(box: Container, runtime: str) -> None:
    said = sh(
        box,
        "pwd; hostname; cat /etc/hostname; echo $HOSTNAME $HOME $FOO $PATH",
        runtime=runtime,
        cwd="/var/www",
        environment={"FOO": "bar baz"},
        hostname="cow",
    ).splitlines()
    assert said[:3] == ["/var/www", "cow", "cow"]
    assert said[3] == (
        "cow /root bar baz /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    hosts = sh(box, "tail -n 1 /etc/hosts", runtime=runtime)
    assert hosts == f"127.0.0.1\t{box.id[:12]}\n"
    assert letters(box) == []


def test_a_missing_working_directory_is_made_and_is_the_containers(
    box: Container, runtime: str
) -> None:
    assert sh(box, "pwd", runtime=runtime, cwd="/srv/deep").strip() == "/srv/deep"
    assert letters(box) == ["A /srv", "A /srv/deep"]


@as_root
@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("www", "uid=33(www) gid=33(www) groups=33(www),44(extra),50(staff) /var/www"),
        ("33", "uid=33(www) gid=33(www) groups=33(www),44(extra),50(staff) /var/www"),
        ("www:extra", "uid=33(www) gid=44(extra) groups=44(extra) /var/www"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678 /"),
        ("1234", "uid=1234 gid=0(root) groups=0(root) /"),
    ],
)
def test_users_are_the_containers_own(box: Container, runtime: str, user: str, said: str) -> None:
    if runtime == "bubblewrap":
        with pytest.raises(StoreError, match=r"can't start a process as another user.* plain can"):
            box.run(["id"], user=user, runtime=runtime)
        return
    assert sh(box, "echo $(id) $HOME", user=user, runtime=runtime).strip() == said


@as_root
def test_another_user_owns_what_it_writes_and_has_no_privilege(
    box: Container, runtime: str
) -> None:
    if runtime == "bubblewrap":
        pytest.skip("bubblewrap runs as root only")
    said = sh(
        box,
        "touch /tmp/own; touch /etc/passwd || echo refused; while read a b; do case $a in "
        "CapEff:|CapPrm:) echo $b;; esac; done < /proc/self/status",
        user="www",
        runtime=runtime,
    )
    assert said.split() == ["refused", "0" * 16, "0" * 16]
    with box.tree() as tree:
        assert (tree.stat("tmp/own").uid, tree.stat("tmp/own").gid) == (33, 33)


def test_users_that_nobody_knows_are_refused(box: Container) -> None:
    for user in ("nobody-here", "root:no-group", "huge", "4294967296"):
        with pytest.raises(StoreError, match=r"no user|no group|out of bounds"):
            box.run(["true"], user=user)


def test_volumes_show_the_hosts_files(box: Container, runtime: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside\n")
    (tmp_path / "in").chmod(0o644)
    (tmp_path / "in-file").write_text("")  # a volume in a volume needs something to be on
    kept = tmp_path / "kept"
    kept.mkdir()
    said = sh(
        box,
        "cat /mnt/in /mnt/in-file; echo new > /mnt/in 2>/dev/null || echo refused; "
        "echo back > /deep/er/kept/out",
        volumes=[
            (tmp_path, "/mnt", "ro"),
            (tmp_path / "in", "/mnt/in-file", "ro"),
            (kept, "/deep/er/kept"),
        ],
        runtime=runtime,
    )
    assert said == "from outside\nfrom outside\nrefused\n"
    assert (kept / "out").read_text() == "back\n"
    assert letters(box) == []


def test_what_the_image_calls_volumes_are_directories_of_the_container(
    shed: Shed, box: Container
) -> None:
    # The last one can't be made: that is for whoever needs it to find out.
    changes = ["VOLUME /data/deep", "VOLUME /etc", "VOLUME /bin/sh/x"]
    box.commit("volumes", changes=changes)
    other = shed.create("volumes", "other")
    assert sh(other, "touch /data/deep/file; ls -d /data/deep/file /etc/passwd").split() == [
        "/data/deep/file", "/etc/passwd"
    ]  # fmt: skip
    assert letters(other) == ["A /data", "A /data/deep", "A /data/deep/file"]
    other.remove()
    shed.remove_image("volumes")


def test_a_missing_working_directory_in_a_volume_is_made_there(
    box: Container, runtime: str, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    volumes = [(tmp_path, "/src"), (tmp_path / "deep", "/src/deep")]
    for directory, made in (("/src/build/here", "build/here"), ("/src/deep/er", "deep/er")):
        said = sh(box, "pwd; ls /", runtime=runtime, cwd=directory, volumes=volumes)
        assert said.split()[0] == directory
        assert (tmp_path / made).is_dir()
        assert letters(box) == []
    with pytest.raises(StoreError, match=r"/src/x isn't in volume .*: the volume is read-only"):
        box.run(["true"], runtime=runtime, cwd="/src/x", volumes=[(tmp_path, "/src", "ro")])
    assert letters(box) == []


@as_root
def test_what_is_mounted_in_a_read_only_volume_is_read_only_too(
    box: Container, runtime: str, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", inner], check=True)
    try:
        (inner / "kept").write_text("kept\n")
        said = sh(
            box,
            "cat /mnt/inner/kept; echo new > /mnt/inner/new 2>/dev/null || echo refused",
            volumes=[(tmp_path, "/mnt", "ro")],
            runtime=runtime,
        )
        assert said == "kept\nrefused\n"
        (inner / "ours").touch()
    finally:
        subprocess.run(["umount", inner], check=True)


def test_what_a_service_manager_told_us_isnt_the_runtimes(
    box: Container, runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (
        ("NOTIFY_SOCKET", str(tmp_path / "notify")),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", str(os.getpid())),
    ):
        monkeypatch.setenv(name, value)
    said = sh(box, "env", runtime=runtime)
    assert "PATH=" in said and "NOTIFY_SOCKET" not in said and "LISTEN_" not in said


def test_volumes_that_cant_be_are_refused(box: Container, tmp_path: Path) -> None:
    for volume, why in (
        ((tmp_path / "nothing", "/mnt"), "doesn't exist here"),
        ((tmp_path, "mnt"), "must begin with '/'"),
        ((tmp_path, "/"), "the container's root"),
        ((tmp_path, "/proc/1"), "the runtime's own"),
        ((tmp_path, "/sys"), "the runtime's own"),
        ((tmp_path, "/etc/passwd"), "is a directory, /etc/passwd in the container a file"),
    ):
        with pytest.raises(UsageError, match=why):
            box.run(["true"], volumes=[volume])
    assert letters(box) == []


def test_read_only_lets_nothing_be_written_but_in_volumes(
    box: Container, runtime: str, tmp_path: Path
) -> None:
    said = sh(
        box,
        "touch /tmp/x 2>/dev/null || echo refused; touch /mnt/y; touch /dev/shm/z && echo fine",
        read_only=True,
        volumes=[(tmp_path, "/mnt")],
        runtime=runtime,
    )
    assert said == "refused\nfine\n"
    assert (tmp_path / "y").exists()
    assert letters(box) == []


def test_no_network_means_a_loopback_of_its_own(box: Container, runtime: str) -> None:
    devices = sh(box, "cat /proc/net/dev", network="none", runtime=runtime)
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
    assert sh(box, "readlink /proc/self/ns/net", runtime=runtime).strip() == os.readlink(
        "/proc/self/ns/net"
    )


def test_the_kernel_is_out_of_reach(box: Container, runtime: str) -> None:
    said = sh(
        box,
        "echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo sys; "
        "mount -t tmpfs none /tmp 2>/dev/null || echo mount; "
        "[ -s /proc/kcore ] || echo kcore; ls /sys/firmware | wc -l",
        runtime=runtime,
    )
    assert said.split() == ["sys", "mount", "kcore", "0"]


def test_refused_calls_are_refused(box: Container, runtime: str) -> None:
    script = (
        "while read a b; do case $a in Seccomp:|CapEff:|CapBnd:) echo $b;; esac; done"
        " < /proc/self/status"
    )
    effective, bounding, filtered = sh(box, script, runtime=runtime).split()
    assert filtered == "2"
    # Root gives no more than it has; an ordinary user's root has all.
    assert int(effective, 16) == CAPABILITIES & (_bounding() if os.geteuid() == 0 else -1)
    if runtime != "bubblewrap":  # where nobody can gain privileges, and so not from that set
        assert bounding == effective


def _bounding() -> int:
    """Return what this process could have at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapBnd:")[2].split()[0], 16)


def test_a_container_keeps_its_files_from_run_to_run_and_a_new_one_starts_clean(
    shed: Shed, box: Container, runtime: str
) -> None:
    sh(box, "echo 1 > /tmp/kept", runtime=runtime)
    assert sh(box, "cat /tmp/kept", runtime=runtime) == "1\n"
    ended = shed.run("tools", ["ls", "/tmp"], capture=True, runtime=runtime)
    assert ended.stdout == b""
    assert [container.name for container in shed.containers()] == ["box"]


def test_exec_starts_a_process_in_a_container_that_doesnt_run(box: Container, runtime: str) -> None:
    ended = box.exec(["sh", "-c", "echo $$"], capture=True, runtime=runtime)
    assert ended.stdout == b"1\n"


def test_a_timeout_kills_the_container(box: Container, runtime: str) -> None:
    ended = box.run(["sleep", "1000"], timeout=0.5, runtime=runtime)
    assert ended.timed_out and ended.status == 137
    assert box.inspect()["State"]["ExitCode"] == 137


def test_what_a_killed_run_has_called_may_still_start(shed: Shed, box: Container) -> None:
    """Nobody takes its mount away meanwhile, nor the container."""
    registry = shed.running.registry
    child = subprocess.Popen(["true"])
    child.wait()
    state = begun(runtime="plain", supervisor=child.pid)
    registry.write(box.id, state)
    assert shed.running.running(box.id)
    shed.running.settle([box.record])
    assert registry.read(box.id) == state
    with pytest.raises(InUseError, match="is running"):
        box.remove()
    (registry.home(box.id) / "pid").write_text(str(child.pid))  # it had begun, and has ended
    assert not shed.running.running(box.id)
    (registry.home(box.id) / "pid").unlink()
    registry.write(box.id, state._replace(booted_ns=state.booted_ns - 6 * 10**9))
    assert not shed.running.running(box.id)
    box.remove()


def test_what_is_settled_may_be_removed_meanwhile(shed: Shed, box: Container) -> None:
    record = box.record
    box.remove()
    shed.running.registry.write(record.id, State(1, "plain", 1, ("proc",), status=0))
    shed.running.settle([record])
    shed.running.sweep()
    assert shed.running.registry.read(record.id) is None


def test_a_killed_runs_mount_points_are_cleared_by_the_next_look(
    shed: Shed, box: Container
) -> None:
    running = shed.running
    from cowshed.running import stubs
    from cowshed.running.rootfs import Rootfs

    running.registry.write(box.id, State(1, "plain", 1, ("proc", "etc/hosts")))
    with box.mounted() as path, Rootfs(os.path.realpath(path)) as root:
        before = os.stat(f"{path}/etc").st_mtime_ns
        stubs.make(root, "proc", directory=True)
        stubs.make(root, "etc/hosts", directory=False)
        assert os.stat(f"{path}/etc").st_mtime_ns == before
    assert letters(box) == []
    state = running.state(box.id)
    assert state is not None and state.stubs == () and state.status == 137


def test_a_killed_runs_mount_points_are_cleared_without_a_mount(
    shed: Shed, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    with box.tree(writable=True) as tree:
        etc, root = tree.stat("etc").mtime_ns, tree.stat("").mtime_ns
        tree.mkdir("proc")
        tree.write_bytes("etc/hosts", b"")
        tree.utime("etc", etc)
        tree.utime("", root)
    shed.running.registry.write(box.id, State(1, "plain", 1, ("proc", "etc/hosts")))

    def refuse(*arguments: object, **more: object) -> None:
        raise StoreError("mounting needs privilege")

    monkeypatch.setattr(Mounts, "_make", refuse)
    assert box.usage().apparent == 0
    assert letters(box) == []
    after = shed.running.state(box.id)
    assert after is not None and after.stubs == () and after.status == 137
    with box.tree() as tree:
        assert not tree.exists("proc") and tree.stat("").mtime_ns == root


def test_mount_points_are_gone_before_they_are_forgotten(
    shed: Shed, box: Container, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Registry.write
    seen: list[tuple[bool, bool]] = []

    def look(self: Registry, container: str, state: State) -> None:
        [mount] = shed.mounts()
        seen.append((bool(state.stubs), os.path.exists(mount.path / "proc")))
        write(self, container, state)

    monkeypatch.setattr(Registry, "write", look)
    box.run(["true"], runtime=runtime)
    assert seen == [(True, False), (False, False)]


def test_a_sweep_forgets_runs_of_containers_that_are_gone_and_keeps_no_lock(shed: Shed) -> None:
    shed.running.registry.write("f" * 64, begun())
    before = len(os.listdir("/proc/self/fd"))
    kept = [shed.running.sweep()]
    assert kept and not shed.running.registry.home("f" * 64).exists()
    assert len(os.listdir("/proc/self/fd")) == before
    with shed.locks.acquire(f"running:{'f' * 64}", timeout=0):
        pass


def test_thirty_two_at_once(shed: Shed) -> None:
    results: list[bytes | None] = []

    def run(number: int) -> None:
        with Shed(shed.root, driver=shed.config["driver"], overrides={"durability": "none"}) as one:
            command = ["sh", "-c", f"echo {number} > /f; cat /f"]
            ended = one.run("tools", command, capture=True, timeout=240)
            results.append(ended.stdout)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(results, key=str) == sorted((b"%d\n" % number for number in range(32)), key=str)
    assert shed.containers() == [] and shed.mounts() == []


def test_the_images_config_says_what_runs(shed: Shed, box: Container, runtime: str) -> None:
    box.commit(
        "configured",
        changes=[
            'ENTRYPOINT ["sh", "-c", "echo $0 $@ in $(pwd) with $A"]',
            'CMD ["one", "two"]',
            "WORKDIR /var/www",
            "ENV A=b",
        ],
    )
    try:
        for how, said in (
            ({}, b"one two in /var/www with b\n"),
            ({"command": ["three"]}, b"three in /var/www with b\n"),
            ({"command": ["x"], "environment": {"A": "c"}, "cwd": "/"}, b"x in / with c\n"),
            ({"entrypoint": ["ls"], "cwd": "/tmp"}, b""),
        ):
            ended = shed.run("configured", capture=True, runtime=runtime, **how)
            assert ended.stdout == said
    finally:
        shed.remove_image("configured", force=True)


def test_an_image_without_a_command_wants_one(shed: Shed) -> None:
    with pytest.raises(UsageError, match="the image says no command; give one"):
        shed.run("tools")
    assert shed.containers() == []


def test_an_unknown_runtime_is_named(box: Container) -> None:
    with pytest.raises(UsageError, match="no runtime is called 'rnc'; did you mean 'runc'"):
        box.run(["true"], runtime="rnc")


@as_root
def test_a_bundle_runs_elsewhere(box: Container, runtime: str, tmp_path: Path) -> None:
    if runtime in ("bubblewrap", "plain"):
        pytest.skip("no OCI runtime")
    path = box.bundle(tmp_path / "bundle", ["sh", "-c", "echo from $(pwd); touch /tmp/new"])
    try:
        ran = subprocess.run(
            [runtime, "run", "--bundle", str(path), f"cowshed-test-{os.getpid()}"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, b"from /\n"), ran.stderr
    finally:
        box.unmount()
    assert "A /tmp/new" in letters(box)
    with pytest.raises(StoreError, match="isn't empty"):
        box.bundle(path, ["true"])


@as_root
def test_programs_gain_privilege_in_a_bundle_that_root_alone_reaches(
    box: Container, tmp_path: Path
) -> None:
    if probe("runc") is not None:
        pytest.skip(str(probe("runc")))
    sh(box, "cat /bin/id > /bin/mine; chmod 4755 /bin/mine")
    (tmp_path / "bundle").mkdir(mode=0o755)
    path = box.bundle(tmp_path / "bundle", ["/bin/mine", "-u"], user="www")
    try:
        assert path.stat().st_mode & 0o777 == 0o700
        ran = subprocess.run(
            ["runc", "run", "--bundle", str(path), f"cowshed-suid-{os.getpid()}"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, b"0\n"), ran.stderr
    finally:
        box.unmount()


def test_a_bundle_that_couldnt_be_made_leaves_nothing(box: Container, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    ordinary = os.geteuid() != 0
    for mounted in (False, True) if ordinary else (False,):
        if mounted:
            box.mount()
        with pytest.raises(CommandError, match="nosuch"):
            box.bundle(place, ["nosuch"])
        assert os.listdir(place) == []
        assert len(box._shed.mounts()) == mounted  # pyright: ignore[reportPrivateUsage]
        assert letters(box) == []
    assert box.bundle(place, ["true"]) == place
    box.unmount()
    assert letters(box) == []


def test_a_hundred_runs_leave_nothing(shed: Shed) -> None:
    def left() -> tuple[list[str], list[str], list[str], list[str]]:
        files = [os.path.join(place, name) for place, _, names in os.walk(shed.root)
                 for name in names if "catalog" not in place]  # fmt: skip
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            mounted = [line for line in mounts if str(shed.root) in line]
        return sorted(files), mounted, os.listdir("/proc/self/fd"), _children()

    script = ["sh", "-c", "[ ! -e /tmp/mine ] && echo x > /tmp/mine && rm /etc/group"]
    assert shed.run("tools", script).status == 0
    files, mounted, descriptors, children = left()
    for _ in range(100):
        assert shed.run("tools", script).status == 0
    assert shed.containers() == [] and shed.mounts() == []
    after = left()
    assert after[0] == files
    assert after[1] == mounted
    assert len(after[2]) == len(descriptors)
    # Other tests' servers may be among them, and end.
    assert set(after[3]) <= set(children)


def _children() -> list[str]:
    """The processes that this one started and that are there, dead or alive."""
    found: list[str] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            status = Path("/proc", name, "stat").read_text(errors="replace")
            if int(status.rpartition(")")[2].split()[1]) == os.getpid():
                found.append(name)
    return found


def test_exec_beside_a_process_has_options_of_its_own(box: Container, runtime: str) -> None:
    script = "touch /tmp/ready; while [ ! -e /tmp/stop ]; do sleep 0.05; done"

    def run() -> None:
        box.run(["sh", "-c", script], environment={"A": "run"}, runtime=runtime, timeout=120)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: "A /tmp/ready" in letters(box) or not thread.is_alive())
        ended = box.exec(
            ["sh", "-c", "cat; pwd; echo $A $B $HOME; id -u; exit 7"],
            input=b"given\n",
            capture=True,
            environment={"B": "exec"},
            cwd="/var/www",
            user="1234:5678" if _several_users(runtime) else "0",
        )
        assert ended.stdout is not None
        said = ended.stdout.decode().splitlines()
        home, uid = ("/", "1234") if _several_users(runtime) else ("/root", "0")
        assert said[:4] == ["given", "/var/www", f"run exec {home}", uid]
        assert ended.status == 7
        with pytest.raises(CommandError, match="nosuch: not found"):
            box.exec(["nosuch"])
        with pytest.raises(CommandError, match="permission denied"):
            box.exec(["/etc/passwd"])
    finally:
        box.exec(["touch", "/tmp/stop"])
        thread.join(60)
    assert not thread.is_alive()


def test_exec_is_the_same_users_in_the_same_directory(box: Container, runtime: str) -> None:
    user = "www" if _several_users(runtime) else "0"
    script = "touch /tmp/ready; while [ ! -e /tmp/stop ]; do sleep 0.05; done"
    with started(box, script, runtime=runtime, user=user, cwd="/var/www"):
        wait_for(lambda: "A /tmp/ready" in letters(box))
        ended = box.exec(["sh", "-c", "id -u; id -G; pwd; echo $HOME"], capture=True)
        assert ended.stdout is not None
        www = ["33", "33 44 50", "/var/www", "/var/www"]
        root = ["0", "0", "/var/www", "/root"]
        assert ended.stdout.decode().splitlines() == (www if user == "www" else root)


LASTING = "touch /tmp/ready; while [ ! -e /tmp/stop ]; do sleep 0.05; done"


def test_a_timeout_of_exec_kills_its_process_alone(box: Container, runtime: str) -> None:
    with started(box, LASTING, runtime=runtime):
        wait_for(lambda: "A /tmp/ready" in letters(box))
        seconds = f"{10**8 + int.from_bytes(os.urandom(3), 'big')}"
        # The other holds the output open.
        script = f"echo said; touch /tmp/begun; sleep 1000 & exec sleep {seconds}"
        ended = box.exec(["sh", "-c", script], capture=True, timeout=3)
        assert (ended.timed_out, ended.status, ended.stdout) == (True, 137, b"said\n")
        wait_for(lambda: not _processes(seconds))
        assert box.exec(["true"]).status == 0


def _processes(word: str) -> list[Path]:
    found: list[Path] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(path)
    return found


@as_root
def test_a_program_of_somebody_elses_is_refused_by_exec_as_by_run(
    shed: Shed, box: Container, runtime: str
) -> None:
    if runtime == "bubblewrap":
        pytest.skip("bubblewrap runs as root only")
    with box.tree(writable=True) as tree:
        tree.write_bytes("bin/rootonly", tree.read_bytes("bin/true"))
        tree.chmod("bin/rootonly", 0o700)
    with pytest.raises(CommandError, match=r"(?i)/bin/rootonly: permission denied") as caught:
        box.run(["/bin/rootonly"], user="www", runtime=runtime)
    assert caught.value.exit_status == 126
    with started(box, LASTING, runtime=runtime, user="www"):
        wait_for(lambda: "A /tmp/ready" in letters(box))
        with pytest.raises(CommandError, match=r"(?i)/bin/rootonly: permission denied") as caught:
            box.exec(["/bin/rootonly"])
        assert caught.value.exit_status == 126
        # What the runtime said of another process isn't said of this one.
        for log in shed.running.registry.home(box.id).glob("*log"):
            log.write_text('{"level": "error", "msg": "something else"}\n')
        assert box.exec(["sh", "-c", "exit 3"]).status == 3


def test_exec_leaves_nothing_of_its_own(shed: Shed, box: Container, runtime: str) -> None:
    home = shed.running.registry.home(box.id)
    with started(box, LASTING, runtime=runtime):
        wait_for(lambda: shed.running.registry.process(box.id) is not None)
        before = sorted(os.listdir(home))
        assert box.exec(["true"]).status == 0
        with pytest.raises(CommandError):
            box.exec(["nosuch"])
        assert sorted(os.listdir(home)) == before


def _several_users(runtime: str) -> bool:
    return os.geteuid() == 0 and runtime != "bubblewrap"
