"""The same registry with other people's clients: what they push is pulled here, and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed import Shed

from .conftest import OpenShed
from .images import MadeImage, Publisher, make_image, noise
from .services import PASSWORD, USER, Authorities, RegistryProcess, TokenServer

FILES = {"etc/hello": b"hello\n" * 1000, "usr/noise": noise(100_000)}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; .ci/run installs it")
    return found


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def skopeo(*words: object) -> str:
    return run(tool("skopeo"), "--insecure-policy", *words)


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    made = make_image(FILES, {"etc/more": noise(50_000, name)})
    publisher.image(f"{name}/from", made, "v1")
    return made


# Docker's schema 2 has no zstd.
@pytest.mark.parametrize(
    ("form", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")]
)
def test_what_skopeo_pushes_is_pulled(
    registry: RegistryProcess,
    shed: Shed,
    image: MadeImage,
    name: str,
    tmp_path: Path,
    form: str,
    compression: str,
) -> None:
    shed.copy(f"{registry.host}/{name}/from:v1", f"oci:{tmp_path}/layout:v1")
    options = ("--dest-compress-format", compression, "--dest-compress", "--format", form)
    target = f"{registry.host}/{name}/skopeo:v1"
    skopeo(
        *("copy", "-q", "--dest-tls-verify=false", *options),
        *(f"oci:{tmp_path}/layout:v1", f"docker://{target}"),
    )
    (pulled,) = shed.pull(target)
    assert list(pulled.image.diff_ids) == image.diff_ids
    with shed.create(target).tree() as tree:
        assert tree.read_bytes("usr/noise") == FILES["usr/noise"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_reads_what_is_pushed(
    registry: RegistryProcess,
    shed: Shed,
    image: MadeImage,
    name: str,
    tmp_path: Path,
    compression: str,
) -> None:
    shed.pull(f"{registry.host}/{name}/from:v1")
    target = f"{registry.host}/{name}/to:v1"
    written = shed.push(image.id, target, compression=compression)
    assert written is not None
    skopeo(
        *("copy", "-q", "--src-tls-verify=false", "--preserve-digests"),
        *(f"docker://{target}", f"oci:{tmp_path}/layout:v1"),
    )
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert entry["digest"] == written.manifest.digest
    seen = json.loads(skopeo("inspect", "--tls-verify=false", "--config", f"docker://{target}"))
    assert seen["rootfs"]["diff_ids"] == image.diff_ids


def test_skopeo_and_we_log_in_with_the_same_file(
    guarded: RegistryProcess,
    authorities: Authorities,
    registry: RegistryProcess,
    image: MadeImage,
    open_shed: OpenShed,
    name: str,
    tmp_path: Path,
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    path = tmp_path / "auth.json"
    skopeo(
        *("login", "--authfile", path, "--cert-dir", certs / guarded.host),
        *("--username", USER, "--password", PASSWORD, guarded.host),
    )
    shed = open_shed(certs=str(certs), auth_file=str(path))
    written = shed.copy(f"{registry.host}/{name}/from:v1", f"{guarded.host}/{name}/to:v1")
    skopeo(
        *("copy", "-q", "--authfile", path, "--src-cert-dir", certs / guarded.host),
        *(f"docker://{guarded.host}/{name}/to:v1", f"oci:{tmp_path}/layout:v1"),
    )
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert entry["digest"] == written[0].manifest.digest


def test_skopeo_and_we_get_the_same_tokens(
    ticketed: RegistryProcess,
    token_server: TokenServer,
    image: MadeImage,
    registry: RegistryProcess,
    open_shed: OpenShed,
    name: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "auth.json"
    shed = open_shed(auth_file=str(path))
    skopeo(
        *("login", "--authfile", path, "--tls-verify=false"),
        *("--username", USER, "--password", PASSWORD, ticketed.host),
    )
    shed.copy(f"{registry.host}/{name}/from:v1", f"{ticketed.host}/{name}/to:v1")
    copied = f"docker://{ticketed.host}/{name}/copy:v1"
    skopeo(
        *("copy", "-q", "--authfile", path, "--src-tls-verify=false", "--dest-tls-verify=false"),
        *(f"docker://{ticketed.host}/{name}/to:v1", copied),
    )
    (pulled,) = shed.pull(copied)
    assert f"sha256:{pulled.image.id}" == image.id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[list[str]]:
    """Options for podman and buildah: a store of the test's own, without privileged mounts."""
    if os.geteuid() != 0:
        pytest.skip("podman and buildah need a user namespace, which isn't to be had everywhere")
    with tempfile.TemporaryDirectory(prefix="cow-") as run:  # podman allows it 50 characters
        root = str(tmp_path / "storage")
        yield ["--root", root, "--runroot", run, "--storage-driver", "vfs"]


