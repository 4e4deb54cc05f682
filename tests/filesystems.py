"""File systems for tests: XFS, btrfs or ext4 in an image file, loop-mounted for as long as needed.

    python tests/filesystems.py KIND DIRECTORY OWNER [OPTION …]

mounts one at DIRECTORY/mounted and says so in a line, waits for its standard input to end, unmounts
and removes DIRECTORY. It is a process of its own so that a pytest that is killed leaves no mount:
its end of the pipe goes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

#: How to make each kind, and which package has it.
MAKE = {
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], "xfsprogs"),
    "btrfs": (["mkfs.btrfs", "-q"], "btrfs-progs"),
    "ext4": (["mkfs.ext4", "-q"], "e2fsprogs"),
}
#: Sparse: what isn't written takes nothing.
SIZE = 4 << 30
#: Seconds for mkfs and mount on a busy machine, and for the last user to let go.
PATIENCE = 60
#: Where others mounted them for us, by kind: an ordinary user can't.
VARIABLE = "TESTS_{}_DIRECTORY"


class Unavailable(Exception):
    """This machine can't mount one; says why."""


def given(kind: str) -> Path | None:
    """Return the directory on such a file system that whoever started the tests gave us."""
    path = os.environ.get(VARIABLE.format(kind.upper()))
    return Path(path) if path else None


@contextmanager
def mounted(kind: str, *options: str, owner: int | None = None) -> Generator[Path]:
    """Mount a new file system; its root, mode 0755, belongs to user and group ``owner``.

    Raises:
        Unavailable: privilege, mkfs or loop devices are missing.
    """
    command, package = MAKE[kind]
    if os.geteuid() != 0:
        raise Unavailable(f"mounting {kind} takes root")
    if _tool(command[0]) is None:
        raise Unavailable(f"{command[0]} isn't installed (package {package})")
    directory = Path(tempfile.mkdtemp(prefix=f"cowshed-{kind}-"))
    directory.chmod(0o755)
    user = str(os.geteuid() if owner is None else owner)
    keeper = subprocess.Popen(
        [sys.executable, __file__, kind, str(directory), user, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for pytest
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        said = keeper.stdout.readline()
        if said != "mounted\n":
            said += keeper.stdout.read()
            raise Unavailable(f"{kind} can't be mounted here: {' '.join(said.split())}")
        yield directory / "mounted"
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def _tool(name: str) -> str | None:
    # Not on everybody's PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _keep(kind: str, directory: Path, owner: int, options: list[str]) -> int:
    place, image = directory / "mounted", directory / "image"
    try:
        place.mkdir()
        with image.open("xb") as file:
            file.truncate(SIZE)
        command, _ = MAKE[kind]
        arguments = ["-o", ",".join(["loop", *options])]
        for step in (
            [_tool(command[0]) or command[0], *command[1:], str(image)],
            [_tool("mount") or "mount", "-t", kind, *arguments, str(image), str(place)],
        ):
            done = subprocess.run(
                step, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
            )
            if done.returncode != 0:
                print(done.stderr, flush=True)
                return 1
        try:
            place.chmod(0o755)
            os.chown(place, owner, owner)
            print("mounted", flush=True)
            sys.stdin.read()
        finally:
            _unmount(place)
        return 0
    finally:
        image.unlink(missing_ok=True)
        place.rmdir()
        directory.rmdir()


def _unmount(place: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    command = [_tool("umount") or "umount", str(place)]
    while subprocess.run(command, capture_output=True).returncode != 0:
        if time.monotonic() > deadline:
            # A process that hangs in it keeps it; without a name it goes when that does.
            subprocess.run([*command, "--lazy"], check=True)
            return
        time.sleep(0.1)


if __name__ == "__main__":
    kind, directory, owner, *options = sys.argv[1:]
    sys.exit(_keep(kind, Path(directory), int(owner), options))
