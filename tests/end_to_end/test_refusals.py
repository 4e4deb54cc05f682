"""What can't be done is said in one clear line, and leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.records import LeaseRecord

from .helpers import DRIVERS, ROOT, assert_consistent, cowshed, manifest_of, must, refused


@contextmanager
def mounted(*arguments: object, at: Path) -> Iterator[None]:
    """Mount something for as long as it is needed; needs root."""
    if not ROOT:
        pytest.skip("only root may mount")
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *map(str, arguments), str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting isn't possible here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_an_unknown_driver_names_the_nearest(shed_root: Path, layout: Path) -> None:
    line = refused(shed_root, "--driver", "chunk-dedupe", "import", f"oci:{layout}:v1", "app")
    assert "chunk-dedupe" in line and "did you mean 'chunk-dedup'" in line


def test_an_unknown_option_names_the_nearest(shed_root: Path, layout: Path, tmp_path: Path) -> None:
    config = tmp_path / "cowshed.toml"
    config.write_text("[drivers.chunk-dedup]\ncompresion_level = 3\n")
    line = refused(shed_root, "--config", config, "import", f"oci:{layout}:v1", "app", status=2)
    assert "compresion" in line and "did you mean" in line


def test_an_unknown_transport_and_a_missing_image_are_named(
    shed_root: Path, layout: Path, tmp_path: Path
) -> None:
    assert "ocy" in refused(shed_root, "import", f"ocy:{layout}", "app", status=2)
    assert "v3" in refused(shed_root, "import", f"oci:{layout}:v3", "app")
    assert "nowhere" in refused(shed_root, "import", f"oci:{tmp_path / 'nowhere'}", "app")
    assert "no-such" in refused(shed_root, "create", "no-such")
    assert "box" in refused(shed_root, "rm", "box")


def test_a_newer_format_is_refused(shed_root: Path) -> None:
    must(shed_root, "images")
    mark = shed_root / "cowshed.json"
    document = json.loads(mark.read_text())
    mark.write_text(json.dumps({**document, "format": 99}))
    line = refused(shed_root, "images")
    assert "99" in line and "upgrade" in line


def test_a_directory_of_something_else_is_refused(shed_root: Path) -> None:
    shed_root.mkdir()
    (shed_root / "letter.txt").write_text("mine")
    assert "letter.txt" in refused(shed_root, "images")
    assert [one.name for one in shed_root.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_blob_is_refused_and_leaves_nothing(
    damage: str, driver: str, shed_root: Path, layout: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(layout, broken)
    digest = manifest_of(layout, "v2")["layers"][0]["digest"]
    blob = broken / "blobs" / digest.replace(":", "/")
    data = bytearray(blob.read_bytes())
    blob.chmod(0o600)
    if damage == "missing":
        blob.unlink()
    elif damage == "truncated":
        blob.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    refused(shed_root, "--driver", driver, "import", f"oci:{broken}:v2", "app")
    with Shed(shed_root) as shed:
        assert shed.images() == []
        shed.gc()
        assert list(shed.driver(driver).items()) == []
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
    assert_consistent(shed_root)


def test_a_shed_on_a_read_only_disk_is_read(
    driver: str, shed_root: Path, layout: Path, tmp_path: Path
) -> None:
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
    must(shed_root, "--driver", driver, "create", "--name", "box", "app")
    with Shed(shed_root) as shed, shed.catalog.write() as transaction:
        transaction.put_lease(LeaseRecord(id="~0", operation="run"))  # of a dead process
    there = tmp_path / "read-only"
    with mounted("--bind", "-o", "ro", shed_root, at=there):
        if os.access(there, os.W_OK):
            pytest.skip("a read-only bind mount isn't possible here")
        assert "app" in must(there, "images")
        assert "box" in must(there, "ps")
        assert must(there, "cat", "box", "/lib/module7.py") == "value = 'changed'\n"
        must(there, "diff", "box")
        must(there, "export", "box", tmp_path / "box.tar")
        for arguments in (
            ("create", "app"),
            ("rm", "box"),
            ("rmi", "--force", "app"),
            ("import", f"oci:{layout}:v1", "other"),
            ("commit", "box", "other"),
            ("gc",),
        ):
            assert "read-only" in refused(there, "--driver", driver, *arguments).lower()


def test_a_full_disk_leaves_nothing_half_done(driver: str, layout: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", at=small):
        root = small / "shed"
        must(root, "images")
        line = refused(root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
        assert "full" in line or "space" in line.lower(), line
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        with Shed(root) as shed:
            assert shed.images() == []
            shed.gc()
            assert list(shed.driver(driver).items()) == []
        must(root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
        assert_consistent(root)


def test_a_write_to_a_full_disk_leaves_the_container_as_it_was(
    driver: str, layout: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    with mounted("-t", "tmpfs", "-o", "size=200m", "tmpfs", at=small):
        root = small / "shed"
        must(root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
        must(root, "--driver", driver, "create", "--name", "box", "app")
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
        large = tmp_path / "large"
        large.write_bytes(os.urandom(1 << 20))
        refused(root, "cp", large, "box:/etc/large")
        filler.unlink()
        assert cowshed(root, "diff", "box").stdout == ""
        must(root, "cp", large, "box:/etc/large")
        assert must(root, "diff", "box").split() == ["C", "/etc", "A", "/etc/large"]
        assert_consistent(root)


def test_every_driver_is_registered(shed_root: Path) -> None:
    with Shed(shed_root) as shed:
        assert set(DRIVERS) <= set(shed.plugins.drivers)
