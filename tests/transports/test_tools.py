"""Other tools' images read here, and ours read by them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import images, save, saved_image


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed")
    return found


def run(*command: str, **extra: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **extra}, timeout=120
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def made_by_umoci(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with an image of two layers."""
    umoci = tool("umoci")
    root = tmp_path_factory.mktemp("umoci")
    (root / "files").mkdir()
    (root / "files" / "hello").write_text("hello\n" * 1000)
    layout = f"{root}/layout"
    run(umoci, "init", "--layout", layout)
    run(umoci, "new", "--image", f"{layout}:made")
    options = [] if os.geteuid() == 0 else ["--rootless"]
    run(umoci, "insert", *options, "--image", f"{layout}:made", f"{root}/files", "/files")
    run(umoci, "insert", *options, "--image", f"{layout}:made", f"{root}/files/hello", "/hello")
    run(umoci, "config", "--image", f"{layout}:made", "--config.cmd", "/bin/sh")
    return Path(layout)


def skopeo_copy(source: str, target: str, *options: str) -> None:
    run(tool("skopeo"), "--insecure-policy", "copy", "-q", *options, source, target)


def test_an_image_by_umoci_is_read(made_by_umoci: Path) -> None:
    (image,) = images(f"oci:{made_by_umoci}:made")
    assert image.config is not None
    assert len(image.layers) == 2
    assert image.config.config["Cmd"] == ["/bin/sh"]
    assert [diff for _, diff in image.config.steps() if diff] == list(image.config.diff_ids)


@pytest.mark.parametrize("options", [(), ("--dest-compress-format", "zstd", "--dest-compress")])
def test_skopeo_copies_are_the_same_image(
    made_by_umoci: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (made,) = images(f"oci:{made_by_umoci}:made")
    assert made.config is not None
    for kind in ("oci", "oci-archive", "docker-archive"):
        place = f"{tmp_path}/{kind}"
        skopeo_copy(f"oci:{made_by_umoci}:made", f"{kind}:{place}:made:latest", *options)
        (image,) = images(f"{kind}:{place}")
        assert image.config is not None
        assert image.config.diff_ids == made.config.diff_ids
        assert image.reference == "made:latest"


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_reads_our_layouts(tmp_path: Path, compression: str) -> None:
    image = saved_image("debian:12", size=300_000)
    save(f"oci:{tmp_path}/l:12", image, compression=compression)
    seen = json.loads(run(tool("skopeo"), "inspect", "--config", f"oci:{tmp_path}/l:12"))
    assert seen["rootfs"]["diff_ids"] == list(image.config.diff_ids)
    save(f"oci-archive:{tmp_path}/a.tar:12", image, compression=compression)
    for source in (f"oci:{tmp_path}/l:12", f"oci-archive:{tmp_path}/a.tar:12"):
        # Unpacks each layer, except zstd's, which skopeo doesn't put into Docker's format.
        kind = "oci-archive" if compression == "zstd" else "docker-archive"
        skopeo_copy(source, f"{kind}:{tmp_path}/copy.tar:x:1")
        (found,) = images(f"{kind}:{tmp_path}/copy.tar")
        assert found.config is not None
        assert found.config.diff_ids == image.config.diff_ids
        (tmp_path / "copy.tar").unlink()


def test_skopeo_reads_our_docker_archives(tmp_path: Path) -> None:
    image, other = saved_image("debian:12", "debian:latest"), saved_image("x:1", seed="x")
    save(f"docker-archive:{tmp_path}/a.tar", image, other)
    skopeo = tool("skopeo")
    for name, saved in (("debian:12", image), ("debian:latest", image), ("x:1", other)):
        place = f"docker-archive:{tmp_path}/a.tar:{name}"
        seen = json.loads(run(skopeo, "inspect", "--config", place))
        assert seen["rootfs"]["diff_ids"] == list(saved.config.diff_ids)
        skopeo_copy(place, f"oci:{tmp_path}/copy:{name.replace(':', '-')}")
    assert len(images(f"oci:{tmp_path}/copy:x-1")) == 1


def test_umoci_unpacks_our_layouts(tmp_path: Path) -> None:
    image = saved_image(count=2)
    save(f"oci:{tmp_path}/l:tag", image)
    run(tool("umoci"), "unpack", "--rootless", "--image", f"{tmp_path}/l:tag", f"{tmp_path}/b")
    assert sorted(os.listdir(tmp_path / "b" / "rootfs")) == ["file0", "file1"]


@pytest.fixture
def run_root() -> Iterator[Path]:
    """A short path: podman refuses more than 50 characters."""
    path = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_buildah_commits_are_read_and_podman_loads_ours(tmp_path: Path, run_root: Path) -> None:
    buildah, podman = tool("buildah"), tool("podman")
    if os.geteuid() != 0:
        pytest.skip("buildah needs a user namespace or root here")
    store = ["--root", f"{tmp_path}/s", "--runroot", f"{run_root}", "--storage-driver", "vfs"]
    (tmp_path / "hello").write_text("hello")
    container = run(buildah, *store, "from", "scratch").strip()
    run(buildah, *store, "copy", container, f"{tmp_path}/hello", "/hello")
    run(buildah, *store, "config", "--label", "a=b", container)
    for kind in ("oci", "oci-archive", "docker-archive"):
        name = "" if kind == "oci" else "img:1"
        place = f"{kind}:{tmp_path}/{kind}:{name or 'img'}"
        run(buildah, *store, "commit", "-q", "--disable-compression=false", container, place)
        (image,) = images(f"{kind}:{tmp_path}/{kind}")
        assert image.config is not None
        assert image.config.config["Labels"]["a"] == "b"  # type: ignore[index]
    saved = saved_image("ours:1")
    for kind in ("docker-archive", "oci-archive"):
        save(f"{kind}:{tmp_path}/{kind}.tar", saved)
        run(podman, *store, "load", "-q", "-i", f"{tmp_path}/{kind}.tar")
        listed = json.loads(run(podman, *store, "images", "--format", "json"))
        assert saved.config.digest[7:] in {item["Id"] for item in listed}
        run(podman, *store, "rmi", "-f", saved.config.digest[7:])


def test_the_archive_is_a_tar_that_gnu_tar_lists(tmp_path: Path) -> None:
    save(f"docker-archive:{tmp_path}/a.tar", saved_image("x:1"))
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
    assert run(tool("tar"), "tf", f"{tmp_path}/a.tar").split() == [
        f"{name}/" if name in {"blobs", "blobs/sha256"} else name for name in names
    ]
