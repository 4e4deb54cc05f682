"""What goes wrong is one line and an exit status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cowshed.cli.failures import explain, report


def test_an_unknown_command_suggests_the_nearest(cowshed: Any) -> None:
    ran = cowshed.try_("imagse")
    assert ran.status == 2
    assert (
        ran.err
        == "cowshed: no such command: imagse; did you mean 'images'?; see 'cowshed --help'\n"
    )


def test_an_unknown_option_is_a_wrong_call(cowshed: Any) -> None:
    ran = cowshed.try_("ps", "--what")
    assert ran.status == 2
    assert ran.err.startswith("cowshed: No such option")
    assert ran.err.count("\n") == 1


def test_a_missing_image_is_one_line_with_the_nearest_name(cowshed: Any, image: str) -> None:
    ran = cowshed.try_("create", "bace:1")
    assert (ran.status, ran.err) == (1, "cowshed: no such image: bace:1; did you mean 'base:1'?\n")


def test_an_unknown_driver_is_named_with_the_nearest(cowshed: Any, image: str) -> None:
    ran = cowshed.try_("create", image, "--driver", "naive-cope")
    assert ran.status == 1
    assert "did you mean 'naive-copy'" in ran.err


def test_a_wrong_setting_is_a_wrong_call(cowshed: Any) -> None:
    ran = cowshed.try_("--set", "durability=some", "ps")
    assert ran.status == 2
    assert 'must be "full" or "none"' in ran.err


def test_a_wrong_driver_option_is_explained_without_python(cowshed: Any, image: str) -> None:
    arguments = ("--driver", "chunk-dedup")
    assert cowshed.try_(*arguments, "create", image).status == 0
    for setting, message in {
        "threads=two": ": threads must be a whole number, not 'two'",
        "compression_level=99": ": 'compression_level' must be <= 19: 99",
        "threds=2": " has no option 'threds'; did you mean 'threads'?",
    }.items():
        ran = cowshed.try_("--set", f"drivers.chunk-dedup.{setting}", *arguments, "create", image)
        assert (ran.status, ran.err) == (2, f"cowshed: driver chunk-dedup{message}\n")


def test_an_export_to_a_missing_directory_names_the_directory(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    ran = cowshed.try_("export", container, "-o", tmp_path / "missing/x.tar")
    assert ran.status == 1
    assert ran.err == f"cowshed: directory {tmp_path / 'missing'} doesn't exist; make it first\n"


def test_a_missing_file_in_a_container_is_named(cowshed: Any, container: str) -> None:
    ran = cowshed.try_("cat", container, "/etc/nothing")
    assert ran.status == 1
    assert "etc/nothing: No such file or directory" in ran.err


def test_a_full_disk_says_so() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/shed/tmp/x")
    assert explain(full)[0].startswith("disk full: /shed/tmp/x: No space left on device")


def test_what_nobody_foresaw_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("x")) == 1
    assert capsys.readouterr().err.startswith("cowshed: internal error, please report it: KeyError")


def test_an_interruption_has_the_status_of_a_shell() -> None:
    assert explain(KeyboardInterrupt())[1] == 130


def test_debugging_shows_the_traceback(
    cowshed: Any, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COWSHED_DEBUG", "1")
    ran = cowshed.try_("cat", container, "/nothing")
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("cowshed: ")


def test_a_reader_that_goes_away_is_no_error(cowshed: Any, container: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(1 << 20))
    cowshed("cp", tmp_path / "large", f"{container}:/large")
    command = f"{sys.executable} -m cowshed cat {container} /large | head -c 10 >/dev/null"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert ran.stderr == b""


def test_the_module_can_be_run_and_gives_exit_statuses(cowshed: Any) -> None:
    assert cowshed.process("--version").stdout.startswith(b"cowshed ")
    assert cowshed.process("nothing").returncode == 2
    assert cowshed.process("create", "nothing").returncode == 1
