"""Layers with a table of contents: only what is missing comes, and what lies is caught."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import zstandard

from cowshed import Shed
from cowshed.errors import DigestMismatchError
from cowshed.holdings import MAGIC
from cowshed.importing import Imported
from cowshed_plugins.registry.answer import Answer
from cowshed_plugins.registry.client import Repository
from cowshed_plugins.registry.errors import RegistryError

from .chunked import STARGZ, ZSTD, Layer, Mangle, image_of, stargz, zstd_chunked
from .conftest import OpenShed, start_pull
from .images import Blob, MadeImage, Publisher, make_image, make_tar, noise
from .services import Action, FaultProxy, RegistryProcess, answer

DRIVERS = ["hardlink-farm", "chunk-dedup", "overlayfs"]


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


def test_unchanged_layers_in_another_compression_are_not_fetched(
    push: Any, shed: Shed, registry: RegistryProcess, proxy: FaultProxy, name: str
) -> None:
    """What came with gzip is known by its diff ID when it is offered as zstd:chunked."""
    made = push("v1", tree(1))
    shed.pull(f"{registry.host}/{name}-plain:v1")
    shed.remove_image(f"{registry.host}/{name}-plain:v1")  # only its name and config are new
    shed.pull(f"{registry.host}/{name}-plain:v1")
    proxy.reset()
    again = pull(shed, proxy.host, name, "v1")
    assert (again.received, again.existing) == (0, 1)
    more = push("v2", tree(1), {"etc/more": b"more"})
    proxy.reset()
    other = pull(shed, proxy.host, name, "v2")
    assert (other.existing, other.layers) == (1, 2)
    assert other.received < 2_000
    assert_sound(shed, made)
    assert_sound(shed, more)


@pytest.mark.parametrize("driver", DRIVERS)
def test_files_are_found_in_layers_that_came_without_a_table(
    push: Any,
    open_shed: OpenShed,
    registry: RegistryProcess,
    proxy: FaultProxy,
    name: str,
    driver: str,
) -> None:
    push("v1", tree(1, count=150))
    moved = {path.replace("part3", "part3.1"): data for path, data in tree(2, count=150).items()}
    two = push("v2", moved)
    shed = open_shed(driver=driver)
    shed.pull(f"{registry.host}/{name}-plain:v1")
    second = pull(shed, proxy.host, name, "v2")
    assert 0 < second.received < second.total / 5
    assert_sound(shed, two)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("first", ["with a table", "without"])
def test_a_large_file_costs_its_changed_chunks(
    push: Any,
    open_shed: OpenShed,
    registry: RegistryProcess,
    proxy: FaultProxy,
    name: str,
    driver: str,
    first: str,
) -> None:
    old = noise(4_000_000, name)
    new = old[:1_000_000] + b"put in" + old[1_000_000:3_000_000] + noise(100_000) + old[3_100_000:]
    push("v1", {"big": old})
    two = push("v2", {"big": new})
    shed = open_shed(driver=driver)
    if first == "without":
        shed.pull(f"{registry.host}/{name}-plain:v1")
    else:
        pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert 100_000 < second.received < 900_000
    assert_sound(shed, two)


def test_zeros_are_never_fetched(push: Any, shed: Shed, proxy: FaultProxy, name: str) -> None:
    push("v1", {"a": noise(400_000, 1)})
    two = push("v2", {"a": noise(400_000, 1), "z": bytes(8_000_000) + b"end"})
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < 20_000
    assert_sound(shed, two)


def test_kept_blobs_come_whole(
    push: Any, open_shed: OpenShed, proxy: FaultProxy, name: str
) -> None:
    """Whoever keeps blobs wants their bytes, so there is nothing to save."""
    shed = open_shed(overrides={"keep_blobs": True})
    push("v1", tree(1, count=60))
    push("v2", tree(2, count=60))
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.received == second.total
    (kept,) = shed.kept_layer_blobs(second.image.manifest)
    assert shed.blobs.has(kept)


@pytest.mark.parametrize(("between", "count"), [(300, 1), (5_000, 20)])
def test_what_is_missing_is_one_request_and_what_lies_close_together_one_range(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str, between: int, count: int
) -> None:
    for version in (1, 2):
        files = {"much": noise(200_000, 0)}
        for number in range(20):
            files[f"{number:02}-changes"] = noise(3_000, (number, version))
            files[f"{number:02}-stays"] = noise(between, number)
        made = image_of(zstd_chunked(make_tar(files)))
        publisher.image(name, made, f"v{version}")
        proxy.reset()
        pull(shed, proxy.host, name, f"v{version}")
    _, ranges = blob_requests(proxy, made.layers[0].digest)  # the table's is the other
    assert ranges.count(",") + 1 == count
    assert_sound(shed, made)


def test_a_layer_of_which_little_is_here_comes_by_a_plain_download(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    for version in (1, 2):
        files = {f"stays{number}": noise(20_000, number) for number in range(4)}
        files |= {f"changes{number}": noise(20_000, (number, version)) for number in range(40)}
        made = image_of(zstd_chunked(make_tar(files)))
        publisher.image(name, made, f"v{version}")
        proxy.reset()
        second = pull(shed, proxy.host, name, f"v{version}")
    _, plain = blob_requests(proxy, made.layers[0].digest)
    assert plain == ""
    assert second.total < second.received < second.total * 1.05
    assert_sound(shed, made)


# -- other people's tables -----------------------------------------------------------------------

Make = Callable[[bytes], Layer]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("make", "most"),
    [(zstd_chunked, 10), (partial(zstd_chunked, split=False), 25), (stargz, 30)],
    ids=["zstd:chunked", "without tar-split data", "eStargz"],
)
def test_other_writers_layers_are_read_in_part(
    publisher: Publisher,
    open_shed: OpenShed,
    proxy: FaultProxy,
    name: str,
    driver: str,
    make: Make,
    most: int,
) -> None:
    shed = open_shed(driver=driver)
    images = [image_of(make(make_tar(tree(version)))) for version in (1, 2)]
    for number, image in enumerate(images, 1):
        publisher.image(name, image, f"v{number}")
        pulled = pull(shed, proxy.host, name, f"v{number}")
    assert 0 < pulled.received < pulled.total * most / 100
    for image in images:
        assert_sound(shed, image)


def test_estargz_chunks_of_a_large_file_are_fetched_one_by_one(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    old = noise(3_000_000, 5)
    new = old[:1_500_000] + b"X" + old[1_500_001:]
    for number, data in enumerate((old, new), 1):
        image = image_of(stargz(make_tar({"big": data, "small": b"s"}), chunk=250_000))
        publisher.image(name, image, f"v{number}")
        pulled = pull(shed, proxy.host, name, f"v{number}")
    assert pulled.received < 600_000  # the changed chunk, and the last one, which has a header
    assert_sound(shed, image)


def test_headers_behind_an_estargz_file_are_fetched_where_they_changed(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    """The same contents in another order: what stood behind each is no longer true."""
    files = {f"f{number:02}": noise(20_000, number) for number in range(20)}
    turned = dict(reversed(files.items()))
    turned["new"] = b"new"
    first = image_of(stargz(make_tar(files)))
    second = image_of(stargz(make_tar(turned)))
    for number, image in enumerate((first, second), 1):
        publisher.image(name, image, f"v{number}")
        pull(shed, proxy.host, name, f"v{number}")
    assert_sound(shed, second)


# -- tables that lie -----------------------------------------------------------------------------


def entry(table: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in table["entries"] if one["name"] == name)


def swap(table: dict[str, Any]) -> None:
    one, two = entry(table, "b"), entry(table, "c")
    one["digest"], two["digest"] = two["digest"], one["digest"]


def set_in(name: str, **values: Any) -> Mangle:
    def mangle(table: dict[str, Any]) -> None:
        entry(table, name).update(values)

    return mangle


def deep(table: dict[str, Any]) -> bytes:
    return b'{"version":1,"entries":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


LIES: dict[str, dict[str, Any]] = {
    "the digests of two files are swapped": {"mangle": swap},
    "a new file has the digest of one that is here": {
        "mangle": lambda t: entry(t, "new").update(digest=entry(t, "b")["digest"])
    },
    "an offset is another frame's": {
        "mangle": lambda t: entry(t, "new").update(offset=entry(t, "new")["offset"] - 80)
    },
    "an offset is in the middle of a frame": {
        "mangle": lambda t: entry(t, "new").update(offset=entry(t, "new")["offset"] + 7)
    },
    "ranges overlap": {"mangle": lambda t: entry(t, "c").update(offset=entry(t, "b")["offset"])},
    "a range ends before it begins": {"mangle": set_in("c", endOffset=3)},
    "a range is beyond the blob": {"mangle": set_in("new", offset=1 << 50, endOffset=1 << 51)},
    "an offset is negative": {"mangle": set_in("c", offset=-5)},
    "an offset is no whole number": {"mangle": set_in("c", offset=1.5)},
    "an offset is no number": {"mangle": set_in("c", offset="0")},
    "an offset is true": {"mangle": set_in("c", offset=True)},
    "a file is a byte shorter": {"mangle": set_in("b", size=39_999)},
    "a file is a byte longer": {"mangle": set_in("new", size=30_001)},
    "a file has a petabyte": {"mangle": set_in("new", size=1 << 50)},
    "a file has more than there are numbers": {"mangle": set_in("new", size=1 << 80)},
    "a digest is nonsense": {"mangle": set_in("new", digest="sha256:../../etc/passwd")},
    "a digest is missing": {"mangle": set_in("new", digest="")},
    "chunks don't make up their file": {
        "mangle": lambda t: t["entries"].append(
            {"type": "chunk", "name": t["entries"][-1]["name"], "chunkOffset": 1, "chunkSize": 5}
        )
    },
    "a chunk has no file": {
        "mangle": lambda t: t["entries"].insert(0, {"type": "chunk", "name": "b"})
    },
    "a file is said to be zeros": {"mangle": set_in("new", chunkType="zeros")},
    "a file is missing": {"mangle": lambda t: t["entries"].remove(entry(t, "new"))},
    "a file is there twice": {"mangle": lambda t: t["entries"].append(entry(t, "new"))},
    "files are in another order": {"mangle": lambda t: t["entries"].reverse()},
    "a type is unknown": {"mangle": set_in("new", type="door")},
    "a name is missing": {"mangle": lambda t: entry(t, "new").pop("name")},
    "the version is another": {"mangle": lambda t: t.update(version=2)},
    "the entries are no list": {"mangle": lambda t: t.update(entries={})},
    "it is no object": {"mangle": lambda t: b"[]"},
    "it is no JSON": {"mangle": lambda t: b"{"},
    "it is nested deeply": {"mangle": deep},
    "it isn't compressed": {"pack": lambda table: table},
    "it unpacks to more than it says": {"pack": lambda t: zstandard.compress(t + bytes(1 << 28))},
    "it unpacks to less than it says": {"pack": lambda t: zstandard.compress(t[:-1])},
    "its checksum is another": {
        "notes": lambda n: n.update({f"{ZSTD}.manifest-checksum": f"sha256:{'0' * 64}"})
    },
    "its checksum is a path": {
        "notes": lambda n: n.update({f"{ZSTD}.manifest-checksum": "sha256:../../x"})
    },
    "its place is beyond the blob": {
        "notes": lambda n: n.update({f"{ZSTD}.manifest-position": "99999999:9999:9999:1"})
    },
    "its place is nonsense": {
        "notes": lambda n: n.update({f"{ZSTD}.manifest-position": "1:2:-3:1"})
    },
    "its place is larger than any number": {
        "notes": lambda n: n.update({f"{ZSTD}.manifest-position": f"{'9' * 30}:1:1:1"})
    },
    "it has a gigabyte": {
        "notes": lambda n: n.update(
            {f"{ZSTD}.manifest-position": n[f"{ZSTD}.manifest-position"][:-2] + "9999999:1"}
        )
    },
    "there are two": {"notes": lambda n: n.update({STARGZ: f"sha256:{'0' * 64}"})},
    "the tar-split data is elsewhere": {
        "notes": lambda n: n.update({f"{ZSTD}.tarsplit-position": "10:1000:1"})
    },
    "the tar-split data lacks a file": {"mangle_split": lambda lines: lines.pop(3)},
    "the tar-split data has another header": {
        "mangle_split": lambda lines: lines[0].update(payload="AAAA")
    },
    "the tar-split data is no base64": {
        "mangle_split": lambda lines: lines[0].update(payload="\u00e4")
    },
    "the tar-split data has negative sizes": {
        "mangle_split": lambda lines: lines[1].update(size=-40_000)
    },
    "the tar-split data has unknown entries": {
        "mangle_split": lambda lines: lines[0].update(type=7)
    },
}

OLD = {"a": words(50_000, "a"), "b": noise(40_000, "b"), "c": noise(40_000, "c")}
NEW = {**OLD, "new": noise(30_000, "new")}


@pytest.mark.parametrize("lie", LIES)
def test_a_table_that_lies_is_answered_with_a_full_download(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str, lie: str
) -> None:
    name = f"lie-{list(LIES).index(lie)}"
    old = image_of(zstd_chunked(make_tar(OLD)))
    new = image_of(zstd_chunked(make_tar(NEW), **LIES[lie]))
    publisher.image(name, old, "v1")
    publisher.image(name, new, "v2")
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.received >= second.total
    assert_sound(shed, new)
    # Nor does what it said do harm to a later one.
    third = image_of(zstd_chunked(make_tar({**NEW, "third": noise(30_000, 3)})))
    publisher.image(name, third, "v3")
    assert pull(shed, proxy.host, name, "v3").received < second.total * 0.6
    assert_sound(shed, third)


def test_names_in_a_table_lead_nowhere(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    """Names are read from the tar's own headers; a table's are only compared."""

    def mangle(table: dict[str, Any]) -> None:
        for number, one in enumerate(table["entries"]):
            one["name"] = ("../../../etc/passwd", "/etc/shadow", "a\0b", "")[number % 4]

    publisher.image(name, image_of(zstd_chunked(make_tar(OLD))), "v1")
    new = image_of(zstd_chunked(make_tar(NEW), mangle=mangle))
    publisher.image(name, new, "v2")
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < second.total / 2
    assert_sound(shed, new)


@pytest.mark.parametrize(
    "mangle",
    [
        swap,
        set_in("c", offset=1),
        set_in("c", innerOffset=5),
        set_in("new", size=30_001),
        lambda t: b"{}",
    ],
    ids=["digests", "offset", "inner offset", "size", "nothing"],
)
def test_an_estargz_table_that_lies_is_answered_with_a_full_download(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str, mangle: Mangle
) -> None:
    publisher.image(name, image_of(stargz(make_tar(OLD))), "v1")
    new = image_of(stargz(make_tar(NEW), mangle=mangle))
    publisher.image(name, new, "v2")
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.received >= second.total
    assert_sound(shed, new)


def test_little_that_is_said_to_lie_in_much_is_not_fetched_for_itself(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    """It would be held in memory: a table may say that a chunk has as many bytes as the blob."""
    big = noise(12_000_000, "big")

    def mangle(table: dict[str, Any]) -> None:
        first = entry(table, "big")
        chunks = [one for one in table["entries"] if one["name"] == "big" and one["type"] != "reg"]
        first["chunkDigest"] = f"sha256:{'0' * 64}"
        chunks[-1] |= {"chunkOffset": 1_000_000, "chunkSize": 11_000_000}
        for one in chunks[:-1]:
            table["entries"].remove(one)

    make = partial(stargz, chunk=1_000_000)
    publisher.image(name, image_of(make(make_tar({"big": big}))), "v1")
    new = image_of(make(make_tar({"big": big, "new": b"new"}), mangle=mangle))
    publisher.image(name, new, "v2")
    pull(shed, proxy.host, name, "v1")
    second = pull(shed, proxy.host, name, "v2")
    assert second.total < second.received < second.total + 3_000_000
    assert_sound(shed, new)


def test_a_wrong_layer_is_refused_whatever_its_table_says(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    good = zstd_chunked(make_tar(NEW))
    wrong = attrs.evolve(good, tar=make_tar({**NEW, "other": b"promised"}))
    publisher.image(name, image_of(zstd_chunked(make_tar(OLD))), "v1")
    publisher.image(name, image_of(wrong), "v2")
    pull(shed, proxy.host, name, "v1")
    with pytest.raises(DigestMismatchError, match="diff ID"):
        pull(shed, proxy.host, name, "v2")
    assert len(shed.images()) == 1


# -- registries and sheds that don't help --------------------------------------------------------


@pytest.fixture
def pair(publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str) -> MadeImage:
    """The first version is here; this is the second."""
    publisher.image(name, image_of(zstd_chunked(make_tar(OLD))), "v1")
    second = image_of(zstd_chunked(make_tar(NEW)))
    publisher.image(name, second, "v2")
    pull(shed, proxy.host, name, "v1")
    proxy.reset()
    return second


def test_a_registry_without_ranges_gives_the_whole(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    proxy.on("GET .*/blobs/", no_ranges=True)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received == second.total
    assert len(blob_requests(proxy, pair.layers[0].digest)) == 2
    assert_sound(shed, pair)


def test_a_registry_that_gives_one_range_only_is_asked_for_each(
    publisher: Publisher, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    first, second = (image_of(zstd_chunked(make_tar(tree(v, count=90)))) for v in (1, 2))
    publisher.image(name, first, "v1")
    publisher.image(name, second, "v2")
    pull(shed, proxy.host, name, "v1")
    proxy.on("GET .*/blobs/", no_ranges=True, when=lambda headers: "," in headers.get("range", ""))
    pulled = pull(shed, proxy.host, name, "v2")
    assert pulled.received < pulled.total / 4
    asked = [one for one in blob_requests(proxy, second.layers[0].digest) if one]
    assert len(asked) > 3
    assert_sound(shed, second)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_range_that_breaks_off_is_gone_on_with(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str, fault: str
) -> None:
    proxy.on(f"GET .*/blobs/{pair.layers[0].digest}", times=2, **{fault: 300})
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < second.total / 2
    assert_sound(shed, pair)


def without_end(blob: bytes, ended: list[str], piece: bytes, **headers: str) -> Action:
    """Return an action that answers requests for ranges without end, with what is right first.

    ``ended`` gets a word for each of them that the client didn't read on.
    """

    def act(handler: Any) -> None:
        ranges = handler.headers.get("Range")
        if ranges is None:
            answer(200, blob)(handler)
            return
        start = int(ranges.removeprefix("bytes=").partition("-")[0])
        handler.send_response_only(206)
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value.replace("START", str(start)))
        handler.end_headers()
        handler.close_connection = True
        time.sleep(0.05)  # the head comes alone
        try:
            if not piece:
                handler.wfile.write(blob[start:])
            for _ in range(1000):
                handler.wfile.write(piece * (100_000 // len(piece)) if piece else bytes(100_000))
        except OSError:
            ended.append(ranges)

    return act


@pytest.mark.parametrize(
    "piece",
    [
        b"--x\r\nContent-Range: bytes 0-9/*\r\n\r\n0123456789\r\n",
        b"--x\r\nContent-Range: bytes 9-8/*\r\n\r\n",
        b"\r\n",
    ],
    ids=["parts", "empty parts", "nothing"],
)
def test_parts_without_end_are_given_up(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str, piece: bytes
) -> None:
    blob, ended = pair.layers[0], list[str]()
    kind = "multipart/byteranges; boundary=x"
    action = without_end(blob.data, ended, piece, Content_Type=kind)
    proxy.on(f"GET .*/blobs/{blob.digest}", action=action)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received == second.total
    asked = [one for one in blob_requests(proxy, blob.digest) if one]
    assert ended == asked
    assert_sound(shed, pair)


@pytest.mark.parametrize("late", [0.0, 0.2], ids=["at once", "late"])
def test_what_comes_behind_a_range_is_not_waited_for(
    pair: MadeImage,
    shed: Shed,
    proxy: FaultProxy,
    name: str,
    late: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is it read, if it is there already when the client comes to reading."""
    opened = Repository.open_ranges

    def open_ranges(self: Repository, digest: str, ranges: Sequence[tuple[int, int]]) -> Answer:
        response = opened(self, digest, ranges)
        read = response.read1

        def read1(amount: int | None = None) -> bytes:
            time.sleep(late)
            return read(amount)

        monkeypatch.setattr(response, "read1", read1)
        return response

    monkeypatch.setattr(Repository, "open_ranges", open_ranges)
    blob, ended = pair.layers[0], list[str]()
    action = without_end(blob.data, ended, b"", Content_Range="bytes START-99999999999/*")
    proxy.on(f"GET .*/blobs/{blob.digest}", action=action)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < second.total / 2
    assert ended == blob_requests(proxy, blob.digest)
    assert_sound(shed, pair)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": f"bytes 0-{'9' * 5000}/*"},
        {"Content_Type": "multipart/byteranges; boundary*=utf-8''%E2%82%AC"},
    ],
    ids=["a long number", "no boundary"],
)
def test_headers_of_ranges_that_make_no_sense_are_answered_with_a_full_download(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str, headers: dict[str, str]
) -> None:
    blob = pair.layers[0]

    def act(handler: Any) -> None:
        ranges = handler.headers.get("Range")
        answer(206 if ranges else 200, blob.data, **(headers if ranges else {}))(handler)

    proxy.on(f"GET .*/blobs/{blob.digest}", action=act)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received >= second.total
    assert_sound(shed, pair)


