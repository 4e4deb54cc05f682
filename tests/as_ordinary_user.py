"""Run pytest as an ordinary user, for root: what needs no privilege must work without it.

    python tests/as_ordinary_user.py [PYTEST ARGUMENT …]

Root's checkout, environment and interpreter may lie where nobody else can look, so what is needed
of them is copied to a temporary directory, and the file systems that only root can mount are
mounted. Run by an ordinary user this does nothing: the first run was it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filesystems

NOBODY = 65534
#: Whose numbers are the container's other users, where tests run processes.
FIRST_SUBORDINATE = 1_000_000
PROJECT = Path(__file__).resolve().parent.parent
COPIED = ("core", "drivers", "plugins", "benchmarks", "tests", "README.md", "pyproject.toml")
COPIED += ("Makefile", ".importlinter", "LICENSE")
#: Of the environment, what tests don't import and is large.
NOT_NEEDED = ("mypy*", "pyright*", "ruff*", "pip", "setuptools", "__pycache__", "nodeenv*")


def main(arguments: list[str]) -> int:
    """Copy, drop privileges, run pytest, clean up."""
    if os.geteuid() != 0:
        return 0
    with ExitStack() as mounts, tempfile.TemporaryDirectory(prefix="cowshed-nobody-") as made:
        place = Path(made)
        place.chmod(0o755)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COWSHED_", "XDG_", "PYTHON")) or name == "COWSHED_THOROUGH"
        }
        for name in ("home", "tmp"):
            (place / name).mkdir(mode=0o700)
            os.chown(place / name, NOBODY, NOBODY)
        project = place / "project"
        project.mkdir()
        for name in COPIED:
            _copy(PROJECT / name, project / name)
        site = place / "site-packages"
        _copy(Path(sysconfig.get_path("purelib")), site, *NOT_NEEDED)
        interpreter = _interpreter(place, environment)
        sources = [str(project / name) for name in ("core", "drivers", "plugins", "benchmarks")]
        environment |= {
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "USER": "nobody",
            "LOGNAME": "nobody",
            "PYTHONPATH": os.pathsep.join([*sources, str(site)]),
            # Subprocesses of tests would compile all they import again and again.
            "PYTHONPYCACHEPREFIX": str(place / "home/pycache"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "home/hypothesis"),
        }
        for kind in filesystems.MAKE:
            try:
                mounted = mounts.enter_context(filesystems.mounted(kind, owner=NOBODY))
            except filesystems.Unavailable as error:
                print(f"note: {error}; tests that need it are skipped", flush=True)
            else:
                environment[filesystems.VARIABLE.format(kind.upper())] = str(mounted)
        mounts.enter_context(_fuse_for_all())
        print(f"Once more as an ordinary user (uid {NOBODY}):", flush=True)
        _readable(place)
        return _as_nobody(
            [interpreter, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            project,
            environment,
        )


@contextmanager
def _fuse_for_all() -> Iterator[None]:
    """Let everybody open /dev/fuse for a while, as udev's rules do on a machine that has udev."""
    try:
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        os.chmod("/dev/fuse", 0o666)
    except OSError as error:
        print(f"note: {error}; tests that need FUSE are skipped", flush=True)
        yield
        return
    try:
        yield
    finally:
        os.chmod("/dev/fuse", mode)


def _copy(source: Path, target: Path, *ignored: str) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", *ignored)
        shutil.copytree(source, target, symlinks=True, ignore=ignore)
    elif source.exists():
        shutil.copy2(source, target)


def _readable(place: Path) -> None:
    """Let others read what was copied from a checkout made under a strict umask."""
    for directory, _, files in os.walk(place / "project"):
        os.chmod(directory, 0o755)
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444)


def _interpreter(place: Path, environment: dict[str, str]) -> str:
    """Return an interpreter that nobody can run: root's own if it is reachable, else a copy."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix, "bin", version)
    if _reachable(own) and _reachable(Path(sysconfig.get_path("stdlib"))):
        return str(own)
    copy = place / "python"
    (copy / "bin").mkdir(parents=True)
    (copy / "lib").mkdir()
    shutil.copy2(own, copy / "bin" / version)
    library = Path(sysconfig.get_path("stdlib"))
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy2(shared, copy / "lib", follow_symlinks=False)
    _copy(library, copy / "lib" / version, "test", "site-packages", "idlelib", "config-*")
    environment["LD_LIBRARY_PATH"] = str(copy / "lib")
    return str(copy / "bin" / version)


def _reachable(path: Path) -> bool:
    path = path.resolve()
    return path.exists() and all(
        step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents)
    )


#: Shows who has which subordinate IDs (subuid(5)), to this process and its children alone.
_WITH_IDS = """
mount --bind "$IDS" /etc/subuid && mount --bind "$IDS" /etc/subgid ||
    echo "note: no subordinate IDs; tests that need them are skipped"
exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups "$@"
"""


def _as_nobody(command: list[str], cwd: Path, environment: dict[str, str]) -> int:
    tools = ("unshare", "setpriv", "newuidmap", "newgidmap")
    if all(map(shutil.which, tools)) and os.path.exists("/etc/subuid"):
        ids = cwd.parent / "subordinate"
        ids.write_text(f"{NOBODY}:{FIRST_SUBORDINATE}:65536\n")
        start = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _WITH_IDS, "sh"]
        own = {"IDS": str(ids), "NOBODY": str(NOBODY)}
        return subprocess.run(
            [*start, *command], cwd=cwd, env=environment | own, stdin=subprocess.DEVNULL
        ).returncode
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
