"""The Shed's own promises, with the simplest real driver and real files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from cowshed import Shed, hookimpl
from cowshed.accounts import DiskUsage
from cowshed.driver import Driver
from cowshed.errors import (
    AmbiguousError,
    ConfigError,
    ConflictError,
    CowshedError,
    DigestMismatchError,
    DriverError,
    FormatTooNewError,
    InUseError,
    NotFoundError,
    SourceError,
    StoreError,
    UsageError,
    VetoError,
)
from cowshed.importing import Importer, LayerEvent
from cowshed.oci import ImageConfig
from cowshed.records import ImageRecord

Files = Mapping[str, bytes | None]


def layer_tar(files: Files) -> bytes:
    """A tar of regular files; None makes a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Layout:
    """An OCI layout being written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def image(self, tag: str, *layers: Files, diff_ids: list[str] | None = None) -> str:
        tars = [layer_tar(files) for files in layers]
        described = [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                **self.blob(gzip.compress(tar, mtime=0)),
            }
            for tar in tars
        ]
        ids = diff_ids or [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
        config = {
            "created": "2026-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids},
            "history": [
                *({"created_by": f"COPY {number}"} for number in range(len(tars))),
                {"created_by": "CMD sh", "empty_layer": True},
            ],
        }  # fmt: skip
        described_config = self.blob(json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", **described_config
            },
            "layers": described,
        }  # fmt: skip
        self._manifests.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                **self.blob(json.dumps(manifest).encode()),
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        )
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.path / "index.json").write_text(json.dumps(index))
        return str(described_config["digest"]).removeprefix("sha256:")


BASE: Files = {"etc": None, "etc/motd": b"welcome\n", "bin": None, "bin/sh": b"#!" * 500}
TOP_1: Files = {"app": None, "app/main": b"version 1\n"}
TOP_2: Files = {"app": None, "app/main": b"version 2\n", "etc/.wh.motd": b""}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "layout")
    made.image("v1", BASE, TOP_1)
    made.image("v2", BASE, TOP_2)
    return made


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    with Shed(tmp_path / "shed", driver="naive-copy") as opened:
        yield opened


def bring(shed: Shed, layout: Layout, tag: str) -> None:
    shed.import_image(f"oci:{layout.path}:{tag}", f"app:{tag}")


def assert_consistent(shed: Shed) -> None:
    assert shed.check(deep=True) == []
    usage = shed.df()
    drivers = sum(driver.disk for driver in usage.drivers)
    assert usage.total == (
        drivers
        + usage.recipes
        + usage.blobs
        + usage.partial
        + usage.catalog
        + usage.temporary
        + usage.other
    )
    for driver in usage.drivers:
        assert driver.disk == driver.layers + driver.containers + driver.shared
        assert driver.shared >= 0


def _without_catalog(shed: Shed) -> int:
    usage = shed.df()  # LMDB takes pages as transactions come, and keeps them
    return usage.total - usage.catalog


def test_what_no_container_needs_is_reclaimable(shed: Shed, layout: Layout) -> None:
    """Layers that idle images share with each other too, not those that a busy one has."""
    assert shed.df().reclaimable == 0
    for tag in ("v1", "v2"):
        bring(shed, layout, tag)
    idle = shed.df()
    assert idle.reclaimable == sum(driver.disk for driver in idle.drivers) > 0
    container = shed.create("app:v1")
    busy = shed.df()
    assert 0 < busy.reclaimable < idle.reclaimable
    shed.remove_image("app:v2")
    after = shed.df()
    assert after.reclaimable == 0
    came_back = _disk(busy) - _disk(after)
    assert busy.reclaimable <= came_back <= busy.reclaimable + 4096  # the driver's own directory
    container.remove()
    assert shed.df().reclaimable == _disk(shed.df())


def _disk(usage: DiskUsage) -> int:
    return sum(driver.disk for driver in usage.drivers)


# -- importing ---------------------------------------------------------------------------------


def test_a_layer_the_shed_has_is_neither_read_nor_stored_again(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    shared = json.loads(
        (layout.path / "blobs/sha256" / _manifest(layout, "v2")).read_text()
    )["layers"][0]["digest"]  # fmt: skip
    # Were it read, it would be found damaged.
    blob = layout.path / "blobs/sha256" / shared.removeprefix("sha256:")
    blob.write_bytes(bytes(blob.stat().st_size))
    events: list[LayerEvent] = []
    (imported,) = shed.import_image(
        f"oci:{layout.path}:v2", "app:v2", listener=events.append
    )  # fmt: skip
    assert (imported.layers, imported.existing) == (2, 1)
    assert [event.state for event in events if event.state != "reading"] == ["exists", "done"]
    with shed.catalog.read() as transaction:
        assert len(list(transaction.layers())) == 3
    assert_consistent(shed)


def _manifest(layout: Layout, tag: str) -> str:
    index = json.loads((layout.path / "index.json").read_text())
    return next(
        entry["digest"].removeprefix("sha256:")
        for entry in index["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    )


def test_importing_twice_is_fine_and_stores_nothing_new(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    before = _without_catalog(shed)
    (again,) = shed.import_image(f"oci:{layout.path}:v1", "other:name")
    assert again.existing == again.layers == 2
    assert _without_catalog(shed) == before
    assert shed.image("other:name").id == shed.image("app:v1").id


def test_a_wrong_diff_id_is_refused_and_nothing_stays(shed: Shed, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "lying")
    layout.image("x", BASE, TOP_1, diff_ids=["sha256:" + "1" * 64, "sha256:" + "2" * 64])
    before = shed.disk_usage()
    with pytest.raises(DigestMismatchError, match="diff ID"):
        shed.import_image(f"oci:{layout.path}:x")
    assert shed.images() == []
    assert shed.gc().orphans == 0
    assert shed.disk_usage() <= before + 49152  # LMDB's and the driver's own first pages
    assert_consistent(shed)


def test_a_corrupted_layer_leaves_the_layers_below_to_nobody(shed: Shed, layout: Layout) -> None:
    manifest = json.loads((layout.path / "blobs/sha256" / _manifest(layout, "v1")).read_text())
    path = layout.path / "blobs/sha256" / manifest["layers"][1]["digest"].removeprefix("sha256:")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError):
        bring(shed, layout, "v1")
    assert shed.images() == []
    with shed.catalog.read() as transaction:
        assert list(transaction.layers()) == []
        assert list(transaction.leases()) == []
        assert transaction.doomed() == []
    assert list(shed.driver("naive-copy").items()) == []


def test_the_config_s_digest_is_the_image_id(shed: Shed, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "one")
    id = layout.image("x", BASE)
    shed.import_image(f"oci:{layout.path}:x", "one")
    assert shed.image("one").id == id
    assert shed.image(id[:12]).id == id
    assert shed.image(f"sha256:{id}").id == id


def test_history_pairs_every_step_with_its_layer(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v2")
    steps = shed.image("app:v2").history()
    assert [step.created_by for step in steps] == ["COPY 0", "COPY 1", "CMD sh"]
    assert [step.size for step in steps] == [8 + 1000, 10, 0]
    assert steps[2].layer is None
    sizes = sum(step.size for step in steps)
    assert shed.image("app:v2").size == sizes


def test_kept_blobs_are_the_source_s_own(tmp_path: Path, layout: Layout) -> None:
    with Shed(tmp_path / "keeping", driver="naive-copy", overrides={"keep_blobs": True}) as shed:
        bring(shed, layout, "v1")
        kept = set(shed.blobs.iter())
        manifest = _manifest(layout, "v1")
        layers = json.loads((layout.path / "blobs/sha256" / manifest).read_text())["layers"]
        assert {layer["digest"] for layer in layers} <= kept
        assert f"sha256:{manifest}" in kept
        shed.gc()
        assert set(shed.blobs.iter()) == kept
        shed.remove_image("app:v1")
        assert set(shed.blobs.iter()) == set()


# -- names -------------------------------------------------------------------------------------


def test_an_image_removed_just_when_it_is_to_be_named_is_imported(
    shed: Shed, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(shed, layout, "v1")
    look = Importer._here

    def look_and_lose(self: Importer, config: ImageConfig) -> ImageRecord | None:
        monkeypatch.setattr(Importer, "_here", look)
        found = look(self, config)
        shed.remove_image("app:v1")
        return found

    monkeypatch.setattr(Importer, "_here", look_and_lose)
    shed.import_image(f"oci:{layout.path}:v1", "again")
    assert [image.names for image in shed.images()] == [("again:latest",)]
    assert_consistent(shed)


def test_a_name_moves_to_the_newer_image(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    bring(shed, layout, "v2")
    shed.tag("app:v1", "app")
    shed.tag("app:v2", "app")
    assert shed.image("app").id == shed.image("app:v2").id
    assert shed.image("app:v1").names == ("app:v1",)


def test_an_unknown_image_suggests_the_nearest_name(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    with pytest.raises(NotFoundError, match="did you mean 'app:v1'"):
        shed.image("app:v3")


def test_an_ambiguous_prefix_is_an_error(shed: Shed) -> None:
    made = shed.create_many("scratch", 40)
    first = made[0].id[0]
    same = [container for container in made if container.id[0] == first]
    if len(same) > 1:
        with pytest.raises(AmbiguousError):
            shed.container(first)
    assert shed.container(made[0].id[:20]).id == made[0].id


@pytest.mark.parametrize("name", ["UPPER", "a//b", "a:b:c:", "-x", "", "a b", "ä", "x" * 300])
def test_an_invalid_image_name_is_a_usage_error(shed: Shed, name: str) -> None:
    with pytest.raises(UsageError, match="invalid image name"):
        shed.import_image("tar:-", name)


@pytest.mark.parametrize("name", ["-x", "", "a b", "a/b", "ä", "x" * 300])
def test_an_invalid_container_name_is_a_usage_error(shed: Shed, name: str) -> None:
    with pytest.raises(UsageError, match="invalid container name"):
        shed.create("scratch", name)


# -- containers --------------------------------------------------------------------------------


def test_containers_share_an_image_and_don_t_see_each_other(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    one, two = shed.create_many("app:v1", 2)
    with one.tree(writable=True) as tree:
        tree.write_bytes("etc/motd", b"mine\n")
    with two.tree() as tree:
        assert tree.read_bytes("etc/motd") == b"welcome\n"
    assert [(change.kind.value, change.path) for change in one.diff()] == [
        ("C", "etc"),
        ("C", "etc/motd"),
    ]
    assert two.diff() == []
    assert one.usage().apparent == 5


def test_a_container_name_is_taken_once(shed: Shed) -> None:
    shed.create("scratch", "mine")
    with pytest.raises(ConflictError, match="'mine' is in use by container"):
        shed.create("scratch", "mine")
    assert len(shed.containers()) == 1
    assert len(list(shed.driver("naive-copy").items())) == 1


def test_many_containers_are_made_all_or_none(shed: Shed) -> None:
    shed.create("scratch", "b")
    with pytest.raises(ConflictError):
        shed.create_many("scratch", 3, names=["a", "b", "c"])
    assert [container.name for container in shed.containers()] == ["b"]
    assert len(list(shed.driver("naive-copy").items())) == 1


def test_removing_a_container_removes_exactly_its_layer(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    kept = shed.create("app:v1", "kept")
    before = _without_catalog(shed)
    container = shed.create("app:v1")
    with container.tree(writable=True) as tree:
        tree.write_bytes("big", os.urandom(1 << 20))
    assert _without_catalog(shed) > before + (1 << 20)
    container.remove()
    assert _without_catalog(shed) == before
    with kept.tree() as tree:
        assert tree.read_bytes("app/main") == b"version 1\n"
    assert_consistent(shed)


def test_more_containers_go_at_once_than_a_process_may_open_files(shed: Shed) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = shed.create_many("scratch", 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        shed.remove_containers([container.id for container in made])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(shed.driver("naive-copy").items()) == []


def test_a_fork_is_equal_and_apart(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    one = shed.create("app:v1")
    with one.tree(writable=True) as tree:
        tree.write_bytes("etc/motd", b"first\n")
    two = one.fork("second")
    assert two.diff() == one.diff()
    with two.tree(writable=True) as tree:
        tree.unlink("etc/motd")
    with one.tree() as tree:
        assert tree.read_bytes("etc/motd") == b"first\n"
    one.remove()
    with two.tree() as tree:
        assert not tree.exists("etc/motd")
    assert_consistent(shed)


def test_a_second_writer_waits_and_is_told(shed: Shed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowshed.container.WRITER_PATIENCE", 0.01)
    container = shed.create("scratch", "busy")
    with container.tree(writable=True) as tree:
        with pytest.raises(InUseError, match="container busy is in use"):
            container.tree(writable=True)
        with pytest.raises(InUseError, match="being written"):
            container.remove()
        with container.tree():
            pass
        tree.write_bytes("x", b"")
    container.remove()


def test_rename_moves_the_name(shed: Shed) -> None:
    container = shed.create("scratch", "old")
    shed.create("scratch", "taken")
    with pytest.raises(ConflictError):
        container.rename("taken")
    container.rename("new")
    assert shed.container("new").id == container.id
    with pytest.raises(NotFoundError):
        shed.container("old")


# -- commit ------------------------------------------------------------------------------------


def test_a_commit_shares_every_parent_layer(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    container = shed.create("app:v1")
    with container.tree(writable=True) as tree:
        tree.write_bytes("app/new", b"12345")
        tree.unlink("etc/motd")
    image = container.commit("app:mine", author="me", message="why", changes=["CMD run", "ENV A=b"])
    parent = shed.image("app:v1")
    assert image.record.chains[:2] == parent.record.chains
    assert len(image.record.chains) == 3
    assert image.inspect()["Author"] == "me"
    assert image.inspect()["Comment"] == "why"
    assert image.inspect()["Config"]["Cmd"] == ["/bin/sh", "-c", "run"]
    assert image.history()[-1].size == 5
    child = shed.create("app:mine")
    with child.tree() as tree:
        assert tree.read_bytes("app/new") == b"12345"
        assert not tree.exists("etc/motd")
    assert_consistent(shed)


def test_a_commit_without_changes_adds_no_layer(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    image = shed.create("app:v1").commit("same", changes=["LABEL a=1"])
    assert image.record.chains == shed.image("app:v1").record.chains
    assert image.history()[-1].layer is None


def test_a_bad_change_is_refused_before_anything_is_written(shed: Shed) -> None:
    container = shed.create("scratch")
    with pytest.raises(UsageError):
        container.commit("x", changes=["FROM other"])
    assert shed.images() == []


def test_an_image_built_from_scratch_is_saved_and_comes_back(shed: Shed, tmp_path: Path) -> None:
    container = shed.create("scratch")
    with container.tree(writable=True) as tree:
        tree.mkdir("etc")
        tree.write_bytes("etc/hostname", b"cow\n")
        tree.symlink("hostname", "etc/alias")
    image = container.commit("mine:1", changes=['ENTRYPOINT ["/init"]'])
    shed.save(["mine:1"], f"oci-archive:{tmp_path / 'mine.tar'}")
    with Shed(tmp_path / "elsewhere", driver="naive-copy") as other:
        (imported,) = other.import_image(f"oci-archive:{tmp_path / 'mine.tar'}")
        assert imported.image.id == image.id
        assert imported.names == ("mine:1",)


# -- removing images ---------------------------------------------------------------------------


def test_shared_layers_stay_with_the_last_image_that_uses_them(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    bring(shed, layout, "v2")
    lines = shed.remove_image("app:v1")
    assert lines[0] == "Untagged: app:v1"
    assert len([line for line in lines if line.startswith("Deleted")]) == 2
    with shed.create("app:v2").tree() as tree:
        assert tree.read_bytes("bin/sh") == b"#!" * 500
    shed.remove_containers([container.id for container in shed.containers()])
    shed.remove_image("app:v2")
    assert list(shed.driver("naive-copy").items()) == []
    assert list(shed.recipes.diff_ids()) == []
    assert list(shed.blobs.iter()) == []


def test_an_image_in_use_goes_only_by_force_and_its_containers_keep_their_files(
    shed: Shed, layout: Layout
) -> None:
    bring(shed, layout, "v1")
    container = shed.create("app:v1")
    with pytest.raises(InUseError, match="in use by 1 container"):
        shed.remove_image("app:v1")
    shed.remove_image("app:v1", force=True)
    assert shed.images() == []
    with container.tree() as tree:
        assert tree.read_bytes("app/main") == b"version 1\n"
    assert container.inspect()["Config"] == {}
    assert_consistent(shed)
    container.remove()
    assert list(shed.driver("naive-copy").items()) == []


def test_a_name_of_several_goes_alone(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    shed.tag("app:v1", "also")
    shed.create("app:v1")
    assert shed.remove_image("also") == ["Untagged: also:latest"]
    shed.tag("app:v1", "also")
    with pytest.raises(InUseError, match="several names"):
        shed.remove_image(shed.image("also").id)


def test_removing_an_image_during_an_import_of_its_layers_loses_nothing(
    tmp_path: Path, layout: Layout
) -> None:
    """Another process removes v1 while v2, which shares its base, waits for its second layer."""
    reached, go_on = threading.Event(), threading.Event()

    class Slow:
        @hookimpl
        def cowshed_layer_sealed(self, shed: Shed, layer: str) -> None:
            pass

    root = tmp_path / "shed"
    errors: list[BaseException] = []

    def listener(event: LayerEvent) -> None:
        if event.index == 1 and event.state == "reading" and not reached.is_set():
            reached.set()
            assert go_on.wait(30)

    def importing() -> None:
        try:
            with Shed(root, driver="naive-copy", plugins={"slow": Slow()}) as mine:
                mine.import_image(f"oci:{layout.path}:v2", "app:v2", listener=listener)
        except BaseException as error:
            errors.append(error)

    with Shed(root, driver="naive-copy") as shed:
        bring(shed, layout, "v1")
        thread = threading.Thread(target=importing)
        thread.start()
        assert reached.wait(30)
        shed.remove_image("app:v1")
        collected = shed.gc()
        assert any("in use by another process" in line for line in collected.skipped)
        go_on.set()
        thread.join(30)
        assert errors == []
        with shed.create("app:v2").tree() as tree:
            assert tree.read_bytes("bin/sh") == b"#!" * 500
        assert_consistent(shed)


# -- the shed ----------------------------------------------------------------------------------


def test_an_image_moves_to_another_driver_with_its_container(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v2")
    container = shed.create("app:v2", "moving")
    with container.tree(writable=True) as tree:
        tree.write_bytes("app/main", b"changed\n")
        tree.link("bin/sh", "bin/bash")
    before = [(change.kind, change.entry) for change in container.diff()]
    moved = shed.migrate("hardlink-farm")
    assert (moved.images, moved.containers, moved.layers) == (1, 1, 2)
    container = shed.container("moving")
    assert container.driver == "hardlink-farm"
    assert [(change.kind, change.entry) for change in container.diff()] == before
    assert list(shed.driver("naive-copy").items()) == []
    assert_consistent(shed)


def test_a_driver_the_user_names_gets_the_image_unpacked(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    container = shed.create("app:v1", driver="hardlink-farm")
    assert container.driver == "hardlink-farm"
    assert shed.image("app:v1").record.drivers == ("naive-copy", "hardlink-farm")
    assert_consistent(shed)
    container.remove()
    shed.remove_image("app:v1")
    assert list(shed.driver("hardlink-farm").items()) == []
    assert list(shed.driver("naive-copy").items()) == []


def test_orphans_in_a_driver_are_found_by_check_and_swept_by_gc(shed: Shed) -> None:
    shed.driver("naive-copy").prepare("ab" * 32, None)
    (finding,) = shed.check()
    assert finding.severity == "litter"
    assert "abababababab" in finding.problem
    assert shed.gc().orphans == 1
    assert shed.check() == []


def test_a_missing_layer_is_named(shed: Shed, layout: Layout) -> None:
    bring(shed, layout, "v1")
    driver: Driver = shed.driver("naive-copy")
    driver.remove(shed.image("app:v1").record.chains[-1])
    problems = [f"{finding.where}: {finding.problem}" for finding in shed.check()]
    assert any("missing in the driver" in problem for problem in problems)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Shed(tmp_path / "shed").close()
    (tmp_path / "shed" / "cowshed.json").write_text('{"format": 99}')
    with pytest.raises(FormatTooNewError, match="upgrade Cowshed"):
        Shed(tmp_path / "shed")


def test_a_directory_of_other_things_is_no_shed(tmp_path: Path) -> None:
    (tmp_path / "homework").write_text("x")
    with pytest.raises(StoreError, match="homework"):
        Shed(tmp_path)
    assert os.listdir(tmp_path) == ["homework"]


def test_the_shed_is_nobody_else_s_business(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Shed(tmp_path / "shed").close()
    finally:
        os.umask(old)
    assert (tmp_path / "shed").stat().st_mode & 0o777 == 0o700


def test_an_unknown_driver_or_option_names_the_nearest(tmp_path: Path) -> None:
    with (
        Shed(tmp_path / "shed", driver="naive-cpy") as shed,
        pytest.raises(NotFoundError, match="did you mean 'naive-copy'"),
    ):
        shed.create("scratch")
    overrides = {"drivers.hardlink-farm.max_lnks": 5}
    with (
        Shed(tmp_path / "shed", driver="hardlink-farm", overrides=overrides) as shed,
        pytest.raises(ConfigError, match="did you mean 'max_links'"),
    ):
        shed.create("scratch")


def test_a_driver_that_can_t_run_says_why(tmp_path: Path) -> None:
    from cowshed.driver import DriverSpec

    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            def probe(root: Path) -> str | None:
                return "it needs a moon"

            return [DriverSpec(name="lunar", summary="", load=lambda: None, probe=probe)]  # type: ignore[arg-type,return-value]

    with (
        Shed(tmp_path / "shed", plugins={"lunar": Plugin()}) as shed,
        pytest.raises(DriverError, match="driver lunar: can't run here: it needs a moon"),
    ):
        shed.create("scratch", driver="lunar")


def test_a_probe_that_found_nothing_is_asked_again_only_where_something_is_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cowshed import probed
    from cowshed.driver import DriverSpec
    from cowshed_drivers.naive_copy.plugin import SPEC

    answers: list[str | None] = ["it needs a moon", None, "the moon has set"]

    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [attrs.evolve(SPEC, name="lunar", probe=lambda root: answers.pop(0))]

    def use() -> None:
        with Shed(tmp_path / "shed", driver="lunar", plugins={"lunar": Plugin()}) as shed:
            shed.create("scratch")

    with pytest.raises(DriverError, match="it needs a moon"):
        use()
    use()
    use()
    assert answers == ["the moon has set"]
    monkeypatch.setattr(probed, "_circumstances", lambda drivers: "after the next boot")
    with pytest.raises(DriverError, match="the moon has set"):
        use()


def test_a_chain_longer_than_a_driver_holds_is_refused(tmp_path: Path, layout: Layout) -> None:
    from cowshed.driver import DriverSpec
    from cowshed_drivers.naive_copy.plugin import SPEC

    class Plugin:
        @hookimpl
        def cowshed_register_drivers(self) -> list[DriverSpec]:
            return [attrs.evolve(SPEC, name="shallow", max_depth=2)]

    with Shed(tmp_path / "shed", driver="shallow", plugins={"shallow": Plugin()}) as shed:
        bring(shed, layout, "v1")
        container = shed.create("app:v1")
        with container.tree(writable=True) as tree:
            tree.write_bytes("x", b"")
        with pytest.raises(DriverError, match="holds 2 layers in a chain, not 3"):
            container.commit("deeper")
        layout.image("deep", BASE, TOP_1, TOP_2)
        with pytest.raises(DriverError, match="holds 2 layers in a chain, not 3"):
            bring(shed, layout, "deep")
        assert len(shed.images()) == 1


def test_a_veto_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Plugin:
        @hookimpl
        def cowshed_veto(self, operation: str) -> str | None:
            return "not today" if operation == "create" else None

    with Shed(tmp_path / "shed", driver="naive-copy", plugins={"strict": Plugin()}) as shed:
        with pytest.raises(VetoError, match="create refused: not today"):
            shed.create("scratch")
        assert shed.containers() == []


def test_an_abandoned_import_is_swept_by_whoever_opens_next(tmp_path: Path, layout: Layout) -> None:
    child = os.fork()
    if child == 0:
        try:
            with Shed(tmp_path / "shed", driver="naive-copy") as shed:

                def die(event: LayerEvent) -> None:
                    if event.index == 1:
                        os._exit(9)

                shed.import_image(f"oci:{layout.path}:v1", "app:v1", listener=die)
        except CowshedError:
            pass
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with Shed(tmp_path / "shed", driver="naive-copy") as shed:
        assert shed.images() == []
        assert list(shed.driver("naive-copy").items()) == []
        with shed.catalog.read() as transaction:
            assert list(transaction.leases()) == []
            assert transaction.doomed() == []
        bring(shed, layout, "v1")
        assert_consistent(shed)
