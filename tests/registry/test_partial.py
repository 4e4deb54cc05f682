"""Layers with a table of contents: only what is missing comes, and what lies is caught."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cowshed import Shed
from cowshed.importing import Imported

from .conftest import OpenShed
from .images import MadeImage, Publisher, make_image
from .services import FaultProxy, RegistryProcess

DRIVERS = ["hardlink-farm", "chunk-dedup", "overlayfs"]
Pull = Callable[..., Imported]


def words(size: int, seed: object) -> bytes:
    """Return text that compresses to a third or so, the same for the same seed."""
    source = random.Random(str(seed))
    some = [source.randbytes(3).hex() for _ in range(200)]
    return " ".join(source.choices(some, k=size // 7 + 1)).encode()[:size]


def tree(version: int, *, count: int = 400, changed: int = 20) -> dict[str, bytes]:
    """Return files of which every ``changed``-th is another in version 2."""
    sizes = random.Random("sizes")
    files: dict[str, bytes] = {}
    for number in range(count):
        size = int(sizes.lognormvariate(9, 1.5)) % 300_000
        mark = version if number % changed == 0 else 0
        files[f"usr/lib/part{number % 7}/file{number:03}"] = words(size, (number, mark))
    return files


@pytest.fixture
def push(open_shed: OpenShed, registry: RegistryProcess, publisher: Publisher, name: str) -> Any:
    """Publish layers of files as zstd:chunked, by our own push; return the image's manifest."""
    shed = open_shed("pusher")

    def publish(tag: str, *layers: Mapping[str, bytes]) -> MadeImage:
        made = make_image(*layers)
        publisher.image(f"{name}-plain", made, tag)
        shed.pull(f"{registry.host}/{name}-plain:{tag}")
        shed.push(
            f"{registry.host}/{name}-plain:{tag}",
            f"docker://{registry.host}/{name}:{tag}",
            compression="zstd:chunked",
        )
        return made

    return publish


def pull(shed: Shed, host: str, name: str, tag: str) -> Imported:
    (imported,) = shed.pull(f"{host}/{name}:{tag}")
    return imported


def assert_sound(shed: Shed, made: MadeImage) -> None:
    """The image is there, each of its layers gives its exact tar, nothing is left over."""
    image = shed.image(made.id)
    assert list(image.record.diff_ids) == made.diff_ids
    assert shed.check(deep=True) == [] or [one.severity for one in shed.check()] == ["notice"]
    for record, tar in zip(image.layer_records(), made.tars, strict=True):
        with shed.open_layer_tar(record) as file:
            assert file.read() == tar
    place = shed.root / "blobs/partial"
    assert not place.is_dir() or list(place.iterdir()) == []


def blob_requests(proxy: FaultProxy, digest: str) -> list[str]:
    return [one.headers.get("range", "") for one in proxy.requests(f"GET .*/blobs/{digest}")]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_version_with_a_twentieth_changed_transfers_less_than_a_tenth(
    push: Any, open_shed: OpenShed, proxy: FaultProxy, name: str, driver: str
) -> None:
    one, two = push("v1", tree(1)), push("v2", tree(2))
    shed = open_shed(driver=driver)
    first = pull(shed, proxy.host, name, "v1")
    assert first.received == first.total
    proxy.reset()
    second = pull(shed, proxy.host, name, "v2")
    assert 0 < second.received <= second.total / 10
    came = sum(size for path, size in proxy.sent.items() if "/blobs/" in path)
    config = len(two.config.data)
    assert came - config <= second.total / 10
    assert_sound(shed, one)
    assert_sound(shed, two)
