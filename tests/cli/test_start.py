"""What a command imports, because that is most of what a short one costs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = {"rich", "zstandard", "pyfastcdc", "importlib.metadata", "asyncio", "email"}


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys, json, io\n"
        "from cowshed.cli.main import main\n"
        "out, sys.stdout = sys.stdout, io.StringIO()\n"
        f"main({list(arguments)!r})\n"
        "json.dump(sorted(sys.modules), out)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return set(json.loads(ran.stdout))


def test_help_loads_no_driver_and_no_heavy_library(cowshed: Any) -> None:
    modules_after("--help")  # what is installed has been seen once
    loaded = modules_after("--help")
    assert not loaded & (HEAVY | {"lmdb", "attr"})
    # Plugins that bring commands are asked which.
    registrations = {"cowshed_benchmarks.plugin", "cowshed_plugins.registry.commands"}
    assert registrations <= loaded
    packages = {name.rpartition(".")[0] for name in registrations} | {"cowshed_plugins"}
    ours = {name for name in loaded if name.startswith(("cowshed_", "cowshed.driver"))}
    assert ours == registrations | packages


def test_ps_loads_neither_plugins_nor_what_they_need(cowshed: Any) -> None:
    modules_after("ps")
    loaded = modules_after("ps")
    assert "lmdb" in loaded
    assert not loaded & (HEAVY | {"pluggy", "attr", "cowshed.sweep", "cowshed.oci", "hashlib"})
    assert not {name for name in loaded if name.startswith("cowshed_")}


def test_importing_a_driver_registration_loads_no_driver(cowshed: Any) -> None:
    cowshed("create", "scratch", "--driver", "naive-copy")
    loaded = modules_after("create", "scratch", "--driver", "naive-copy")
    assert "cowshed_drivers.chunk_dedup.plugin" in loaded
    assert not loaded & {"pyfastcdc", "cowshed_drivers.chunk_dedup.driver"}


def test_ps_with_ten_thousand_containers_asks_no_driver(cowshed: Any) -> None:
    cowshed("create", "scratch", "--count", "10000", "--driver", "chunk-dedup")
    assert len(cowshed("ps").lines) == 10_001
    modules_after("ps")
    loaded = modules_after("ps")
    assert not {name for name in loaded if name.startswith("cowshed_drivers")}


@pytest.mark.parametrize("driver", ["overlayfs", "hardlink-farm", "chunk-dedup"])
def test_run_loads_little_of_the_standard_library_and_of_us(cowshed: Any, driver: str) -> None:
    # There is no such program, so all is done but to start it.
    call = ("run", "--rm", "--driver", driver, "scratch", "/no/such")
    first = cowshed.try_(*call)
    if "can't run here" in first.err:
        pytest.skip(first.err)
    modules_after(*call)
    loaded = modules_after(*call)
    assert {"cowshed.shed", "cowshed.running.process"} <= loaded
    giants = {"concurrent.futures", "csv", "dataclasses", "http", "logging", "multiprocessing"}
    giants |= {"ssl", "tempfile", "urllib.request", "zipfile"}
    needed = {"zstandard"} if driver == "chunk-dedup" else set[str]()
    assert sorted(loaded & ((HEAVY | giants) - needed)) == []
    ours = {"archive", "importing", "layer", "mounting.erofs", "oci.manifest", "transport"}
    assert not loaded & {f"cowshed.{name}" for name in ours}
