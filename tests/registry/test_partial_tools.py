"""Layers with a table of contents, read and written by podman and skopeo."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed

from .chunked import Layer, image_of
from .conftest import OpenShed
from .images import OCI_LAYER, Blob, Publisher, make_tar
from .services import FaultProxy, RegistryProcess
from .test_partial import DRIVERS, assert_sound, pull, tree
from .test_tools import skopeo, tool


def as_go_ends(tar: bytes) -> bytes:
    """Return a tar with two zero blocks at its end; old Podman loses any that follow."""
    end = len(tar.rstrip(b"\0"))
    return tar[: end + -end % 512] + bytes(1024)


def plain(version: int, name: str) -> Layer:
    """Return a layer of its own: skopeo and podman remember for good where they saw a blob."""
    own = f"{name} {os.urandom(8).hex()}".encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        # Podman 4.3 loses files whose directories aren't in the tar, now and then.
        for directory in ("usr", "usr/lib", *(f"usr/lib/part{n}" for n in range(7))):
            info = tarfile.TarInfo(directory)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000
            tar.addfile(info)
    files = make_tar({**tree(version), "test": own})
    whole = as_go_ends(out.getvalue()[: 512 * 9] + files)
    return Layer(whole, Blob(whole, OCI_LAYER))


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Any]:
    """Run podman with a store of its own that takes layers in part."""
    program = tool("podman")
    if os.geteuid():
        pytest.skip("podman's overlay driver takes layers in part as root only")
    config = tmp_path / "storage.conf"
    config.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/graph"\n'
        f'runroot = "{tmp_path}/run"\n'
        '[storage.options.pull_options]\nenable_partial_images = "true"\n'
    )

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, "--log-level=debug", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "CONTAINERS_STORAGE_CONF": str(config)},
            timeout=180,
        )
        if "kernel does not support overlay" in done.stderr or "overlay is not" in done.stderr:
            pytest.skip("podman can't use overlay here")
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + done.stderr

    yield run
    subprocess.run(["umount", "-l", str(tmp_path / "graph/overlay")], capture_output=True)
    shutil.rmtree(tmp_path / "graph", ignore_errors=True)


def test_podman_reads_what_is_pushed_in_part(
    podman: Any,
    publisher: Publisher,
    registry: RegistryProcess,
    shed: Shed,
    proxy: FaultProxy,
    name: str,
) -> None:
    images = [image_of(plain(version, name)) for version in (1, 2)]
    for number, image in enumerate(images, 1):
        publisher.image(f"{name}/from", image, f"v{number}")
        shed.pull(f"{registry.host}/{name}/from:v{number}")
        written = shed.push(
            f"{registry.host}/{name}/from:v{number}",
            f"{registry.host}/{name}/to:v{number}",
            compression="zstd:chunked",
        )
        assert written is not None
        proxy.reset()
        said = podman("pull", "--tls-verify=false", f"{proxy.host}/{name}/to:v{number}")
        assert "Retrieved partial blob" in said
    came = sum(size for path, size in proxy.sent.items() if "/blobs/" in path)
    assert came < written.total / 10
    mounted = podman("image", "mount", f"{proxy.host}/{name}/to:v2").split("\n")[0].strip()
    for path, data in tree(2).items():
        assert (Path(mounted) / path).read_bytes() == data
    podman("image", "umount", "--all")


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_skopeo_writes_is_read_in_part(
    publisher: Publisher,
    registry: RegistryProcess,
    open_shed: OpenShed,
    proxy: FaultProxy,
    name: str,
    tmp_path: Path,
    driver: str,
) -> None:
    """Versions of before 2024 write no tar-split data: headers come from the blob then."""
    shed = open_shed(driver=driver)
    for number in (1, 2):
        image = image_of(plain(number, name))
        publisher.image(f"{name}/from", image, f"v{number}")
        shed.copy(f"{registry.host}/{name}/from:v{number}", f"oci:{tmp_path}/layout:v{number}")
        skopeo(
            *("copy", "-q", "--dest-tls-verify=false", "--dest-compress"),
            *("--dest-compress-format", "zstd:chunked"),
            f"oci:{tmp_path}/layout:v{number}",
            f"docker://{registry.host}/{name}/to:v{number}",
        )
        pulled = pull(shed, proxy.host, f"{name}/to", f"v{number}")
        found = publisher.get_manifest(f"{name}/to", f"v{number}").data
        assert re.search(rb"zstd-chunked.manifest-checksum", found)
    assert 0 < pulled.received < pulled.total / 5
    assert_sound(shed, image)


def test_skopeo_reads_what_is_pushed_and_gives_it_back(
    publisher: Publisher, registry: RegistryProcess, shed: Shed, name: str, tmp_path: Path
) -> None:
    """A zstd:chunked layer is a zstd layer to whoever doesn't know better."""
    image = image_of(plain(1, name))
    publisher.image(f"{name}/from", image, "v1")
    shed.pull(f"{registry.host}/{name}/from:v1")
    target = f"{registry.host}/{name}/to:v1"
    shed.push(image.id, target, compression="zstd:chunked")
    skopeo(
        *("copy", "-q", "--src-tls-verify=false", "--dest-decompress"),
        *(f"docker://{target}", f"dir:{tmp_path}/dir"),
    )
    layer = tmp_path / "dir" / image.diff_ids[0].removeprefix("sha256:")
    assert layer.read_bytes() == image.tars[0]
