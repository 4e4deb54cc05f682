"""The file systems that other tests stand on: there while needed, gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .filesystems import MAKE, Unavailable, mounted


def mounts() -> list[tuple[str, str]]:
    """Return place and kind of everything mounted."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [(line.split()[1], line.split()[2]) for line in lines]


@pytest.mark.parametrize("kind", MAKE)
def test_a_file_system_is_mounted_and_leaves_nothing_even_if_a_test_fails(kind: str) -> None:
    places: list[Path] = []
    try:
        with pytest.raises(ZeroDivisionError), mounted(kind, owner=65534) as path:
            places.append(path)
            assert (str(path), kind) in mounts()
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (65534, 0o755)
            raise ZeroDivisionError
    except Unavailable as error:
        pytest.skip(str(error))
    for path in places:
        assert not path.parent.exists()
        assert str(path) not in dict(mounts())


def test_options_that_the_kind_does_not_know_are_named() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    with pytest.raises(Unavailable, match="ext4"), mounted("ext4", "nonsense"):
        pass


def test_killing_the_tests_unmounts() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from filesystems import Unavailable, mounted\n"
        "try:\n"
        "    with mounted('ext4') as path:\n"
        "        print(path, flush=True)\n"
        "        sys.stdin.read()\n"
        "except Unavailable as error:\n"
        "    print(error)\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode().rstrip()
        path = Path(said)
        mounted_it = path.is_mount()
        process.send_signal(signal.SIGKILL)
    if not said.startswith("/"):
        pytest.skip(said)
    assert mounted_it
    deadline = time.monotonic() + 60
    while path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.parent.exists()
