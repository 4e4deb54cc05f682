"""The native drivers without privilege: the whole kit as an ordinary user.

Run as root, the kit runs once more in a child process that gave root up for good; for overlayfs, in
a user namespace that the child made. Run as a user, ``test_naive_copy`` and ``test_hardlink_farm``
are that case already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
HERE = Path(__file__).parent

# All is imported first: the interpreter may live where only root can look.
CHILD = """
import ctypes, importlib, os, pkgutil, sys
import pytest, _pytest, hypothesis, hypothesis.stateful, hypothesis.strategies
import sqlite3, multiprocessing.popen_fork, multiprocessing.synchronize, concurrent.futures
import cowshed.testing, cowshed_drivers.naive_copy.driver, cowshed_drivers.hardlink_farm.driver
import cowshed_drivers.overlayfs.driver, cowshed.sqlite, urllib.parse
try:
    import numpy.random  # where there is one, hypothesis seeds it too
except ImportError:
    pass
import encodings, pdb, doctest, unittest.mock, xml.dom, pprint, difflib, timeit
for package in (_pytest, cowshed.testing, hypothesis, encodings):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not any(word in module.name for word in ("extra", "__main__", "testing.registered")):
            try:
                importlib.import_module(module.name)
            except ImportError:
                pass
base, file, namespace, *rest = sys.argv[1:]
os.environ.update(HOME=base, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(0o077)
for path in ("/proc/1/environ", "/etc/shadow"):
    assert not os.access(path, os.R_OK), "privilege remains"
if namespace:
    child = os.fork()  # has one thread, as unshare asks for, whatever was imported
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(4, 1)  # PR_SET_DUMPABLE: or /proc/self would be root's
    if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
        sys.exit(f"no user namespace: {os.strerror(ctypes.get_errno())}")
    for name, line in ("setgroups", "deny"), ("uid_map", "0 65534 1"), ("gid_map", "0 65534 1"):
        with open(f"/proc/self/{name}", "w") as map:
            map.write(line)
sys.dont_write_bytecode = True
os.chdir(base)
sys.exit(pytest.main([
    file, "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={base}", f"--basetemp={base}/t", *rest,
]))
"""

KIT = """
import os, sys
from pathlib import Path
from cowshed.testing import DriverConformance
from cowshed_drivers.{package}.driver import {name}
from cowshed_drivers.{package}.plugin import SPEC

class TestUnprivileged(DriverConformance):
    spec = SPEC
    # Another process needs an interpreter that this user may run.
    processes = os.access(os.path.realpath(sys.executable), os.X_OK)

    def open_driver(self, root):
        driver = {name}(root)
        driver.durable = False
        # What the namespace calls root may be no other user either.
        assert os.geteuid() == 0 or driver.hosting.owner is not None
        return driver
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other test files run without privilege already")
@pytest.mark.parametrize(
    ("package", "name", "namespace"),
    [
        ("naive_copy", "NaiveCopy", ""),
        ("hardlink_farm", "HardlinkFarm", ""),
        ("overlayfs", "Overlayfs", "in a namespace"),
    ],
)
def test_the_kit_passes_for_an_ordinary_user(package: str, name: str, namespace: str) -> None:
    # Not below tmp_path, whose parents are closed to others.
    base = Path(tempfile.mkdtemp(prefix="cowshed-"))
    try:
        base.chmod(0o700)
        os.chown(base, NOBODY, NOBODY)
        file = base / "test_kit.py"
        file.write_text(KIT.format(package=package, name=name))
        file.chmod(0o644)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        result = subprocess.run(
            [sys.executable, "-c", CHILD, str(base), str(file), namespace],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if result.stderr.startswith("no user namespace"):
            pytest.skip(result.stderr.strip())
        assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
        assert " passed" in result.stdout
    finally:
        shutil.rmtree(base)
