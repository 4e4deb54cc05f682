"""Layers on their way: several at once, resumed where they broke, fetched once by two at once."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed
from cowshed.errors import DigestMismatchError, NotFoundError, SourceError
from cowshed.importing import LayerEvent
from cowshed_plugins.registry.errors import UnreachableError

from .conftest import OpenShed, start_pull
from .images import MadeImage, Publisher, make_image, noise
from .services import FaultProxy, RegistryProcess, answer

SIZE = 900_000


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    """Three layers of incompressible files."""
    made = make_image(*({f"file{n}": noise(SIZE, (name, n))} for n in range(3)))
    publisher.image(name, made, "v1")
    return made


def partials(shed: Shed) -> dict[str, int]:
    """Return the broken transfers that a shed keeps, by digest, with their sizes."""
    place = shed.root / "blobs/partial"
    if not place.is_dir():
        return {}
    return {f"sha256:{path.name}": path.stat().st_size for path in place.iterdir()}


def ranges(proxy: FaultProxy, digest: str) -> list[str]:
    """Return the Range headers with which a blob was asked for."""
    return [one.headers.get("range", "") for one in proxy.requests(f"GET .*/blobs/{digest}")]


def pull(shed: Shed, proxy: FaultProxy, name: str, **more: Any) -> Any:
    (imported,) = shed.import_image(f"docker://{proxy.host}/{name}:v1", **more)
    return imported


def assert_whole(shed: Shed, image: MadeImage) -> None:
    found = shed.image(image.id)
    assert list(found.record.diff_ids) == image.diff_ids
    assert shed.check(deep=True) == [] or [one.severity for one in shed.check()] == ["notice"]
    assert partials(shed) == {}


# -- within one run ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_transfer_goes_on_where_it_broke(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, fault: str
) -> None:
    digest = image.layers[1].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, **{fault: 300_000})
    imported = pull(shed, proxy, name)
    first, second = ranges(proxy, digest)
    assert first == ""
    match = re.fullmatch(r"bytes=(\d+)-", second)
    assert match and 0 < int(match[1]) <= 300_000
    assert imported.received == imported.total == image.size
    assert_whole(shed, image)


def test_a_transfer_that_breaks_again_and_again_gets_through_if_it_gets_on(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    digest = image.layers[0].digest
    proxy.on(f"GET .*/blobs/{digest}", times=8, cut=100_000)
    pull(shed, proxy, name)
    assert len(ranges(proxy, digest)) > 4
    assert_whole(shed, image)


def test_a_registry_without_ranges_is_read_from_the_start(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    digest = image.layers[1].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=300_000)
    proxy.on(f"GET .*/blobs/{digest}", no_ranges=True)
    pull(shed, proxy, name)
    assert_whole(shed, image)


def test_a_throttled_registry_is_waited_for(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on(f"GET .*/blobs/{image.layers[2].digest}", rate=3_000_000)
    pull(shed, proxy, name)
    assert len(ranges(proxy, image.layers[2].digest)) == 1
    assert_whole(shed, image)


def test_layers_come_side_by_side(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    """The last layers are here before the first one's first byte."""
    gate = threading.Event()
    proxy.on(f"GET .*/blobs/{image.layers[0].digest}", gate=gate)
    seen: set[int] = set()

    def listen(event: LayerEvent) -> None:
        if event.state == "fetched":
            seen.add(event.index)
            if seen == {1, 2}:
                gate.set()

    pull(shed, proxy, name, listener=listen)
    assert seen == {0, 1, 2}
    assert gate.is_set()


