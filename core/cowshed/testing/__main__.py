"""Run the conformance kit on a registered driver:

    python -m cowshed.testing DRIVER [--thorough] [--root DIR] [-k EXPR] [PYTEST OPTION …]

The exit status is pytest's: 0 all promises are kept, 1 some are broken, 4 the driver can't be
tested (unknown, refused, or unable to run there).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..config import load_config
from ..errors import CowshedError
from ..interface import load_driver, probe
from ..plugin_manager import Plugins
from .kit import TESTED_DRIVER

_TESTS_FAILED, _USAGE_ERROR = 1, 4

_INI = """[pytest]
addopts = -p cowshed.testing.plugin -p no:cacheprovider --noconftest --import-mode=importlib -ra
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit and return pytest's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cowshed.testing",
        description="Run the conformance kit on a registered driver.",
        epilog="Other options are pytest's, as -x, -n 2 or --durations=10.",
    )
    parser.add_argument("driver", metavar="DRIVER", help="name, as in 'cowshed drivers'")
    parser.add_argument(
        "--thorough", action="store_true", help="look closer, for minutes instead of seconds"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="where stores are made: a directory on the file system to test the driver on",
    )
    parser.add_argument("-k", metavar="EXPR", help="only the tests that match, as pytest's -k")
    found, others = parser.parse_known_args(arguments)
    try:
        place = Path(tempfile.mkdtemp(prefix="cowshed-kit-", dir=found.root))
    except OSError as error:
        print(f"--root: {error}", file=sys.stderr)
        return _USAGE_ERROR
    status = _USAGE_ERROR
    try:
        problem = _problem(found.driver, place)
        if problem:
            print(problem, file=sys.stderr)
            return status
        own = ["--thorough"] if found.thorough else []
        own += ["-k", found.k] if found.k else []
        status = _run_pytest(found.driver, place, [*own, *others])
    finally:
        if status == _TESTS_FAILED:
            print(f"What failing tests left is in {place}", file=sys.stderr)
        else:
            shutil.rmtree(place, ignore_errors=True)
    return status


def _run_pytest(driver: str, place: Path, options: Sequence[str]) -> int:
    """Run pytest in a process of its own: in this one the kit is imported already, too early for
    its assertions to be rewritten."""
    ini = place / "pytest.ini"
    ini.write_text(_INI)
    tests = Path(__file__).with_name("registered.py")
    # Everything that tests make goes to TMPDIR, by whatever way they ask for a directory.
    environment = {**os.environ, TESTED_DRIVER: driver, "TMPDIR": str(place)}
    command = [sys.executable, "-m", "pytest", "-c", str(ini), *options, str(tests)]
    return subprocess.call(command, env=environment)


def _problem(name: str, root: Path) -> str | None:
    """Say why the driver can't be tested."""
    try:
        plugins = Plugins()
        plugins.load(load_config())
        spec = plugins.drivers.find(name)
        load_driver(spec)
        reason = probe(spec, root)
    except CowshedError as error:
        return str(error)
    return f"driver {name} can't run in {root}: {reason}" if reason else None


if __name__ == "__main__":
    sys.exit(main())
