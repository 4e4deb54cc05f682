"""What goes wrong between two steps: a full disk, a killed or second process, another thread."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import resource
import tarfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed, hookimpl
from cowshed.catalog import Catalog, Transaction
from cowshed.config import load_config
from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.environment import RESERVE
from cowshed.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    CorruptError,
    CowshedError,
    DriverError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)
from cowshed.importing import LayerEvent
from cowshed.lease import Lease
from cowshed.locking import LockFile
from cowshed.names import image_name
from cowshed.records import LayerRecord
from cowshed.testing import MemoryDriver

Files = Mapping[str, bytes]

BASE: Files = {"bin/sh": b"#!" * 500, "etc/motd": b"welcome\n"}
TOP: Files = {"app/main": b"version 1\n"}


def _tar(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted({os.path.dirname(name) for name in files}):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_layout(path: Path, *layers: Files) -> str:
    """Write an OCI layout with one image; return the image's ID."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    tars = [_tar(files) for files in layers]
    ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}}
    described = blob(json.dumps(config).encode(), "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "config": described,
        "layers": [blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip") for tar in tars],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(described["digest"]).removeprefix("sha256:")


@pytest.fixture
def source(tmp_path: Path) -> str:
    write_layout(tmp_path / "layout", BASE, TOP)
    return f"oci:{tmp_path / 'layout'}"


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    with Shed(tmp_path / "shed", driver="naive-copy") as opened:
        yield opened


# -- the catalog's references ------------------------------------------------------------------


def test_what_an_aborted_transaction_held_is_not_given_back(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    catalog = Catalog(tmp_path / "catalog")
    chain = "ab" * 32
    with catalog.write() as transaction:
        transaction.put_layer(LayerRecord(driver="d", chain=chain, diff_id=f"sha256:{chain}"))
        transaction.hold_layer("d", chain, 2)
    with (
        pytest.raises(NoSpaceError),
        Lease(catalog, LockFile(tmp_path / "locks"), "import") as lease,
        catalog.write() as transaction,
    ):
        lease.hold_layer(transaction, "d", chain)
        raise NoSpaceError("the disk is full")
    with catalog.read() as transaction:
        record = transaction.layer("d", chain)
        assert record is not None
        assert record.references == 2
    catalog.close()


def test_a_finish_that_was_not_committed_still_gives_everything_back(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    catalog = Catalog(tmp_path / "catalog")
    chain = "ab" * 32
    with (
        pytest.raises(NoSpaceError),
        Lease(catalog, LockFile(tmp_path / "locks"), "import") as lease,
    ):
        with catalog.write() as transaction:
            transaction.put_layer(LayerRecord(driver="d", chain=chain, diff_id=f"sha256:{chain}"))
            lease.hold_layer(transaction, "d", chain)
        with catalog.write() as transaction:
            lease.finish(transaction)
            raise NoSpaceError("the disk is full")
    with catalog.read() as transaction:
        assert list(transaction.leases()) == []
        assert transaction.layer("d", chain) is None
        assert transaction.doomed() == [("d", chain)]
    catalog.close()


def test_a_catalog_that_can_t_grow_still_lets_things_be_removed(shed: Shed, source: str) -> None:
    """``rm``, ``rmi`` and ``gc`` are what helps against a full disk."""
    shed.import_image(source, "app")
    shed.create_many("app", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (os.stat(shed.home.catalog / "data.mdb").st_size, hard)
    )
    try:
        for container in shed.containers():
            container.remove()
        shed.remove_image("app")
        shed.gc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert shed.check() == []


def test_the_catalog_s_reserve_is_taken_again(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    catalog = Catalog(tmp_path / "catalog")
    file = tmp_path / "catalog" / "data.mdb"
    assert file.stat().st_blocks * 512 >= RESERVE
    os.truncate(file, file.stat().st_size - RESERVE)
    with catalog.write():
        pass
    assert file.stat().st_blocks * 512 >= RESERVE
    catalog.close()


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sha256:" + "ab" * 32, "sha256:abc", "sha512:x", "ab" * 32])
def test_an_image_name_can_t_pass_for_an_id(name: str) -> None:
    with pytest.raises(UsageError):
        image_name(name)


def test_a_container_s_id_beats_another_s_name(shed: Shed) -> None:
    first = shed.create("scratch", "first")
    shed.create("scratch", first.id)
    assert shed.container(first.id).name == "first"


def test_one_batch_can_t_use_a_name_twice(shed: Shed) -> None:
    with pytest.raises(ConflictError, match="twice"):
        shed.create_many("scratch", 2, names=["same", "same"])
    assert shed.containers() == []


def test_a_name_that_moves_while_it_is_removed_goes_from_where_it_is(
    shed: Shed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layout(tmp_path / "one", BASE)
    write_layout(tmp_path / "two", TOP)
    shed.import_image(f"oci:{tmp_path / 'one'}", "app")
    first = shed.image("app").id
    write = shed.catalog.write

    def import_then() -> Any:
        monkeypatch.undo()
        shed.import_image(f"oci:{tmp_path / 'two'}", "app")
        return write()

    monkeypatch.setattr(shed.catalog, "write", import_then)
    shed.remove_image("app")
    assert [image.id for image in shed.images()] == [first]


# -- files that are gone or damaged ------------------------------------------------------------


def test_an_image_goes_even_if_its_blobs_are_gone(shed: Shed, source: str) -> None:
    shed.import_image(source, "app")
    record = shed.image("app").record
    shed.blobs.delete(record.manifest)
    shed.blobs.delete(f"sha256:{record.id}")
    assert any("Deleted" in line for line in shed.remove_image("app"))
    assert shed.images() == []
    assert shed.check() == []


def test_a_lost_manifest_costs_annotations_only(shed: Shed, source: str, tmp_path: Path) -> None:
    shed.import_image(source, "app")
    shed.blobs.delete(shed.image("app").record.manifest)
    assert shed.image("app").annotations == {}
    shed.save(["app"], f"oci:{tmp_path / 'out'}:app")


def test_a_lost_config_is_named_with_its_image(shed: Shed, source: str) -> None:
    shed.import_image(source, "app")
    image = shed.image("app")
    shed.blobs.delete(f"sha256:{image.id}")
    with pytest.raises(CorruptError, match=f"image {image.id[:12]}"):
        _ = image.config


@pytest.mark.parametrize("fault", ["recipe", "driver"])
def test_a_damaged_twin_is_no_reason_to_refuse_a_good_source(
    tmp_path: Path, source: str, fault: str
) -> None:
    """Another driver has the layers too, but can't give them back: the source is read."""
    root = tmp_path / "shed"
    with Shed(root, driver="hardlink-farm") as shed:
        shed.import_image(source, "app")
        if fault == "recipe":
            for diff_id in shed.image("app").record.diff_ids:
                shed.recipes.path(diff_id).write_bytes(b"nonsense")
    gone = {"disabled_plugins": ["hardlink-farm"]} if fault == "driver" else {}
    with Shed(root, driver="naive-copy", overrides=gone) as shed:
        (imported,) = shed.import_image(source, "app")
        assert imported.existing == 0
        assert set(imported.image.drivers) == {"naive-copy", "hardlink-farm"}
        with shed.create("app").tree() as tree:
            assert tree.read_bytes("app/main") == b"version 1\n"
    with Shed(root, driver="naive-copy") as shed:
        assert shed.check(deep=True) == []


# -- opening -----------------------------------------------------------------------------------


def _kill_while_reading(root: Path, source: str, index: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            with Shed(root, driver="naive-copy") as shed:

                def die(event: LayerEvent) -> None:
                    if event.index == index and event.read:
                        os._exit(9)

                shed.import_image(source, "app", listener=die)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_import_s_stage_goes_when_the_shed_is_opened_next(
    tmp_path: Path, source: str, index: int
) -> None:
    root = tmp_path / "shed"
    with Shed(root, driver="naive-copy") as shed:
        shed.driver("naive-copy")
        empty = shed.driver("naive-copy").disk_usage()
    _kill_while_reading(root, source, index)
    with Shed(root, driver="naive-copy") as shed:
        assert shed.driver("naive-copy").disk_usage() <= empty


def test_a_layer_killed_between_its_seal_and_the_catalog_is_swept(
    tmp_path: Path, source: str
) -> None:
    root = tmp_path / "shed"
    child = os.fork()
    if child == 0:
        try:
            with Shed(root, driver="naive-copy") as shed:
                put_layer = Transaction.put_layer
                count = 0

                def die(self: Transaction, record: LayerRecord) -> None:
                    nonlocal count
                    count += 1
                    if count == 2:
                        os._exit(9)
                    put_layer(self, record)

                Transaction.put_layer = die  # type: ignore[method-assign]
                shed.import_image(source, "app")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with Shed(root, driver="naive-copy") as shed:
        assert list(shed.driver("naive-copy").items()) == []
        assert shed.check() == []


class _Spiteful(MemoryDriver):
    """Refuses to remove anything."""

    def remove(self, id: str) -> None:
        raise RuntimeError("its own fault")


class _SpitefulPlugin:
    @hookimpl
    def cowshed_register_drivers(self) -> list[DriverSpec]:
        return [
            DriverSpec(
                name="spiteful",
                summary="Can't remove anything.",
                load=lambda: lambda root, options: _Spiteful(root),
                capabilities=frozenset({Capability.INSTANT_PREPARE}),
            )
        ]


def test_one_thing_that_can_t_be_swept_doesn_t_close_the_shed(tmp_path: Path) -> None:
    plugins = {"spiteful": _SpitefulPlugin()}
    with Shed(tmp_path / "shed", plugins=plugins) as shed:
        container = shed.create("scratch", driver="spiteful")
        with pytest.raises(RuntimeError):
            container.remove()
    with Shed(tmp_path / "shed", plugins=plugins) as shed:
        assert shed.containers() == []
        with pytest.raises(RuntimeError):
            shed.gc()


def _open_at(root: Path, when: float) -> None:
    time.sleep(max(0.0, when - time.time()))
    with Shed(root) as shed:
        shed.images()


def test_several_processes_may_make_one_shed_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(10):
        when = time.time() + 0.1
        root = tmp_path / f"shed-{attempt}"
        children = [context.Process(target=_open_at, args=(root, when)) for _ in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 6


def test_threads_may_use_a_fresh_shed_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        with (
            Shed(tmp_path / f"shed-{attempt}", driver="naive-copy") as shed,
            ThreadPoolExecutor(8) as threads,
        ):
            start = threading.Barrier(8)

            def create(_: int, shed: Shed = shed, start: threading.Barrier = start) -> Driver:
                start.wait()
                shed.create("scratch")
                return shed.driver("naive-copy")

            assert len(set(threads.map(create, range(8)))) == 1
            assert len(shed.containers()) == 8


def test_a_driver_whose_library_is_missing_is_named(tmp_path: Path) -> None:
    def load() -> Callable[[Path, Any], Driver]:
        raise ImportError("No module named 'rocks'")

    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [DriverSpec(name="rocks", summary="Needs a library.", load=load)]

    with (
        Shed(tmp_path / "shed", plugins={"p": Plugin()}) as shed,
        pytest.raises(DriverError, match="driver rocks: can't be imported: No module named"),
    ):
        shed.create("scratch", driver="rocks")


def test_a_home_that_nobody_knows_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(ConfigError, match="COWSHED_ROOT"):
        load_config(environment={})


def test_a_source_date_epoch_that_is_no_number_is_a_clear_error(
    shed: Shed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH"):
        shed.create("scratch").commit("made")


# -- two operations at once --------------------------------------------------------------------


def test_a_container_that_moved_meanwhile_is_not_moved_twice(shed: Shed) -> None:
    shed.create("scratch", "moving")
    stale = shed.container("moving")
    shed.migrate("hardlink-farm", ["moving"])
    looked_up = shed.container
    shed.container = lambda reference: stale  # type: ignore[method-assign]
    moved = shed.migrate("hardlink-farm", ["moving"])
    shed.container = looked_up  # type: ignore[method-assign]
    assert moved.containers == 0
    assert shed.container("moving").driver == "hardlink-farm"
    assert shed.check() == []


def test_an_image_that_moved_meanwhile_is_used_where_it_is(shed: Shed, source: str) -> None:
    """``create`` and ``save`` looked the image up before it went to another driver."""
    shed.import_image(source, "app")
    stale = shed.image("app")
    looked_up = shed.image
    shed.migrate("hardlink-farm", ["app"])
    assert len(stale.layers) == 2
    answers = [stale]

    def look_up(reference: str) -> Any:
        return answers.pop() if answers else looked_up(reference)

    shed.image = look_up  # type: ignore[method-assign]
    container = shed.create("app", driver="naive-copy")
    with container.tree() as tree:
        assert tree.read_bytes("app/main") == b"version 1\n"
    assert shed.check() == []


def test_an_image_removed_while_it_is_saved_is_saved_whole(
    shed: Shed, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shed.import_image(source, "app")
    diff_ids = shed.image("app").record.diff_ids
    write = shed.write_layer_tar

    def remove_then(record: LayerRecord, out: Any) -> str:
        if shed.images():
            shed.remove_image("app")
            shed.gc()
        return write(record, out)

    monkeypatch.setattr(shed, "write_layer_tar", remove_then)
    shed.save(["app"], f"oci:{tmp_path / 'out'}:app")
    monkeypatch.undo()
    assert list(shed.driver("naive-copy").items()) == []
    shed.import_image(f"oci:{tmp_path / 'out'}:app", "app")
    assert shed.image("app").record.diff_ids == diff_ids


def test_the_layers_of_a_removed_image_are_nobody_s_damage(shed: Shed, source: str) -> None:
    shed.import_image(source, "app")
    stale = shed.image("app")
    shed.remove_image("app")
    with pytest.raises(NotFoundError, match="no such image: app"):
        _ = stale.layers


def test_committing_a_container_that_was_removed_says_so(shed: Shed) -> None:
    stale = shed.create("scratch", "gone")
    shed.remove_containers(["gone"])
    with pytest.raises(NotFoundError, match="no such container: gone"):
        stale.commit("made")
    with pytest.raises(NotFoundError, match="no such container: gone"):
        stale.fork("copy")


def test_a_container_removed_while_it_is_committed_or_moved_is_named(
    shed: Shed, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = shed.making

    def remove_then(driver: str) -> Any:
        if shed.containers():
            shed.remove_containers(["going"], force=True)
            shed.remove_image("app")
        return making(driver)

    for operation in (lambda one: one.commit("made"), lambda one: shed.migrate("hardlink-farm")):
        shed.import_image(source, "app")
        container = shed.create("app", "going")
        with container.tree(writable=True) as tree:
            tree.write_bytes("file", b"content")
        image = shed.image("app")
        with monkeypatch.context() as patch:
            patch.setattr(shed, "making", remove_then)
            patch.setattr(shed, "images", list)
            with pytest.raises(NotFoundError, match="no such container: going"):
                operation(container)
        assert image.id not in [one.id for one in shed.images()]
    assert shed.check() == []


def test_committing_a_container_that_moved_meanwhile_works(shed: Shed) -> None:
    stale = shed.create("scratch", "moving")
    with stale.tree(writable=True) as tree:
        tree.write_bytes("file", b"content")
    shed.migrate("hardlink-farm", ["moving"])
    assert stale.commit("made").record.drivers == ("hardlink-farm",)
    assert stale.fork().driver == "hardlink-farm"


def test_a_check_isn_t_disturbed_by_what_is_removed_meanwhile(shed: Shed, source: str) -> None:
    shed.import_image(source, "app")
    shed.create("app", "going")
    driver = shed.driver("naive-copy")
    items = driver.items

    def remove_then() -> Any:
        if shed.containers():
            shed.remove_containers(["going"])
            shed.remove_image("app")
        return items()

    driver.items = remove_then  # type: ignore[method-assign]
    assert shed.check(deep=True) == []


def test_a_check_survives_what_vanishes_while_it_is_verified(shed: Shed) -> None:
    shed.create("scratch", "going")
    driver = shed.driver("naive-copy")
    verify = driver.verify

    def remove_then(id: str, *, deep: bool = False) -> Any:
        shed.remove_containers(["going"])
        return verify(id, deep=deep)

    driver.verify = remove_then  # type: ignore[method-assign]
    assert shed.check() == []


def test_an_interrupt_after_the_commit_takes_nothing_back(
    shed: Shed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the catalog's commit and the return leaves a whole container."""
    write = Catalog.write

    @contextmanager
    def interrupted(self: Catalog) -> Generator[Any]:
        with write(self) as transaction:
            yield transaction
        if shed.containers():
            raise KeyboardInterrupt

    monkeypatch.setattr(Catalog, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shed.create("scratch", "whole")
    monkeypatch.undo()
    with shed.container("whole").tree() as tree:
        assert list(tree.scandir("")) == []
    assert shed.check() == []


def test_failures_leak_no_descriptors(shed: Shed, source: str, monkeypatch: Any) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    shed.import_image(source, "app")
    shed.create("app", "taken")
    before = count()
    for _ in range(5):
        with pytest.raises(ConflictError):
            shed.create("app", "taken")
        with pytest.raises(CowshedError):
            shed.import_image("oci:/nowhere", "app")
        with monkeypatch.context() as patch:
            patch.setattr(shed, "making", _busy)
            with pytest.raises(BusyError):
                shed.container("taken").commit("made")
            with pytest.raises(BusyError):
                shed.create("app")
    assert count() == before


def _busy(driver: str) -> Any:
    raise BusyError("in use")