def test_a_layer_is_unpacked_while_it_comes(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    """The importer reads bytes of a transfer that isn't at its end."""
    image = make_image({f"file{n}": noise(SIZE, (name, n)) for n in range(8)})
    publisher.image(name, image, "v1")
    proxy.on(f"GET .*/blobs/{image.layers[0].digest}", rate=8_000_000)
    order: list[str] = []
    pull(shed, proxy, name, listener=lambda event: order.append(f"{event.state} {event.read > 0}"))
    assert order.index("reading True") < order.index("fetched True")


# -- from one run to the next --------------------------------------------------------------------


def test_the_next_run_meets_a_registry_without_ranges_that_breaks_in_what_is_here(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    """The reader isn't even open when it breaks."""
    shed = open_shed(retries=1)
    digest = image.layers[2].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=500_000)
    proxy.on(f"GET .*/blobs/{digest}", action=answer(404))
    with pytest.raises(NotFoundError):
        pull(shed, proxy, name)
    assert partials(shed)[digest] == 500_000
    proxy.reset()
    proxy.on(f"GET .*/blobs/{digest}", times=2, cut=100_000, no_ranges=True)
    with pytest.raises(UnreachableError, match=f"{digest} broke off after 500,000 of"):
        pull(shed, proxy, name)
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=100_000, no_ranges=True)
    proxy.on(f"GET .*/blobs/{digest}", no_ranges=True)
    pull(shed, proxy, name)
    assert_whole(shed, image)


@pytest.mark.parametrize("come", [1, 90_000, 450_000, 899_000])
def test_the_next_run_goes_on_where_one_broke_off(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str, come: int
) -> None:
    shed = open_shed(retries=0)
    digest = image.layers[2].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=come)
    with pytest.raises(UnreachableError) as caught:
        pull(shed, proxy, name)
    assert digest in str(caught.value)
    assert f"{come:,} of {len(image.layers[2].data):,} bytes" in str(caught.value)
    assert shed.images() == []
    assert partials(shed)[digest] == come
    # What had come whole isn't fetched again either.
    whole = sum(size for found, size in partials(shed).items() if found != digest)
    assert whole == len(image.layers[0].data) + len(image.layers[1].data)
    assert shed.df().partial >= come + whole
    proxy.reset()
    imported = pull(shed, proxy, name)
    assert ranges(proxy, digest) == [f"bytes={come}-"]
    assert imported.received == len(image.layers[2].data) - come
    assert len(proxy.requests("GET .*/blobs/")) == 2  # the config's is the other
    assert_whole(shed, image)
    assert shed.df().partial < 10_000


def test_a_killed_pull_is_resumed(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, tmp_path: Path, name: str
) -> None:
    shed = open_shed()
    digest = image.layers[1].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, stall=400_000)
    process = start_pull(shed.root, f"{proxy.host}/{name}:v1", timeout=30)
    while partials(shed).get(digest, 0) < 262_144:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    here = partials(shed)[digest]
    proxy.reset()
    pull(shed, proxy, name)
    assert ranges(proxy, digest) == [f"bytes={here}-"]
    assert_whole(shed, image)