def test_a_damaged_range_is_noticed(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    digest = pair.layers[0].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1)
    proxy.on(f"GET .*/blobs/{digest}", times=1, corrupt=20_000)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received > second.total
    assert_sound(shed, pair)


def test_digests_that_are_wrong_here_cost_a_transfer_only(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    (path,) = (shed.root / "recipes").glob("*.digests")
    data = bytearray(path.read_bytes())
    head = len(MAGIC) + 4
    one, two = data[head + 36 : head + 68], data[head + 72 : head + 104]
    data[head + 36 : head + 68], data[head + 72 : head + 104] = two, one
    path.write_bytes(data)
    second = pull(shed, proxy.host, name, "v2")
    assert 110_000 < second.received < second.total
    assert_sound(shed, pair)


def test_large_contents_that_are_others_than_thought_are_noticed(
    push: Any, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    """They are given out before they are hashed to their end, so the whole layer is fetched."""
    files = {"a": noise(5_000_000, 1), "b": noise(5_000_000, 2)}
    push("v1", files)
    two = push("v2", {**files, "c": b"new"})
    pull(shed, proxy.host, name, "v1")
    (path,) = (shed.root / "recipes").glob("*.digests")
    data = bytearray(path.read_bytes())
    head = len(MAGIC) + 4
    one, other = data[head : head + 32], data[head + 36 : head + 68]
    data[head : head + 32], data[head + 36 : head + 68] = other, one
    path.write_bytes(data)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received >= second.total
    assert_sound(shed, two)


@pytest.mark.parametrize("left", [10, 30, 80, -7])
def test_digests_that_are_cut_off_here_are_none(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str, left: int
) -> None:
    """Then files are looked for as in any other layer."""
    (path,) = (shed.root / "recipes").glob("*.digests")
    path.write_bytes(path.read_bytes()[:left])
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < second.total / 2
    assert_sound(shed, pair)


def test_a_layout_in_zstd_chunked_helps_the_next_pull(
    push: Any, shed: Shed, registry: RegistryProcess, proxy: FaultProxy, name: str, tmp_path: Path
) -> None:
    """Saved, copied and imported, a layer keeps its table."""
    push("v1", tree(1, count=120))
    two = push("v2", tree(2, count=120))
    shed.copy(f"{registry.host}/{name}:v1", f"oci:{tmp_path}/copied:v1")
    shed.import_image(f"oci:{tmp_path}/copied:v1", "one:v1")
    assert len(list((shed.root / "recipes").glob("*.digests"))) == 1
    shed.save(["one:v1"], f"oci:{tmp_path}/saved:v1", compression="zstd:chunked")
    for place in ("copied", "saved"):
        (index,) = json.loads((tmp_path / place / "index.json").read_text())["manifests"]
        blobs = tmp_path / place / "blobs/sha256"
        manifest = json.loads((blobs / index["digest"].removeprefix("sha256:")).read_text())
        assert f"{ZSTD}.tarsplit-position" in manifest["layers"][0]["annotations"]
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < second.total / 5
    assert_sound(shed, two)


def test_what_was_remembered_of_a_layer_goes_with_it(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    pull(shed, proxy.host, name, "v2")
    assert len(list((shed.root / "recipes").glob("*.digests"))) == 2
    for image in shed.images():
        shed.remove_image(image.id, force=True)
    assert list((shed.root / "recipes").iterdir()) == []


def test_two_pulls_at_once_fetch_what_is_missing_once(
    pair: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    program = (
        "import sys, cowshed\n"
        "shed = cowshed.Shed(sys.argv[1], driver='chunk-dedup')\n"
        "(one,) = shed.pull(sys.argv[2])\n"
        "print(one.received)\n"
    )
    gate = threading.Event()
    proxy.on("GET .*/blobs/.*", gate=gate)
    words = (sys.executable, "-c", program, str(shed.root), f"{proxy.host}/{name}:v2")
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    deadline = time.monotonic() + 20
    while len(proxy.requests("GET .*/manifests/")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    gate.set()
    received = sorted(int(one.communicate(timeout=60)[0]) for one in both)
    assert received[0] == 0 < received[1] < sum(len(one.data) for one in pair.layers) / 2
    assert_sound(shed, pair)


# -- from one run to the next --------------------------------------------------------------------


def parts(shed: Shed) -> int:
    """Return the bytes of layers in part that a shed keeps for a later run."""
    place = shed.root / "blobs/partial"
    return sum(path.stat().st_size for path in place.glob("*-parts"))


@pytest.fixture(params=[zstd_chunked, stargz], ids=["zstd:chunked", "eStargz"])
def long(
    request: pytest.FixtureRequest,
    publisher: Publisher,
    shed: Shed,
    proxy: FaultProxy,
    name: str,
) -> MadeImage:
    """The first version is here; of the second, a third is missing, in many places."""
    make: Make = request.param
    files = {f"f{number:02}": noise(40_000, number) for number in range(60)}
    changed = {path: noise(40_000, path) for path in list(files)[::3]}
    publisher.image(name, image_of(make(make_tar(files))), "v1")
    second = image_of(make(make_tar({**files, **changed})))
    publisher.image(name, second, "v2")
    pull(shed, proxy.host, name, "v1")
    proxy.reset()
    return second


def is_stargz(layer: Blob) -> bool:
    return STARGZ in layer.annotations


def spare_the_plan(proxy: FaultProxy, layer: Blob) -> str:
    """Let the requests through that find out what is missing; return the blob's digest.

    The table, and in eStargz the ends of files that are here.
    """
    proxy.on(f"GET .*/blobs/{layer.digest}", times=2 if is_stargz(layer) else 1)
    return layer.digest


def missing(image: MadeImage) -> int:
    """Return the most that a transfer of what ``long`` lacks takes.

    The changed files with their headers and the table; in eStargz that comes with the last 64 KiB,
    and the last file isn't followed by what followed it in the first version.
    """
    return 800_000 + (130_000 if is_stargz(image.layers[0]) else 20_000)


def test_a_killed_pull_of_missing_parts_is_resumed(
    long: MadeImage, shed: Shed, proxy: FaultProxy, name: str
) -> None:
    digest = spare_the_plan(proxy, long.layers[0])
    proxy.on(f"GET .*/blobs/{digest}", stall=500_000)
    first = start_pull(shed.root, f"{proxy.host}/{name}:v2", timeout=60)
    while parts(shed) < 400_000:
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.communicate()
    here = parts(shed)
    assert shed.df().partial >= here
    proxy.reset()
    second = pull(shed, proxy.host, name, "v2")
    came = sum(size for path, size in proxy.sent.items() if digest in path)
    assert 800_000 - here <= second.received <= came < missing(long) - here
    assert_sound(shed, long)


def break_off(shed: Shed, proxy: FaultProxy, image: MadeImage, name: str) -> str:
    """Let 500,000 bytes of what is missing come, and the plain way fail, too."""
    digest = spare_the_plan(proxy, image.layers[0])
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=500_000)
    proxy.on(f"GET .*/blobs/{digest}", action=answer(503))
    with pytest.raises(RegistryError, match=f"{digest}.*503"):
        pull(shed, proxy.host, name, "v2")
    assert parts(shed) > 400_000
    proxy.reset()
    return digest


def test_missing_parts_that_broke_off_are_resumed_though_the_plain_way_failed_too(
    long: MadeImage, open_shed: OpenShed, proxy: FaultProxy, name: str
) -> None:
    shed = open_shed(retries=0)
    break_off(shed, proxy, long, name)
    here = parts(shed)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received < missing(long) - here
    assert_sound(shed, long)


def test_parts_that_have_become_useless_are_removed(
    long: MadeImage, open_shed: OpenShed, proxy: FaultProxy, name: str
) -> None:
    """Not only by age: whoever has the layer has no use for them."""
    shed = open_shed(retries=0)
    digest = spare_the_plan(proxy, long.layers[0])
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=500_000)
    proxy.on(f"GET .*/blobs/{digest}", times=1, action=answer(503))
    second = pull(shed, proxy.host, name, "v2")  # the plain way gets through
    assert second.received > second.total
    assert_sound(shed, long)


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 0xFF


def cut_short(data: bytearray) -> None:
    del data[-1000:]


def begin_another(data: bytearray) -> None:
    """Leave a header behind which nothing was written."""
    data += data[:16]


def speak_of_too_much(data: bytearray) -> None:
    data[8:12] = b"\xff" * 4


@pytest.mark.parametrize(
    ("damage", "least"),
    [(flip, 200_000), (cut_short, 450_000), (begin_another, 490_000), (speak_of_too_much, 0)],
    ids=["a byte", "the end", "a header too many", "the first header"],
)
def test_parts_that_an_earlier_run_left_are_used_up_to_where_they_are_damaged(
    long: MadeImage,
    open_shed: OpenShed,
    proxy: FaultProxy,
    name: str,
    damage: Callable[[bytearray], None],
    least: int,
) -> None:
    shed = open_shed(retries=0)
    digest = break_off(shed, proxy, long, name)
    (left,) = (shed.root / "blobs/partial").glob("*-parts")
    log = bytearray(left.read_bytes())
    damage(log)
    left.write_bytes(log)
    second = pull(shed, proxy.host, name, "v2")
    came = sum(size for path, size in proxy.sent.items() if digest in path)
    assert second.received <= came < missing(long) - least
    if not least:
        assert came > 800_000
    assert_sound(shed, long)


def test_parts_that_came_wrong_in_an_earlier_run_cost_a_full_download(
    long: MadeImage, open_shed: OpenShed, proxy: FaultProxy, name: str
) -> None:
    """The log's checksums are right, so that only the contents' digests can tell."""
    shed = open_shed(retries=0)
    break_off(shed, proxy, long, name)
    (left,) = (shed.root / "blobs/partial").glob("*-parts")
    log = bytearray(left.read_bytes())
    end = 16 + int.from_bytes(log[8:12], "little")
    log[end // 2] ^= 0xFF
    log[12:16] = zlib.crc32(log[16:end], zlib.crc32(log[:12])).to_bytes(4, "little")
    left.write_bytes(log)
    second = pull(shed, proxy.host, name, "v2")
    assert second.received > second.total
    assert_sound(shed, long)
