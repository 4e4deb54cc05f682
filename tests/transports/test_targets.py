"""Writing layouts and archives: exact, deterministic, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from cowshed.errors import CorruptError, StoreError, UsageError

from .helpers import (
    failing_layer,
    images,
    make_tar,
    save,
    saved_image,
    tars,
    transport,
)


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("size", [1, 400_000])
def test_what_is_saved_to_a_layout_comes_back(tmp_path: Path, compression: str, size: int) -> None:
    image = saved_image("debian:12", size=size)
    save(f"oci:{tmp_path}/x", image, compression=compression)
    (found,) = images(f"oci:{tmp_path}/x:debian:12")
    assert found.config is not None
    assert found.config.raw == image.config.raw
    assert found.reference == "debian:12"
    assert {layer.compression for layer in found.layers} == {compression}
    save(f"oci:{tmp_path}/y", image, compression=compression)
    assert tree(tmp_path / "x") == tree(tmp_path / "y")
    assert not list(tmp_path.glob("*/.cowshed*"))


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_what_is_saved_to_an_archive_comes_back_the_same_every_time(
    tmp_path: Path, kind: str
) -> None:
    one, two = saved_image("one:1", "one:2"), saved_image("two:1", seed="x")
    for name in ("a", "b"):
        save(f"{kind}:{tmp_path}/{name}.tar", one, two)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    for reference in ("one:1", "one:2", "two:1"):
        (found,) = images(f"{kind}:{tmp_path}/a.tar:{reference}")
        assert found.reference == reference
        assert found.config is not None
        assert found.config.raw == (two if reference == "two:1" else one).config.raw
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]


def test_a_docker_archive_is_an_oci_layout_too(tmp_path: Path) -> None:
    image = saved_image("debian:12")
    save(f"docker-archive:{tmp_path}/a.tar", image)
    (docker,) = images(f"docker-archive:{tmp_path}/a.tar")
    (oci,) = images(f"oci-archive:{tmp_path}/a.tar")
    assert tars(f"docker-archive:{tmp_path}/a.tar") == tars(f"oci-archive:{tmp_path}/a.tar")
    assert docker.reference == oci.reference == "debian:12"


def test_a_name_after_the_archive_renames_the_image(tmp_path: Path) -> None:
    save(f"docker-archive:{tmp_path}/a.tar:other", saved_image("debian:12"))
    assert images(f"docker-archive:{tmp_path}/a.tar")[0].names == ("other:latest",)


def test_the_same_tag_is_replaced_and_other_images_stay(tmp_path: Path) -> None:
    one, two = saved_image("x", seed="1"), saved_image("x", seed="2")
    save(f"oci:{tmp_path}/l:a", one)
    save(f"oci:{tmp_path}/l:b", one)
    save(f"oci:{tmp_path}/l:a", two)
    index = json.loads((tmp_path / "l" / "index.json").read_bytes())
    assert len(index["manifests"]) == 2
    for tag, image in (("a", two), ("b", one)):
        found = images(f"oci:{tmp_path}/l:{tag}")[0]
        assert found.config is not None
        assert found.config.raw == image.config.raw


def test_what_others_wrote_into_an_index_is_kept(tmp_path: Path) -> None:
    save(f"oci:{tmp_path}/l:a", saved_image())
    path = tmp_path / "l" / "index.json"
    index = json.loads(path.read_bytes())
    index["annotations"] = {"k": "v"}
    index["manifests"][0]["x-extra"] = 1
    path.write_text(json.dumps(index))
    save(f"oci:{tmp_path}/l:b", saved_image(seed="b"))
    index = json.loads(path.read_bytes())
    assert index["annotations"] == {"k": "v"}
    assert index["manifests"][0]["x-extra"] == 1


def test_a_layer_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    image = saved_image()
    save(f"oci:{tmp_path}/l:a", image)
    never = attrs.evolve(
        image, layers=tuple(attrs.evolve(layer, write_tar=_never) for layer in image.layers)
    )
    with transport("oci").open_target(f"{tmp_path}/l:b") as target:
        assert target.has_layer(image.layers[0].diff_id)
        target.write_image(never)
    assert len(images(f"oci:{tmp_path}/l:b")) == 1


def test_a_layer_that_is_there_but_damaged_is_written_again(tmp_path: Path) -> None:
    image = saved_image(count=1)
    save(f"oci:{tmp_path}/l:a", image)
    (found,) = images(f"oci:{tmp_path}/l:a")
    assert found.layers[0].descriptor is not None
    blob = tmp_path / "l" / "blobs" / "sha256" / found.layers[0].descriptor.digest[7:]
    blob.write_bytes(bytes(blob.stat().st_size))
    save(f"oci:{tmp_path}/l:b", image)
    assert images(f"oci:{tmp_path}/l:b")


def _never(out: object) -> str:
    raise AssertionError("written again")


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_nothing_remains_of_a_failure(tmp_path: Path, kind: str) -> None:
    good = saved_image("x:1")
    bad = attrs.evolve(good, layers=(good.layers[0], failing_layer(make_tar({"z": b"z"}))))
    with pytest.raises(RuntimeError):
        save(f"{kind}:{tmp_path}/x", good, bad)
    assert os.listdir(tmp_path) == []
    save(f"{kind}:{tmp_path}/x", good)
    before = tree(tmp_path)
    with pytest.raises(RuntimeError):
        save(f"{kind}:{tmp_path}/x", saved_image("y:1", seed="y"), bad)
    assert tree(tmp_path) == before


def test_a_tar_that_is_not_what_its_diff_id_says_is_noticed(tmp_path: Path) -> None:
    good = saved_image(count=1)
    wrong = attrs.evolve(good.layers[0], write_tar=lambda out: f"sha256:{'0' * 64}")
    with pytest.raises(CorruptError, match=good.layers[0].diff_id):
        save(f"oci:{tmp_path}/x", attrs.evolve(good, layers=(wrong,)))
    lying = attrs.evolve(good.layers[0], write_tar=lambda out: good.layers[0].diff_id)
    with pytest.raises(CorruptError):
        save(f"docker-archive:{tmp_path}/y", attrs.evolve(good, layers=(lying,)))
    assert os.listdir(tmp_path) == []


def test_many_writers_of_one_layout_lose_nothing(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            save(f"oci:{tmp_path}/l:{number}", saved_image(seed=str(number % 3)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(12):
        assert len(images(f"oci:{tmp_path}/l:{number}")) == 1
    assert sorted(os.listdir(tmp_path / "l")) == ["blobs", "index.json", "oci-layout"]


def test_standard_output_takes_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = saved_image("x:1")
    for kind in ("oci-archive", "docker-archive"):
        out = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
        save(f"{kind}:-", image)
        save(f"{kind}:{tmp_path}/{kind}.tar", image)
        assert out.getvalue() == (tmp_path / f"{kind}.tar").read_bytes()


def test_places_that_cannot_be_written_to_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not an OCI layout"):
        save(f"oci:{tmp_path}/full", saved_image())
    with pytest.raises(UsageError, match="not a directory"):
        save(f"oci:{tmp_path}/full/file", saved_image())
    with pytest.raises(StoreError, match="can't make"):
        save(f"oci:{tmp_path}/no/such", saved_image())
    for kind in ("oci-archive", "docker-archive"):
        with pytest.raises(StoreError, match="doesn't exist"):
            save(f"{kind}:{tmp_path}/no/such", saved_image())
        with pytest.raises(StoreError, match="is a directory"):
            save(f"{kind}:{tmp_path}/full", saved_image())
    with pytest.raises(UsageError, match="unknown compression 'lz4'"):
        save(f"oci:{tmp_path}/x", saved_image(), compression="lz4")
    with pytest.raises(UsageError, match="levels 1 to 9"):
        save(f"oci:{tmp_path}/x", saved_image(), level=10)
    with pytest.raises(UsageError, match="can't all"):
        save(f"oci:{tmp_path}/x:tag", saved_image(), saved_image())
    assert sorted(os.listdir(tmp_path)) == ["full"]
