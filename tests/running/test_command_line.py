"""``cowshed run`` and ``exec`` as processes: terminals, signals, statuses."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.running import identity
from cowshed.running.registry import PID, Registry, begun

from .helpers import CommandLine, as_root, heed_signals, until_it_waits, wait_for

SIZE = "stty size; read x; exit 3"
ENDLESS = "trap 'echo got TERM; exit 5' TERM; trap 'echo got HUP; exit 6' HUP; "
ENDLESS += "trap 'echo got INT; exit 7' INT; echo ready; while :; do sleep 0.05; done"


def test_run_prints_what_the_process_prints_and_ends_with_its_status(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    ran = cowshed(
        "run", "--rm", "--runtime", runtime, "tools", "sh", "-c", "echo out; echo err >&2; exit 9"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (9, b"out\n", b"err\n")
    assert shed.containers() == []


def test_interactive_passes_standard_input(cowshed: CommandLine, runtime: str) -> None:
    ran = cowshed("run", "--rm", "-i", "--runtime", runtime, "tools", "cat", input=b"hello")
    assert (ran.returncode, ran.stdout) == (0, b"hello")


def test_streams_that_are_closed_or_nobody_reads_are_the_processs_to_mind(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    run = " ".join([*cowshed.command, "run", "--rm", "-i", "--runtime", runtime, "tools"])

    def shell(command: str) -> tuple[int, bytes]:
        ended = subprocess.run(
            ["bash", "-c", command], env=cowshed.environment, capture_output=True, timeout=120
        )
        return ended.returncode, ended.stdout

    # The kernel kills no process 1 by SIGPIPE: seq is told EPIPE and ends with 1.
    assert shell(f"{run} seq 1000000 | head -n 1; exit ${{PIPESTATUS[0]}}") == (1, b"1\n")
    assert shell(f"{run} sh -c 'cat; exit 4' <&-")[0] == 4
    assert shell(f"{run} sh -c 'echo x; exit 5' >&- 2>&-") == (5, b"")
    assert shell(f"seq 100000 | {run} wc -l | cat") == (0, b"100000\n")
    status, said = shell(f"{run} readlink /proc/self/fd/2 2>&-")
    assert status == 0 and said.startswith((b"/dev/null", b"pipe:")), said  # runc copies
    assert shell(f"{' '.join(cowshed.command)} ps >&- 2>&- <&-") == (0, b"")
    assert shed.containers() == [] and shed.mounts() == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 5), (signal.SIGHUP, 6), (signal.SIGINT, 7)]
)
def test_signals_go_to_the_process_and_rm_removes_the_container(
    cowshed: CommandLine, shed: Shed, runtime: str, number: int, status: int
) -> None:
    other = shed.create("tools", "other")
    process = cowshed.start("run", "--rm", "--runtime", runtime, "tools", "sh", "-c", ENDLESS)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    until_it_waits(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out.startswith(b"got ")
    assert [container.name for container in shed.containers()] == [other.name]


def test_what_the_caller_ignores_the_process_doesnt(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    """As in ``nohup cowshed run … &``."""

    def ignore() -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    process = cowshed.start(
        "run", "--rm", "--runtime", runtime, "tools", "sh", "-c",
        f"while read a b; do [ $a != SigIgn: ] || echo $b; done < /proc/self/status; {ENDLESS}",
        preexec_fn=ignore,
    )  # fmt: skip
    assert process.stdout is not None
    # 32 and 33 are the C library's own: nobody can set them, whatever they were.
    assert int(process.stdout.readline(), 16) & ~(0b11 << 31) == 0
    assert process.stdout.readline() == b"ready\n"
    until_it_waits(process.pid)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, b"got TERM\n"), err
    assert shed.containers() == []


def test_the_third_signal_kills_what_ignores_them(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    script = "trap '' INT; echo ready; while :; do sleep 0.05; done"
    process = cowshed.start("run", "--rm", "--runtime", runtime, "tools", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    until_it_waits(process.pid)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.wait(60) == 137
    assert shed.containers() == []


def test_an_early_signal_leaves_nothing(cowshed: CommandLine, shed: Shed) -> None:
    for delay in (0.05, 0.1, 0.2, 0.3, 0.5):
        process = cowshed.start("run", "--rm", "tools", "sleep", "1000")
        time.sleep(delay)
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        process.communicate(timeout=60)
        assert process.returncode in (-15, 143, 137, 125)
    assert shed.containers() == []
    assert shed.mounts() == []


def test_a_killed_run_leaves_a_container_that_can_be_removed(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    script = "echo ready; while :; do sleep 0.05; done"
    process = cowshed.start("run", "--name", "x", "--runtime", runtime, "tools", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    # The runtime is told to end; what it started is gone soon, or killed by force.
    shed.container("x").remove(force=True)
    assert shed.containers() == []
    process.stdout.close()


def test_of_a_killed_run_that_was_to_leave_nothing_the_next_command_leaves_nothing(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    script = "echo ready; trap '' TERM; while [ ! -e /tmp/stop ]; do sleep 0.05; done"
    process = cowshed.start(
        "run", "--rm", "--name", "x", "--runtime", runtime, "tools", "sh", "-c", script
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert b" x\n" in cowshed("ps").stdout
    process.kill()
    process.wait()
    process.stdout.close()
    if runtime in ("runc", "crun"):  # whose process outlives the run
        assert b" x\n" in cowshed("ps").stdout
        assert cowshed("exec", "x", "touch", "/tmp/stop").returncode == 0
    wait_for(lambda: b" x\n" not in cowshed("ps").stdout)
    assert shed.containers() == [] and shed.mounts() == []
    assert [name for name in shed.running.registry.containers() if len(name) == 64] == []


@as_root
def test_what_outlives_its_run_keeps_its_mount(
    cowshed: CommandLine, archive: Path, tmp_path: Path, runtime: str
) -> None:
    if runtime not in ("runc", "crun"):
        pytest.skip("its processes die with the run")
    cowshed.environment |= {"COWSHED_ROOT": str(tmp_path / "shed"), "COWSHED_DRIVER": "chunk-dedup"}
    assert cowshed("import", f"tar:{archive}", "tools").returncode == 0
    script = "trap '' TERM; echo ready; while [ ! -e /tmp/stop ]; do sleep 0.05; done; sleep 1000"
    process = cowshed.start("run", "--name", "x", "--runtime", runtime, "tools", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        assert cowshed("check").returncode == 0
        assert len(json.loads(cowshed("--json", "mount").stdout)) == 1
        refused = cowshed("umount", "x")
        assert refused.returncode == 1 and b"in use" in refused.stderr
        assert cowshed("exec", "x", "touch", "/tmp/new").returncode == 0
        assert b"A /tmp/new" in cowshed("diff", "x").stdout
    finally:
        assert cowshed("rm", "-f", "x").returncode == 0
    assert json.loads(cowshed("--json", "mount").stdout) == []


def test_a_run_that_was_killed_with_its_runtime_is_in_nobodys_way(
    cowshed: CommandLine, shed: Shed, runtime: str
) -> None:
    box = shed.create("tools", "killed")
    registry = shed.running.registry
    cowshed.environment["COWSHED_RUNTIME"] = runtime
    for _ in range(2):
        process = cowshed.start("exec", "killed", "sleep", "1000")
        wait_for(lambda: registry.process(box.id) is not None)
        first = registry.process(box.id)
        assert first is not None
        os.kill(process.pid, signal.SIGSTOP)
        launcher = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in (launcher, first, process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda: registry.process(box.id) is None)
    box.remove()
    assert not [path for path in registry.root.rglob("*") if box.id in path.name]


def test_ps_says_what_runs_and_how_it_ended(cowshed: CommandLine, shed: Shed, runtime: str) -> None:
    shed.create("tools", "fresh")
    process = cowshed.start(
        "run", "--name", "runs", "--runtime", runtime, "tools", "sh", "-c", ENDLESS
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    lines = cowshed("ps").stdout.decode().splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "DRIVER", "CREATED", "STATUS", "NAMES"]
    assert [("Up" in line, "Created" in line) for line in lines[1:]] == [
        (True, False),
        (False, True),
    ]
    statuses = {one["name"]: one["status"] for one in json.loads(cowshed("ps", "--json").stdout)}
    assert statuses == {"runs": "running", "fresh": "created"}
    ran = cowshed("exec", "runs", "sh", "-c", "echo $PPID; exit 4")
    assert (ran.returncode, ran.stdout) == (4, b"0\n")
    refused = cowshed("rm", "runs")
    assert refused.returncode == 1
    assert f"container runs is running (by process {process.pid})".encode() in refused.stderr
    process.terminate()
    assert process.wait(60) == 5
    process.communicate()
    assert "Exited (5)" in cowshed("ps").stdout.decode()
    assert cowshed("exec", "runs", "sh", "-c", "exit 8").returncode == 8
    assert "Exited (8)" in cowshed("ps").stdout.decode()


def test_a_process_is_known_however_late_its_number_was_noted(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    state = begun()
    registry.write("x", state)
    path = registry.home("x") / PID
    path.write_text(str(os.getpid()))
    now = time.time()
    for noted, known in ((now, True), (now + 3600, True), (now - 10**6, False)):
        os.utime(path, (noted, noted))
        assert (registry.process("x") == os.getpid()) is known
    # A clock that was an hour behind, or before, and was set since.
    for wrong in (-3600, 3600):
        os.utime(path, (now + wrong, now + wrong))
        registry.write("x", state._replace(started_ns=state.started_ns + wrong * 10**9))
        assert registry.process("x") == os.getpid()
    registry.write("x", state._replace(boot="another"))
    assert registry.process("x") is None
    registry.write("x", state)
    path.write_text("4194304")
    assert registry.process("x") is None


def test_rm_by_force_ends_what_runs(cowshed: CommandLine, shed: Shed, runtime: str) -> None:
    process = cowshed.start(
        "run", "--name", "runs", "--runtime", runtime, "tools", "sh", "-c", ENDLESS
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert cowshed("rm", "-f", "runs").returncode == 0
    assert process.wait(60) == 137
    process.communicate()
    assert shed.containers() == [] and shed.mounts() == []
    assert not (shed.root / "running" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["run", "nosuch"], 125, "no such image: nosuch"),
        (["run", "--frob", "tools"], 125, "--frob"),
        (["run", "-v", "name:/x", "tools", "true"], 125, "volumes by name aren't kept"),
        (["run", "-w", "relative", "tools", "true"], 125, "must be absolute"),
        (["run", "--runtime", "docker", "tools", "true"], 125, "no runtime is called 'docker'"),
        (["run", "-e", "=x", "tools", "true"], 125, "-e takes NAME=VALUE or NAME"),
        (["run", "--env-file", "/nowhere", "tools", "true"], 125, "/nowhere: No such file"),
        (["run", "-u", "nemo", "tools", "true"], 125, "no user 'nemo' in the container's"),
        (["run", "tools", "nosuch"], 127, "nosuch: not found in $PATH"),
        (["run", "tools", "/etc/passwd"], 126, "permission denied"),
        (["exec", "nosuch", "true"], 125, "no such container: nosuch"),
        (["bundle", "nosuch", "/tmp/x"], 1, "no such container: nosuch"),
    ],
)
def test_what_cant_be_run_gets_one_line(
    cowshed: CommandLine, arguments: list[str], status: int, why: str
) -> None:
    ran = cowshed(*arguments)
    assert ran.returncode == status, ran.stderr
    assert ran.stdout == b""
    assert why in ran.stderr.decode() and ran.stderr.count(b"\n") == 1


@as_root
def test_root_without_the_privilege_gets_one_sentence(
    cowshed: CommandLine, archive: Path, tmp_path: Path, runtime: str
) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv isn't installed")
    cowshed.environment |= {"COWSHED_ROOT": str(tmp_path / "shed"), "COWSHED_DRIVER": "naive-copy"}
    assert cowshed("import", f"tar:{archive}", "tools").returncode == 0
    cowshed.command[:0] = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    ran = cowshed("run", "--rm", "--runtime", runtime, "tools", "true")
    assert ran.returncode == 125 and ran.stderr.count(b"\n") == 1, ran.stderr
    assert b"root lacks the capability SYS_ADMIN here" in ran.stderr
    assert cowshed("ps", "-q").stdout == b""


@as_root
def test_root_gives_no_capability_that_it_lacks(cowshed: CommandLine, runtime: str) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv isn't installed")
    lacking = ["setpriv", "--bounding-set", "-audit_write", *cowshed.command]
    ran = CommandLine(lacking, cowshed.environment)(
        "run", "--rm", "--runtime", runtime, "tools", "true"
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_who_may_make_no_user_namespace_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "max_user_namespaces"
    monkeypatch.setattr(identity, "_NAMESPACE_LIMITS", (str(limit),))
    own = (identity.Range(0, 1000, 1),)
    assert identity.obstacle(identity.Identity(own, own)) is None
    limit.write_text("0\n")
    said = identity.obstacle(identity.Identity(own, own))
    assert said is not None and "can't make a user namespace here" in said


def test_environment_comes_from_options_files_and_us(cowshed: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=from file\nB=from file\n")
    cowshed.environment["OURS"] = "from us"
    ran = cowshed(
        "run", "--rm", "--env-file", str(file), "-e", "B=from option", "-e", "OURS", "-e", "UNSET",
        "tools", "env",
    )  # fmt: skip
    said = dict(line.split("=", 1) for line in ran.stdout.decode().splitlines())
    assert (said["A"], said["B"], said["OURS"]) == ("from file", "from option", "from us")
    assert "UNSET" not in said


def test_options_after_the_image_are_the_commands(cowshed: CommandLine) -> None:
    assert cowshed("run", "--rm", "tools", "ls", "-d", "--", "/tmp").stdout == b"/tmp\n"


def test_the_runtime_is_configured_by_the_environment(cowshed: CommandLine, shed: Shed) -> None:
    cowshed.environment["COWSHED_RUNTIME"] = "plain"
    assert cowshed("run", "--name", "x", "tools", "true").returncode == 0
    assert shed.container("x").inspect()["State"]["Runtime"] == "plain"
    cowshed.environment["COWSHED_RUNTIME"] = ""
    assert cowshed("exec", "--runtime", "plain", "x", "true").returncode == 0
    listed = json.loads(cowshed("runtimes", "--json").stdout)
    assert {one["name"]: one["problem"] for one in listed}["plain"] is None


@pytest.fixture
def with_terminals(runtime: str) -> str:
    if runtime == "bubblewrap":
        pytest.skip("bubblewrap gives no process a terminal of its own")
    return runtime


def test_bubblewrap_says_that_it_has_no_terminals(cowshed: CommandLine) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap isn't installed")
    ran = cowshed("run", "--rm", "-t", "--runtime", "bubblewrap", "tools", "true")
    assert ran.returncode == 125
    assert b"it gives no process a terminal of its own" in ran.stderr


# -- terminals -------------------------------------------------------------------------------------


class Typist:
    """A person at a terminal of 40 columns and 10 lines."""

    def __init__(self, cowshed: CommandLine, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(10, 40)
        self.seen = b""

        def own_terminal() -> None:
            heed_signals()
            os.setsid()
            ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*cowshed.command, *arguments],
            env=cowshed.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=own_terminal,
        )
        os.close(slave)

    def resize(self, lines: int, columns: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def expect(self, text: bytes) -> None:
        def read() -> bool:
            while select.select([self.master], [], [], 0)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    break
                if not data:
                    break
                # runc 1.1 lets a process write before it has set its terminal up, and so the
                # carriage return of its first lines comes twice.
                self.seen = (self.seen + data).replace(b"\r\r\n", b"\r\n")
            return text in self.seen

        try:
            wait_for(read)
        except AssertionError:
            raise AssertionError(f"{text!r} isn't in {self.seen!r}") from None
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        status = self.process.wait(60)
        os.close(self.master)
        return status


def test_a_terminal_is_one_and_follows_the_callers_size(
    cowshed: CommandLine, with_terminals: str
) -> None:
    one = Typist(cowshed, "run", "--rm", "-it", "--runtime", with_terminals, "tools", "sh")
    one.type(b"stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo all-$TERM\r")
    one.expect(b"10 40\r\n")
    one.expect(b"/dev/")
    one.expect(b"all-xterm\r\n")
    one.resize(33, 99)
    one.type(b'until [ "$(stty size)" = "33 99" ]; do :; done; stty size\r')
    one.expect(b"33 99\r\n")
    one.type(b"exit 6\r")
    assert one.end() == 6


def test_keys_are_the_processs(cowshed: CommandLine, with_terminals: str) -> None:
    one = Typist(
        cowshed, "run", "--rm", "-it", "--runtime", with_terminals, "tools", "sh", "-c", ENDLESS
    )
    one.expect(b"ready\r\n")
    one.type(b"\x03")
    one.expect(b"got INT\r\n")
    assert one.end() == 7


def test_the_callers_terminal_is_put_back(cowshed: CommandLine) -> None:
    one = Typist(cowshed, "run", "--rm", "-it", "tools", "sh", "-c", "echo ready; read x; exit 2")
    before = termios.tcgetattr(one.master)
    one.expect(b"ready\r\n")
    assert termios.tcgetattr(one.master) != before
    one.type(b"\r")
    one.process.wait(60)
    assert termios.tcgetattr(one.master)[3] == before[3]
    assert one.end() == 2


def test_exec_gets_a_terminal_too(cowshed: CommandLine, shed: Shed, with_terminals: str) -> None:
    process = cowshed.start(
        "run", "--name", "runs", "--runtime", with_terminals, "tools", "sh", "-c", ENDLESS
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    one = Typist(cowshed, "exec", "-it", "runs", "bash", "-c", SIZE)
    one.expect(b"10 40\r\n")
    one.type(b"\r")
    assert one.end() == 3
    process.terminate()
    process.communicate(timeout=60)


def test_a_terminal_takes_much_input(cowshed: CommandLine, with_terminals: str) -> None:
    """While nobody reads what the terminal says of it."""
    many = 20_000
    given = b"".join(b"line %d\n" % number for number in range(many))
    ran = cowshed(
        "run", "--rm", "-it", "--runtime", with_terminals, "tools", "cat", input=given
    )  # fmt: skip
    assert ran.returncode == 0
    assert b"line %d\r\n" % (many - 1) in ran.stdout


def test_a_terminals_output_waits_for_who_reads_it(
    cowshed: CommandLine, with_terminals: str
) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    process = subprocess.Popen(
        [*cowshed.command, "run", "--rm", "-t", "--runtime", with_terminals, "tools",
         "head", "-c", "1000000", "/dev/zero"],
        env=cowshed.environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(lambda: not select.select([], [theirs], [], 0)[1] or process.poll() is not None)
    os.close(theirs)
    with open(ours, "rb") as file:
        assert file.read() == bytes(1_000_000)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0


def test_a_terminal_without_one_of_ours(cowshed: CommandLine, with_terminals: str) -> None:
    ran = cowshed(
        "run",
        "--rm",
        "-t",
        "--runtime",
        with_terminals,
        "tools",
        "sh",
        "-c",
        "test -t 1 && echo yes",
    )
    assert (ran.returncode, ran.stdout) == (0, b"yes\r\n")
