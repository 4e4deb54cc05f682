"""Reading layouts, archives, tars and directories, hostile ones above all."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import socket
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cowshed.errors import (
    ArchiveError,
    CowshedError,
    DigestMismatchError,
    LimitExceededError,
    NotFoundError,
    SourceError,
    UnsupportedError,
    UsageError,
)
from cowshed.oci import Platform

from .helpers import Layout, check, images, make_tar, save, saved_image, tars, transport

AMD64 = Platform.parse("linux/amd64")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "busybox")


def test_the_only_image_needs_no_tag(layout: Layout) -> None:
    layout.add(layout.image("1.36"))
    (image,) = images(f"oci:{layout.root}", AMD64)
    assert image.reference == "busybox:1.36"
    assert image.manifest is not None
    assert len(image.layers) == 1


def test_a_full_name_in_the_annotation_is_the_reference(layout: Layout) -> None:
    image = layout.image()
    image["annotations"] = {
        "io.containerd.image.name": "docker.io/library/debian:12",
        "org.opencontainers.image.ref.name": "12",
    }
    layout.add(image, layout.image("other"))
    for wanted in ("12", "debian:12", "docker.io/library/debian:12"):
        assert images(f"oci:{layout.root}:{wanted}")[0].reference == "debian:12"


def test_without_a_tag_several_images_are_listed(layout: Layout) -> None:
    layout.add(layout.image("one"), layout.image("two"))
    with pytest.raises(UsageError, match="one, two"):
        images(f"oci:{layout.root}")
    assert images(f"oci:{layout.root}:two")[0].reference == "busybox:two"
    with pytest.raises(NotFoundError, match="did you mean 'two'"):
        images(f"oci:{layout.root}:twoo")


def test_an_image_can_be_named_by_digest(layout: Layout) -> None:
    one = layout.image("one")
    layout.add(one, layout.image("two"))
    inner = layout.image("inner")
    layout.add(layout.index(inner))
    for digest in (one["digest"], inner["digest"]):
        (found,) = images(f"oci:{layout.root}@{digest}")
        assert found.manifest is not None
        assert found.manifest.digest == digest
    with pytest.raises(NotFoundError):
        images(f"oci:{layout.root}@sha256:{'0' * 64}")
    with pytest.raises(SourceError, match="invalid digest"):
        images(f"oci:{layout.root}@sha256:0")


def test_the_platform_is_chosen_through_nested_indexes(layout: Layout) -> None:
    def on(platform: str) -> dict[str, Any]:
        os, architecture = platform.split("/")
        found = layout.image("x", platform)
        return {**found, "platform": {"os": os, "architecture": architecture}}

    inner = layout.index(on("linux/arm64"), on("linux/amd64"))
    layout.add(layout.index(on("linux/s390x"), inner))
    for text in ("linux/arm64", "linux/amd64", "linux/s390x"):
        (found,) = images(f"oci:{layout.root}", Platform.parse(text))
        assert found.config is not None
        assert str(found.config.platform) == text
    with pytest.raises(UnsupportedError, match="there is linux/amd64, linux/arm64, linux/s390x"):
        images(f"oci:{layout.root}", Platform.parse("linux/riscv64"))


def test_a_platform_asked_for_is_compared_with_the_config_too(layout: Layout) -> None:
    layout.add(layout.image("x", "linux/arm64"))
    assert images(f"oci:{layout.root}")
    with pytest.raises(UnsupportedError, match="is for linux/arm64"):
        images(f"oci:{layout.root}", AMD64)


def test_an_index_that_contains_itself_many_levels_down_ends(layout: Layout) -> None:
    item = layout.image("x")
    for _ in range(10):
        item = layout.index(item)
    layout.add(item)
    with pytest.raises(SourceError, match="nested too deeply"):
        images(f"oci:{layout.root}")


def test_a_missing_blob_is_named(layout: Layout) -> None:
    image = layout.image("x")
    manifest = json.loads(layout.path(image["digest"]).read_text())
    layout.add(image)
    for digest in (
        manifest["layers"][0]["digest"],
        manifest["config"]["digest"],
        image["digest"],
    ):
        layout.path(digest).unlink()
        with pytest.raises(SourceError, match=digest):
            images(f"oci:{layout.root}")


def test_a_damaged_document_or_a_lying_size_is_noticed(layout: Layout) -> None:
    image = layout.image("x")
    layout.add({**image, "size": image["size"] + 1})
    with pytest.raises(DigestMismatchError):
        images(f"oci:{layout.root}")
    layout.entries = []
    layout.add(image)
    path = layout.path(image["digest"])
    path.write_bytes(path.read_bytes().replace(b"gzip", b"zstd"))
    with pytest.raises(DigestMismatchError):
        images(f"oci:{layout.root}")
    layout.entries = []
    short = layout.image("y")
    layout.add(short)
    layer = json.loads(layout.path(short["digest"]).read_text())["layers"][0]["digest"]
    os.truncate(layout.path(layer), 5)
    with pytest.raises(DigestMismatchError, match=layer):
        images(f"oci:{layout.root}")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("oci-layout", "{}", "unknown version ''"),
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "unknown version '2.0.0'"),
        ("oci-layout", None, "not an OCI image layout"),
        ("index.json", None, "no file 'index.json'"),
        ("index.json", "{", "not valid JSON"),
        ("index.json", '{"schemaVersion": 2, "manifests": []}', "no image"),
        ("index.json", " " * (5 << 20), "limit"),
    ],
)
def test_a_broken_layout_is_refused(
    layout: Layout, name: str, content: str | None, says: str
) -> None:
    layout.add(layout.image("x"))
    if content is None:
        (layout.root / name).unlink()
    else:
        (layout.root / name).write_text(content)
    with pytest.raises(SourceError, match=says):
        images(f"oci:{layout.root}")


def test_a_fifo_in_place_of_a_document_does_not_hang(layout: Layout) -> None:
    (layout.root / "index.json").unlink()
    os.mkfifo(layout.root / "index.json")
    with pytest.raises(SourceError, match="not a regular file"):
        images(f"oci:{layout.root}")


def test_a_place_of_the_wrong_kind_says_which_transport_fits(
    layout: Layout, tmp_path: Path
) -> None:
    file = layout.archive(tmp_path / "a.tar")
    with pytest.raises(SourceError, match="oci-archive:"):
        images(f"oci:{file}")
    for name in ("oci", "dir"):
        with pytest.raises(NotFoundError):
            images(f"{name}:{tmp_path}/none")
    for name in ("oci-archive", "docker-archive", "tar"):
        with pytest.raises(NotFoundError):
            images(f"{name}:{tmp_path}/none")
        with pytest.raises(UsageError, match="missing"):
            images(f"{name}:")


@pytest.mark.parametrize("packed", ["none", "gzip", "zstd", "xz", "bzip2"])
def test_an_archive_of_a_layout_is_read_compressed_or_not(
    layout: Layout, tmp_path: Path, packed: str
) -> None:
    layout.add(layout.image("1"), layout.image("2"))
    raw = layout.archive(tmp_path / "busybox.tar").read_bytes()
    pack = {
        "none": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
    }
    (tmp_path / "busybox.tar").write_bytes(pack[packed](raw))
    assert images(f"oci-archive:{tmp_path}/busybox.tar:2")[0].reference == "busybox:2"
    if packed != "none":
        (tmp_path / "busybox.tar").write_bytes(pack[packed](raw)[:-30])
        with pytest.raises(ArchiveError):
            images(f"oci-archive:{tmp_path}/busybox.tar:2")


def test_standard_input_is_an_archive_too(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.add(layout.image("1"))
    raw = layout.archive(tmp_path / "busybox.tar").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw))))  # type: ignore[arg-type]
    assert len(images("oci-archive:-:1")) == 1


def test_an_archive_cut_anywhere_is_refused(layout: Layout, tmp_path: Path) -> None:
    layout.add(layout.image("1"))
    path = layout.archive(tmp_path / "a.tar")
    raw = path.read_bytes().rstrip(b"\0")
    for cut in range(0, len(raw), 97):
        path.write_bytes(raw[:cut])
        with pytest.raises(SourceError):
            images(f"oci-archive:{path}")


def test_bytes_changed_anywhere_in_an_archive_are_refused_or_without_effect(
    layout: Layout, tmp_path: Path
) -> None:
    layout.add(layout.image("1"))
    path = layout.archive(tmp_path / "a.tar")
    raw = path.read_bytes()
    for at in range(0, len(raw), 41):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x11]) + raw[at + 1 :])
        # Layers' bytes are for the shed to refuse; ``check`` in the helpers does it here.
        with contextlib.suppress(CowshedError, AssertionError):
            images(f"oci-archive:{path}")


@pytest.mark.parametrize("name", ["../index.json", "/../x", "a/../../x", "blobs/../index.json"])
def test_a_member_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(make_tar({name: b"{}"}))
    for kind in ("oci-archive", "docker-archive"):
        with pytest.raises(ArchiveError, match="leads outside"):
            images(f"{kind}:{tmp_path}/a.tar")


@pytest.mark.parametrize("raw", [b"", b"x" * 512, b"x" * 5000, bytes(1024), b"PK\3\4" * 999])
def test_what_is_no_tar_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(raw)
    for kind in ("oci-archive", "docker-archive"):
        with pytest.raises(SourceError):
            images(f"{kind}:{tmp_path}/a.tar")


def test_a_negative_or_enormous_member_does_not_hang_or_fill_memory(tmp_path: Path) -> None:
    for size in (-512, -(1 << 40), 1 << 40):
        info = tarfile.TarInfo("x")
        info.size = size
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        for flag in (b"0", b"L", b"x"):
            block[156:157] = flag
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            (tmp_path / "a.tar").write_bytes(bytes(block) + bytes(2048))
            with pytest.raises(SourceError):
                images(f"oci-archive:{tmp_path}/a.tar")


def docker_archive(path: Path, **changes: Any) -> dict[str, bytes | str | None]:
    tars = [make_tar({"a": b"1"}), make_tar({"b": b"2"})]
    import hashlib

    ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ids}}
    listed = [
        {
            "Config": "c.json",
            "RepoTags": ["busybox:1", "docker.io/library/busybox:2"],
            "Layers": ["1/layer.tar", "2/layer.tar"],
        }
    ]
    files: dict[str, bytes | str | None] = {
        "1/": None,
        "1/layer.tar": tars[0],
        "2/layer.tar": tars[1],
        "c.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(listed).encode(),
        "repositories": b"never read",
    }
    files.update(changes)
    path.write_bytes(make_tar({name: data for name, data in files.items() if data != b"-"}))
    return files


def test_an_old_docker_archive_with_links_and_compressed_layers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    files = docker_archive(path)
    (image,) = images(f"docker-archive:{path}")
    assert image.names == ("busybox:1", "busybox:2")
    assert images(f"docker-archive:{path}:busybox:2")[0].names == ("busybox:2",)
    assert images(f"docker-archive:{path}:@0")[0].names == image.names
    with pytest.raises(NotFoundError, match="did you mean 'busybox:1'"):
        images(f"docker-archive:{path}:busybox:3")
    layer = files["1/layer.tar"]
    assert isinstance(layer, bytes)
    for packed in (layer, gzip.compress(layer), zstandard.compress(layer), lzma.compress(layer)):
        docker_archive(path, **{"1/layer.tar": "../x/y.tar", "x/y.tar": packed})
        assert tars(f"docker-archive:{path}")[0][0] == layer


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"1/layer.tar": "../../etc/passwd"}, "leads outside"),
        ({"1/layer.tar": "/etc/passwd"}, "leads outside"),
        ({"1/layer.tar": "../1/layer.tar"}, "in a circle"),
        ({"1/layer.tar": b"-"}, "no file '1/layer.tar'"),
        ({"manifest.json": b"-"}, "neither a docker archive nor"),
        ({"manifest.json": b"{}"}, "should be a list"),
        ({"manifest.json": b"[]"}, "no image"),
        ({"manifest.json": b"[1]"}, "list of objects"),
        ({"manifest.json": b'[{"Config": "../c.json"}]'}, "leads outside"),
        ({"manifest.json": b'[{"Config": "c.json", "Layers": []}]'}, "0 layers.*2 diff IDs"),
        ({"./manifest.json": b"[]"}, "ambiguous"),
        ({"c.json": b" " * (5 << 20)}, "limit"),
    ],
)
def test_a_hostile_docker_archive_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    docker_archive(tmp_path / "a.tar", **changes)
    with pytest.raises(SourceError, match=says):
        images(f"docker-archive:{tmp_path}/a.tar")


def test_names_that_cannot_be_image_names_are_dropped(tmp_path: Path) -> None:
    listed = [
        {
            "Config": "c.json",
            "RepoTags": ["\x1b[31mred:1", "../x:1", "good:1"],
            "Layers": ["1/layer.tar", "2/layer.tar"],
        }
    ]
    docker_archive(tmp_path / "a.tar", **{"manifest.json": json.dumps(listed).encode()})
    assert images(f"docker-archive:{tmp_path}/a.tar")[0].names == ("good:1",)


def test_a_docker_archive_without_manifest_json_is_read_as_a_layout(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "busybox")
    layout.add(layout.image("1"), layout.image("2"))
    path = layout.archive(tmp_path / "busybox.tar")
    assert [image.reference for image in images(f"docker-archive:{path}")] == [
        "busybox:1",
        "busybox:2",
    ]


def test_the_tar_of_a_root_file_system_is_one_layer_of_unknown_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_tar({"etc/": None, "etc/hostname": b"x"})
    for pack in (bytes, gzip.compress, zstandard.compress, lzma.compress, bz2.compress):
        (tmp_path / "Root_FS.tar.gz").write_bytes(pack(raw))
        with transport("tar").open_source(f"{tmp_path}/Root_FS.tar.gz") as source:
            (image,) = source.images()
            assert (image.reference, image.config) == ("root-fs:latest", None)
            assert image.layers[0].diff_id is None
            assert check(image) == check(image) == [raw]
    with pytest.raises(ArchiveError, match="empty"):
        (tmp_path / "empty").touch()
        images(f"tar:{tmp_path}/empty")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw))))  # type: ignore[arg-type]
    with transport("tar").open_source("-") as source:
        (image,) = source.images()
        assert image.reference == ""
        assert check(image) == [raw]
        with pytest.raises(SourceError, match="once only"):
            check(image)


def test_a_directory_is_read_as_a_tar_with_links_times_and_attributes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "a").write_bytes(b"content")
    os.link(root / "etc" / "a", root / "etc" / "b")
    (root / "link").symlink_to("/etc/a")
    os.mkfifo(root / "fifo", 0o600)
    os.utime(root / "etc" / "a", ns=(0, 1_600_000_000_123_456_789))
    os.chmod(root / "etc", 0o2751)
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(root / "socket"))
    odd = os.fsencode(root) + b"/\xff\xfe"
    with open(odd, "wb"):
        pass
    try:
        os.setxattr(root / "etc" / "a", "user.kind", b"\0\xff")
        attributes = True
    except OSError:
        attributes = False
    (image,) = images(f"dir:{root}")
    assert image.reference == "root:latest"
    with tarfile.open(fileobj=io.BytesIO(check(image)[0]), errors="surrogateescape") as archive:
        members = {member.name.strip("./"): member for member in archive}
    assert set(members) - {""} == {
        "etc",
        "etc/a",
        "etc/b",
        "link",
        "fifo",
        os.fsdecode(b"\xff\xfe"),
    }
    assert members["etc"].mode == 0o2751
    assert members["etc/b"].type == tarfile.LNKTYPE
    assert members["link"].linkname == "/etc/a"
    assert members["etc/a"].pax_headers["mtime"] == "1600000000.123456789"
    assert attributes == ("SCHILY.xattr.user.kind" in members["etc/a"].pax_headers)


def test_leaving_a_directory_half_read_stops_the_walk(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(10 << 20))
    with transport("dir").open_source(str(tmp_path)) as source:
        file = source.images()[0].layers[0].open()
        file.read(1)
        file.close()


def test_limits_and_targets_that_cannot_be_say_what_to_use(tmp_path: Path) -> None:
    for name in ("tar", "dir"):
        with pytest.raises(UnsupportedError, match="oci"):
            transport(name).open_target("x")
    assert issubclass(LimitExceededError, SourceError)
    save(f"oci:{tmp_path}/x:1", saved_image())
    with pytest.raises(UsageError, match="digest"):
        transport("oci").open_target(f"{tmp_path}/x@sha256:{'0' * 64}")