def test_podman_pulls_what_is_pushed_and_pushes_what_is_pulled(
    registry: RegistryProcess,
    shed: Shed,
    image: MadeImage,
    name: str,
    store: list[str],
) -> None:
    podman = tool("podman")
    shed.pull(f"{registry.host}/{name}/from:v1")
    target = f"{registry.host}/{name}/to:v1"
    shed.push(image.id, target, compression="zstd")
    id = run(podman, *store, "pull", "-q", "--tls-verify=false", target).strip()
    assert f"sha256:{id}" == image.id
    back = f"{registry.host}/{name}/back:v1"
    run(podman, *store, "push", "-q", "--tls-verify=false", id, f"docker://{back}")
    (pulled,) = shed.pull(back)
    assert list(pulled.image.diff_ids) == image.diff_ids
    assert pulled.existing == 2


def test_buildah_builds_on_what_is_pushed(
    registry: RegistryProcess,
    shed: Shed,
    image: MadeImage,
    name: str,
    store: list[str],
    tmp_path: Path,
) -> None:
    buildah = tool("buildah")
    shed.pull(f"{registry.host}/{name}/from:v1")
    base = f"{registry.host}/{name}/base:v1"
    shed.push(image.id, base)
    container = run(buildah, *store, "from", "--tls-verify=false", base).strip()
    (tmp_path / "mine").write_text("mine")
    run(buildah, *store, "copy", container, tmp_path / "mine", "/etc/mine")
    built = f"{registry.host}/{name}/built:v1"
    run(
        *(buildah, *store, "commit", "-q", "--tls-verify=false", container),
        f"docker://{built}",
    )
    (pulled,) = shed.pull(built)
    assert pulled.existing == 2
    with shed.create(built).tree() as tree:
        assert tree.read_bytes("etc/mine") == b"mine"
        assert tree.read_bytes("etc/hello") == FILES["etc/hello"]


def test_a_manifest_list_by_podman_is_chosen_from(
    registry: RegistryProcess,
    publisher: Publisher,
    shed: Shed,
    image: MadeImage,
    name: str,
    store: list[str],
) -> None:
    podman = tool("podman")
    other = make_image({"arm": b"arm"}, platform="linux/arm64")
    publisher.image(f"{name}/from", other, "arm")
    run(podman, *store, "manifest", "create", "both")
    for tag in ("v1", "arm"):
        run(
            *(podman, *store, "manifest", "add", "--tls-verify=false", "both"),
            f"docker://{registry.host}/{name}/from:{tag}",
        )
    target = f"{registry.host}/{name}/both:v1"
    run(
        podman,
        *store,
        "manifest",
        "push",
        "--all",
        "--tls-verify=false",
        "both",
        f"docker://{target}",
    )
    (arm,) = shed.pull(target, platform="linux/arm64")
    (here,) = shed.pull(target, platform="linux/amd64")
    assert (f"sha256:{arm.image.id}", f"sha256:{here.image.id}") == (other.id, image.id)