def test_blobs_of_a_killed_pull_go_with_the_next_also_if_it_needs_none_of_them(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    """A layer may have been sealed before the kill, its blob still waiting for the others."""
    shed = open_shed()
    proxy.on(f"GET .*/blobs/{image.layers[2].digest}", times=1, stall=400_000)
    process = start_pull(shed.root, f"{proxy.host}/{name}:v1", timeout=30)
    while shed.layer_with_diff_id(image.diff_ids[1]) is None:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {image.layers[0].digest, image.layers[1].digest} <= partials(shed).keys()
    proxy.reset()
    pull(shed, proxy, name)
    assert [ranges(proxy, layer.digest) for layer in image.layers[:2]] == [[], []]
    assert_whole(shed, image)


def test_wrong_bytes_of_an_earlier_run_are_fetched_once_more(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    """A power cut may leave anything in a file that was being written."""
    shed = open_shed(retries=0)
    digest = image.layers[0].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, cut=300_000)
    with pytest.raises(UnreachableError):
        pull(shed, proxy, name)
    path = shed.root / "blobs/partial" / digest.removeprefix("sha256:")
    path.write_bytes(bytes(300_000))
    proxy.reset()
    pull(shed, proxy, name)
    assert ranges(proxy, digest) == ["bytes=300000-", ""]
    assert_whole(shed, image)


def test_a_wrong_digest_names_the_blob_and_what_was_good_stays(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    digest = image.layers[1].digest
    rule = proxy.on(f"GET .*/blobs/{digest}", corrupt=200_000)
    with pytest.raises(DigestMismatchError, match=digest):
        pull(shed, proxy, name)
    assert shed.images() == []
    assert digest not in partials(shed)
    assert partials(shed)[image.layers[0].digest] == len(image.layers[0].data)
    proxy.rules.remove(rule)
    proxy.seen.clear()
    pull(shed, proxy, name)
    assert ranges(proxy, image.layers[0].digest) == []
    assert ranges(proxy, digest) == [""]
    assert_whole(shed, image)


def test_a_blob_of_another_size_is_refused(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    digest = image.layers[1].digest
    proxy.on(f"GET .*/blobs/{digest}", action=answer(200, image.layers[1].data + b"more"))
    with pytest.raises(DigestMismatchError, match=digest):
        pull(shed, proxy, name)
    proxy.reset()
    proxy.on(f"GET .*/blobs/{digest}", action=answer(200, image.layers[1].data[:-1]))
    with pytest.raises(DigestMismatchError, match=digest):
        pull(shed, proxy, name)


def test_a_config_whose_diff_ids_lie_is_refused(
    publisher: Publisher, registry: RegistryProcess, shed: Shed, name: str
) -> None:
    good, other = make_image({"a": noise(1000)}), make_image({"b": noise(1000, 1)})
    lying = make_image({"b": noise(1000, 1)}, config=good.config.descriptor)
    for image in (good, other):
        publisher.image(name, image)
    publisher.manifest(name, "lies", lying.manifest)
    with pytest.raises(DigestMismatchError, match="diff ID"):
        shed.import_image(f"docker://{registry.host}/{name}:lies")


# -- the budget ----------------------------------------------------------------------------------


def leave(shed: Shed, count: int, size: int) -> list[Path]:
    """Leave broken transfers, each an hour younger than the one before."""
    place = shed.root / "blobs/partial"
    place.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        path = place / f"{number:064x}"
        path.write_bytes(noise(size, number))
        then = time.time() - 3600 * (count - number)
        os.utime(path, (then, then))
        made.append(path)
    return made


def test_gc_keeps_broken_transfers_within_their_age_and_size(open_shed: OpenShed) -> None:
    shed = open_shed(overrides={"partial_days": 1, "partial_bytes": 250_000})
    left = leave(shed, 30, 40_000)
    shed.gc()
    kept = [path for path in left if path.exists()]
    assert kept == left[-len(kept) :]
    assert 4 <= len(kept) <= 6
    assert shed.df().partial <= 250_000 + 8192
    shed = open_shed("aged", overrides={"partial_days": 1})
    left = leave(shed, 30, 1000)
    shed.gc()
    assert [path.exists() for path in left] == [False] * 7 + [True] * 23


def test_a_pull_keeps_the_budget_too(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    shed = open_shed(overrides={"partial_bytes": 100_000})
    left = leave(shed, 10, 40_000)
    pull(shed, proxy, name)
    assert sum(path.exists() for path in left) == 2


# -- two at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drivers", [("chunk-dedup", "chunk-dedup"), ("chunk-dedup", "naive-copy")])
def test_two_pulls_at_once_fetch_each_layer_once(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, drivers: tuple[str, str]
) -> None:
    proxy.on("GET .*/blobs/", rate=2_000_000)
    pulls = [start_pull(shed.root, f"{proxy.host}/{name}:v1", driver=one) for one in drivers]
    received = 0
    for process in pulls:
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        id, count = out.split()
        assert f"sha256:{id}" == image.id
        received += int(count)
    assert received == image.size
    for layer in image.layers:
        assert ranges(proxy, layer.digest) == [""]
    assert_whole(shed, image)


def test_images_that_share_layers_in_another_order_do_not_wait_for_each_other(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    a, b = {"a": noise(SIZE, (name, "a"))}, {"b": noise(SIZE, (name, "b"))}
    one, other = make_image({"1": b"1"}, a, b), make_image({"2": b"2"}, b, a)
    publisher.image(f"{name}/one", one, "v1")
    publisher.image(f"{name}/other", other, "v1")
    proxy.on("GET .*/blobs/", rate=3_000_000)
    pulls = [start_pull(shed.root, f"{proxy.host}/{name}/{which}:v1") for which in ("one", "other")]
    for process in pulls:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    for layer in one.layers[1:]:
        assert len(ranges(proxy, layer.digest)) == 1


def test_the_second_goes_on_where_the_first_was_killed(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    digest = image.layers[0].digest
    proxy.on(f"GET .*/blobs/{digest}", times=1, stall=400_000)
    first = start_pull(shed.root, f"{proxy.host}/{name}:v1", timeout=30)
    while partials(shed).get(digest, 0) < 262_144:
        assert first.poll() is None
        time.sleep(0.01)
    second = start_pull(shed.root, f"{proxy.host}/{name}:v1")
    while len(proxy.requests("GET .*/manifests/")) < 2:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    _, error = second.communicate(timeout=60)
    assert second.returncode == 0, error
    assert [one.startswith("bytes=") for one in ranges(proxy, digest)] == [False, True]
    assert_whole(shed, image)


def test_threads_of_one_process_share_transfers_too(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on("GET .*/blobs/", rate=4_000_000)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pull(shed, proxy, name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for layer in image.layers:
        assert ranges(proxy, layer.digest) == [""]
    assert_whole(shed, image)


# -- giving up -----------------------------------------------------------------------------------


def test_an_import_that_fails_does_not_wait_for_transfers_that_stall(
    proxy: FaultProxy, publisher: Publisher, open_shed: OpenShed, name: str
) -> None:
    """The first layer is no tar; the second would take half a minute to time out."""
    shed = open_shed(timeout=30)
    image = make_image({"a": b"a"}, {"b": noise(SIZE)}, compress=lambda tar: noise(len(tar)))
    publisher.image(name, image, "v1")
    rule = proxy.on(f"GET .*/blobs/{image.layers[1].digest}", stall=100_000)
    gate = threading.Event()
    proxy.rules.insert(0, type(rule)(re.compile(f"GET .*/blobs/{image.layers[0].digest}")))
    proxy.rules[0].gate = gate

    def listen(event: LayerEvent) -> None:
        if event.state == "fetching" and event.index == 1:
            gate.set()

    before = threading.active_count()
    with pytest.raises(SourceError, match="gzip"):
        pull(shed, proxy, name, listener=listen)
    proxy.released.set()
    assert threading.active_count() <= before + 2  # the proxy's own


def test_memory_stays_bounded(
    proxy: FaultProxy, publisher: Publisher, open_shed: OpenShed, name: str
) -> None:
    """Four layers of 16 MB fetched side by side take no more than their pieces."""
    import tracemalloc

    image = make_image(*({f"f{n}": noise(16_000_000, (name, n))} for n in range(4)))
    publisher.image(name, image, "v1")
    shed = open_shed(driver="naive-copy")
    tracemalloc.start()
    try:
        (imported,) = shed.import_image(f"docker://{proxy._backend}/{name}:v1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert imported.received == image.size
    assert peak < 32_000_000


# -- kept blobs ----------------------------------------------------------------------------------


def test_blobs_are_kept_as_they_came(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    shed = open_shed(overrides={"keep_blobs": True})
    pull(shed, proxy, name)
    for layer in image.layers:
        assert shed.blobs.read(layer.digest) == layer.data
    assert partials(shed) == {}
    # Another driver's layers are made of what is kept, or of the first driver's.
    proxy.reset()
    pull(shed, proxy, name, driver="naive-copy")
    assert proxy.requests("GET .*/blobs/") == []
