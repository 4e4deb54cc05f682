"""Real programs in a real image, on every driver. It takes a network and many minutes, so only with
COWSHED_THOROUGH=1; COWSHED_REAL_ROOTFS is the image's tar if it is there already."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cowshed import Container, Shed
from cowshed.errors import DriverError
from cowshed.testing.oracle import Picture, differences, look, look_natively

from . import programs
from .helpers import as_root
from .test_every_driver import DRIVERS

pytestmark = [
    as_root,
    pytest.mark.skipif(not os.environ.get("COWSHED_THOROUGH"), reason="COWSHED_THOROUGH isn't set"),
]

#: Python's own tests take their time.
PATIENCE = 3600


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian root file system with tools, as a tar."""
    given = os.environ.get("COWSHED_REAL_ROOTFS")
    if given:
        return Path(given)
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap isn't installed")
    path = tmp_path_factory.mktemp("debian") / "root.tar"
    made = subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(programs.PACKAGES)}",
         '--aptopt=Acquire::Languages "none"', programs.SUITE, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"mmdebstrap: {made.stderr.strip().splitlines()[-1]}")
    return path


@pytest.fixture(scope="module", params=DRIVERS)
def stable(
    request: pytest.FixtureRequest,
    debian: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mount: Callable[..., Path],
) -> Iterator[Shed]:
    place = tmp_path_factory.mktemp(request.param) / "shed"
    if request.param == "reflink":
        place = mount("xfs") / f"programs-{os.getpid()}"
    with Shed(place, driver=request.param, overrides={"durability": "none"}) as shed:
        try:
            shed.import_image(f"tar:{debian}", "debian")
        except DriverError as error:
            pytest.skip(str(error))
        yield shed
        assert shed.containers() == [] and shed.mounts() == []
        assert [one for one in shed.check(deep=True) if one.severity != "notice"] == []
    shutil.rmtree(place)


@pytest.fixture
def box(stable: Shed) -> Iterator[Container]:
    container = stable.create("debian")
    yield container
    container.remove(force=True)


def require_seen(root: str, picture: Picture) -> None:
    """Fail unless processes see at ``root`` what the driver says."""
    look_natively(root, picture)
    for path, one in picture.items():
        status = os.lstat(os.path.join(root, path))
        seen = (status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
        assert seen == (one.uid, one.gid, one.mtime_ns, one.rdev), path
        if not stat.S_ISLNK(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == one.mode, path


@pytest.mark.parametrize("name", programs.SCRIPTS)
def test_a_program_works_and_what_it_did_is_exact(
    box: Container, name: str, tmp_path: Path
) -> None:
    programs.make_wheel(tmp_path)
    with box.mounted() as path:
        command = ["sh", "-euc", programs.SCRIPTS[name]]
        ended = box.run(command, capture=True, volumes=[(tmp_path, "/mnt", "ro")], timeout=900)
        assert ended.stdout is not None and ended.stderr is not None
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace")
        assert ended.status == 0 and ended.stdout.endswith(b"DONE\n"), said[-3000:]
        changed = [change.path for change in box.diff()]
        with box.tree() as tree:
            seen = look(tree)
        require_seen(os.fspath(path), seen)
    assert changed and not {"proc", "dev", "etc/hosts"} & set(changed)
    with box.tree() as tree:
        assert differences(seen, look(tree)) == []
    assert [change.path for change in box.diff()] == changed


def _failures(text: str) -> set[str]:
    """Return the tests that failed, by unittest's own summary."""
    return set(re.findall(r"^(?:FAIL|ERROR): (.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("suite", programs.SUITES)
def test_pythons_own_tests_fail_nowhere_else_than_outside(
    box: Container, suite: str, debian: Path, outside: Callable[[str], set[str]]
) -> None:
    ended = box.run(["sh", "-c", programs.SUITE_RUN, suite], capture=True, timeout=1800)
    assert ended.stdout is not None and ended.stderr is not None
    said = (ended.stdout + ended.stderr).decode("utf-8", "replace")
    assert "Total tests: run=" in said or "Ran " in said, said[-3000:]
    assert _failures(said) - outside(suite) == set(), said[-3000:]


@pytest.fixture(scope="session")
def outside(
    debian: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], set[str]]]:
    """Run a suite in a plain directory: same programs, same namespaces, no driver's mount."""
    known: dict[str, set[str]] = {}
    root = tmp_path_factory.mktemp("outside") / "root"
    root.mkdir()
    subprocess.run(["tar", "-xpf", debian, "-C", root], check=True)

    def run(suite: str) -> set[str]:
        if suite not in known:
            command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"]
            command += ["chroot", os.fspath(root), "sh", "-c", programs.SUITE_RUN, suite]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
            known[suite] = _failures(done.stdout + done.stderr)
        return known[suite]

    yield run
    shutil.rmtree(root)
