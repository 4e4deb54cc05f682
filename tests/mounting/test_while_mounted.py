"""What is said of a container while processes write in its mount."""

from __future__ import annotations

import io
import mmap
import os
import subprocess
import sys
import tarfile
import time

from cowshed.container import Container

from .conftest import Stable
from .pictures import differences, of_directory, of_tree


def _changes(container: Container) -> list[str]:
    return [f"{change.kind.value} {change.path}" for change in container.diff()]


def _exported(container: Container) -> dict[str, bytes]:
    out = io.BytesIO()
    container.export(out)
    out.seek(0)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=out) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() or member.islnk() else None
            found[member.name.rstrip("/")] = b"" if file is None else file.read()
    return found


def test_diff_sizes_export_commit_and_fork_are_exact_while_mounted(stable: Stable) -> None:
    container = stable.container()
    with container.mounted() as path:
        assert (_changes(container), container.usage().apparent) == ([], 0)
        (path / "etc/new").write_bytes(b"n" * 1234)
        os.unlink(path / "etc/deep/other")
        with (path / "usr/lib/big").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            size = len(memory)
            memory[5_000:5_005] = b"first"
            assert _changes(container) == [
                *("C etc", "C etc/deep", "D etc/deep/other", "A etc/new", "C usr", "C usr/lib"),
                "C usr/lib/big",
            ]
            assert container.usage().apparent == 1234 + size
            assert _exported(container)["usr/lib/big"][5_000:5_005] == b"first"
            # Nothing but memory is written to from here: no call tells anybody.
            memory[5_000:5_005] = b"again"
            exported = _exported(container)
            assert exported["usr/lib/big"] == bytes(memory)
            assert exported["etc/new"] == b"n" * 1234
            assert "etc/deep/other" not in exported
            image = container.commit("while-mounted")
            memory[5_000:5_005] = b"later"
            fork = container.fork()
        seen = of_directory(path)
        with fork.tree() as tree:
            assert tree.read_bytes("usr/lib/big")[5_000:5_005] == b"later"
            assert differences(seen, of_tree(tree)) == []
        with stable.shed.create(image.id).tree() as tree:
            assert tree.read_bytes("usr/lib/big")[5_000:5_005] == b"again"
            assert tree.read_bytes("etc/new") == b"n" * 1234
            assert not tree.exists("etc/deep/other")
        sizes = container.usage()
    assert container.usage() == sizes
    stable.assert_layer_whole(container)


WRITER = """
import os, sys
top = sys.argv[1]
log = os.open(top + "/etc/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while not os.path.exists(top + "/stop"):
    with open(f"{top}/etc/aside", "w") as file:
        file.write(f"{number}\\n" * 1000)
    os.rename(f"{top}/etc/aside", f"{top}/etc/whole")
    os.write(log, b"%9d\\n" % number)
    number += 1
print(number)
"""


def test_what_is_committed_while_a_process_writes_was_there_at_some_time(stable: Stable) -> None:
    """A file that is replaced by renaming is one version or another, never parts of two; one that
    is appended to has all lines up to some one."""
    container = stable.container()
    with container.mounted() as path:
        command = [sys.executable, "-c", WRITER, str(path)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 60
            while not (path / "etc/whole").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            logs: list[int] = []
            for number in range(6):
                if number % 2:
                    copy = container.fork()
                else:
                    copy = stable.shed.create(container.commit(f"during-{number}").id)
                exported = _exported(container)
                assert len(set(exported["etc/whole"].split())) == 1
                container.diff()
                with copy.tree() as tree:
                    whole = tree.read_bytes("etc/whole").split()
                    assert len(whole) == 1000 and len(set(whole)) == 1
                    lines = tree.read_bytes("etc/log").splitlines()
                assert lines == [b"%9d" % one for one in range(len(lines))]
                logs.append(len(lines))
            assert logs == sorted(logs)
        finally:
            (path / "stop").touch()
            out, _ = writer.communicate(timeout=60)
        stable.assert_exact(container, path)
        assert len((path / "etc/log").read_bytes().splitlines()) == int(out)
    stable.assert_layer_whole(container)
    stable.shed.remove_containers([one.id for one in stable.shed.containers()])
