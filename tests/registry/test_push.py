"""Images go to real registries: the cheapest way there is, and unchanged."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cowshed import Shed
from cowshed.errors import UnsupportedError, UsageError
from cowshed.target import SavedEvent
from cowshed_plugins.registry import target as target_module
from cowshed_plugins.registry.errors import RegistryError, UnauthorisedError, UnreachableError

from .conftest import OpenShed
from .images import MadeImage, Publisher, make_image, noise
from .services import (
    PASSWORD,
    USER,
    Authorities,
    FaultProxy,
    RegistryProcess,
    TokenServer,
    answer,
    redirect,
)

FILES = {"etc/hello": b"hello\n" * 100, "usr/noise": noise(300_000)}
DRIVERS = ("naive-copy", "hardlink-farm", "chunk-dedup", "overlayfs", "reflink")


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    made = make_image(FILES, {"etc/more": noise(100_000, name)})
    publisher.image(f"{name}/from", made, "v1")
    return made


def states(events: list[SavedEvent]) -> list[str]:
    """Return the last news of each layer, in their order."""
    last = {event.index: event.state for event in events}
    return [last[index] for index in sorted(last)]


def push(shed: Shed, image: str, target: str | None = None, **more: Any) -> tuple[Any, list[str]]:
    events: list[SavedEvent] = []
    written = shed.push(image, target, listener=events.append, **more)
    assert written is not None
    return written, states(events)


# -- what arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker schema 2"])
def test_with_kept_blobs_an_image_goes_back_byte_for_byte(
    registry: RegistryProcess,
    publisher: Publisher,
    open_shed: OpenShed,
    name: str,
    driver: str,
    docker: bool,
) -> None:
    made = make_image(FILES, {"x": noise(1000)}, docker=docker, annotations=[{"a": "b"}, {}])
    publisher.image(f"{name}/from", made, "v1")
    shed = open_shed(driver=driver, overrides={"keep_blobs": True})
    shed.pull(f"{registry.host}/{name}/from:v1")
    # A registry that has none of it: the blobs are those that were kept.
    with_nothing = f"{registry.host}/{name}/to:v1"
    for layer in (made.config, *made.layers):
        registry.blob(layer.digest).unlink(missing_ok=True)
    written, _ = push(shed, made.id, with_nothing)
    assert written.manifest.digest == made.manifest.digest
    assert publisher.get_manifest(f"{name}/to", "v1") == made.manifest
    for layer in (made.config, *made.layers):
        assert publisher.get_blob(f"{name}/to", layer.digest) == layer.data


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("compression", [None, "gzip", "zstd", "none"])
def test_without_them_layers_have_the_same_diff_ids(
    registry: RegistryProcess,
    publisher: Publisher,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
    driver: str,
    compression: str | None,
) -> None:
    shed = open_shed(driver=driver)
    shed.pull(f"{registry.host}/{name}/from:v1")
    for layer in image.layers:
        registry.blob(layer.digest).unlink()
    written, said = push(shed, image.id, f"{registry.host}/{name}/to:v1", compression=compression)
    assert said == ["sent", "sent"]
    document = json.loads(publisher.get_manifest(f"{name}/to", "v1").data)
    assert document["config"]["digest"] == image.id
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        "none": bytes,
    }
    for layer, tar in zip(document["layers"], image.tars, strict=True):
        data = publisher.get_blob(f"{name}/to", layer["digest"])
        assert len(data) == layer["size"]
        assert unpack[compression or "gzip"](data) == tar
    assert written.sent == written.total == sum(layer["size"] for layer in document["layers"])


def test_an_image_made_here_goes_over_what_is_there(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, image: MadeImage, name: str
) -> None:
    """Layers of the image below aren't sent, and nothing is when it is pushed again."""
    base = f"{registry.host}/{name}/from:v1"
    shed.pull(base)
    container = shed.create(base)
    with container.tree(writable=True) as tree:
        tree.write_bytes("etc/mine", b"mine")
    mine = f"{registry.host}/{name}/mine:v1"
    container.commit(mine)
    written, said = push(shed, mine)
    assert said == ["mounted", "mounted", "sent"]
    assert (written.layers, written.existing) == (3, 2)
    again, said = push(shed, mine)
    assert said == ["exists", "exists", "exists"]
    assert (again.manifest, again.sent) == (written.manifest, 0)
    (pulled,) = shed.pull(mine)
    assert (pulled.image.id, pulled.existing) == (shed.image(mine).id, 3)


def test_a_repository_that_has_the_blobs_is_sent_nothing(
    registry: RegistryProcess, proxy: FaultProxy, shed: Shed, image: MadeImage, name: str
) -> None:
    shed.pull(f"{registry.host}/{name}/from:v1", f"{proxy.host}/{name}/from:v2")
    written, said = push(shed, f"{proxy.host}/{name}/from:v2")
    assert said == ["exists", "exists"]
    assert written.manifest.digest == image.manifest.digest
    assert proxy.requests("POST|PATCH") == []
    assert [one.path for one in proxy.requests("PUT")] == [f"/v2/{name}/from/manifests/v2"]


def test_a_blob_that_cannot_be_mounted_is_sent(
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
) -> None:
    shed = open_shed(overrides={"keep_blobs": True})
    shed.pull(f"{proxy.host}/{name}/from:v1")
    # It was seen in a repository that doesn't exist any more, as far as the registry knows.
    shed.tag(image.id, f"{proxy.host}/{name}/gone:v1")
    shed.remove_image(f"{proxy.host}/{name}/from:v1")
    written, said = push(shed, image.id, f"{proxy.host}/{name}/to:v1")
    assert len(proxy.requests(f"POST .*mount=.*from={name}%2Fgone")) == 2
    assert said == ["sent", "sent"]
    assert written.manifest.digest == image.manifest.digest
    assert publisher.get_manifest(f"{name}/to", "v1") == image.manifest


def test_an_image_goes_where_its_name_or_the_target_says(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, image: MadeImage, name: str
) -> None:
    shed.pull(f"{registry.host}/{name}/from:v1", "local:1")
    with pytest.raises(UsageError, match="several names"):
        shed.tag("local:1", f"{registry.host}/{name}/named:v3")
        shed.push(image.id)
    push(shed, f"{registry.host}/{name}/named:v3")
    assert publisher.get_manifest(f"{name}/named", "v3")
    push(shed, "local:1", f"docker://{registry.host}/{name}/told")
    assert publisher.get_manifest(f"{name}/told", "latest")
    with pytest.raises(UsageError, match="digest"):
        shed.push("local:1", f"{registry.host}/x@{image.manifest.digest}")


def test_an_image_without_layers_goes_too(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, name: str
) -> None:
    empty = make_image()
    publisher.image(f"{name}/from", empty, "v1")
    shed.pull(f"{registry.host}/{name}/from:v1")
    written, _ = push(shed, empty.id, f"{registry.host}/{name}/to:v1")
    assert (written.layers, written.total) == (0, 0)
    assert publisher.get_manifest(f"{name}/to", "v1") == empty.manifest


def test_a_layer_that_occurs_twice_goes_once(
    registry: RegistryProcess, proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    twice = make_image(FILES, FILES)
    publisher.image(f"{name}/from", twice, "v1")
    (pulled,) = shed.pull(f"{proxy.host}/{name}/from:v1")
    assert len(proxy.requests(f"GET .*{twice.layers[0].digest}")) == 1
    assert (pulled.layers, pulled.existing) == (2, 1)
    written, _ = push(shed, twice.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    assert len(proxy.requests("PATCH")) == 1
    assert written.layers == 2


# -- locks and keys ------------------------------------------------------------------------------


def test_a_password_is_enough(
    guarded: RegistryProcess,
    authorities: Authorities,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    tmp_path: Path,
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    shed = open_shed(certs=str(certs), auth_file=str(alice(guarded.host)))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/file").write_bytes(noise(10_000))
    shed.import_image(f"dir:{tmp_path}/files", "mine:1")
    written, said = push(shed, "mine:1", f"{guarded.host}/pushed:1")
    assert said == ["sent"]
    fresh = open_shed("fresh", certs=str(certs), auth_file=str(alice(guarded.host)))
    (pulled,) = fresh.pull(f"{guarded.host}/pushed:1")
    assert pulled.image.manifest == written.manifest.digest


def test_a_token_for_pushing_and_mounting_is_asked_for(
    ticketed: RegistryProcess,
    token_server: TokenServer,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
) -> None:
    made = make_image(FILES)
    token = token_server.token([f"repository:{name}/from:pull,push"], USER)
    bearer = {"Authorization": f"Bearer {token}"}
    Publisher(f"http://{ticketed.host}", bearer).image(f"{name}/from", made, "v1")
    shed = open_shed(auth_file=str(alice(ticketed.host)))
    shed.pull(f"{ticketed.host}/{name}/from:v1")
    token_server.seen.clear()
    _, said = push(shed, made.id, f"{ticketed.host}/{name}/to:v1")
    assert said == ["mounted"]
    scopes = " ".join(one.path for one in token_server.seen)
    path = name.replace("/", "%2F")
    assert f"repository%3A{path}%2Fto%3Apull%2Cpush" in scopes
    assert f"repository%3A{path}%2Ffrom%3Apull" in scopes


def test_who_may_only_pull_is_told_so(
    ticketed: RegistryProcess, token_server: TokenServer, shed: Shed, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    shed.import_image(f"dir:{tmp_path}/files", "mine:1")
    with pytest.raises(UnauthorisedError, match=ticketed.host):
        shed.push("mine:1", f"{ticketed.host}/public/image:v2")


# -- uploads that break --------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(target_module, "CHUNK", 64 << 10)
    return 64 << 10


def started(shed: Shed, registry: RegistryProcess, name: str) -> None:
    """Take the image in and forget its blobs, so that its layers are compressed anew."""
    shed.pull(f"{registry.host}/{name}/from:v1")


def test_layers_go_up_in_chunks(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    shed: Shed,
    image: MadeImage,
    name: str,
    small_chunks: int,
) -> None:
    started(shed, registry, name)
    written, _ = push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    sizes = [int(one.headers["content-length"]) for one in proxy.requests("PATCH")]
    assert max(sizes) == small_chunks
    assert sum(sizes) == written.sent
    assert all("content-range" in one.headers for one in proxy.requests("PATCH"))
    fetched = publisher.get_manifest(f"{name}/to", "v1")
    assert fetched.digest == written.manifest.digest


@pytest.mark.parametrize("status", [500, 503])
def test_a_chunk_that_fails_is_sent_again(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    shed: Shed,
    image: MadeImage,
    name: str,
    small_chunks: int,
    status: int,
) -> None:
    started(shed, registry, name)
    proxy.on("PATCH", times=2, action=answer(status))
    written, _ = push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    assert proxy.requests("GET .*/uploads/")
    assert publisher.get_manifest(f"{name}/to", "v1").digest == written.manifest.digest
    shed.remove_image(image.id, force=True)
    shed.pull(f"{registry.host}/{name}/to:v1")


def test_a_connection_that_breaks_in_a_chunk_is_made_again(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
    small_chunks: int,
) -> None:
    """The registry has the chunk, but its answer is lost: it is asked how far it got.

    docker-registry doesn't know an upload by an address that is a chunk behind, so that this layer
    begins anew.
    """
    shed = open_shed(timeout=2)
    started(shed, registry, name)
    proxy.on("PATCH", times=1, lose=True)
    written, _ = push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    assert proxy.requests("GET .*/uploads/")
    assert publisher.get_manifest(f"{name}/to", "v1").digest == written.manifest.digest
    fresh = open_shed("fresh")
    assert fresh.pull(f"{registry.host}/{name}/to:v1")[0].image.id == shed.image(image.id).id


def test_a_lost_upload_is_begun_again(
    registry: RegistryProcess,
    proxy: FaultProxy,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
    small_chunks: int,
) -> None:
    shed = open_shed()
    started(shed, registry, name)
    proxy.on("PATCH", times=1, action=answer(404))
    push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    fresh = open_shed("fresh")
    assert fresh.pull(f"{registry.host}/{name}/to:v1")[0].image.id == shed.image(image.id).id


@pytest.mark.parametrize("fault", [{"lose": True}, {"action": answer(404)}], ids=["done", "gone"])
def test_the_end_of_an_upload_is_not_taken_for_granted(
    registry: RegistryProcess,
    proxy: FaultProxy,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
    fault: dict[str, Any],
) -> None:
    """The registry has the blob, but its answer is lost; or it doesn't know the upload any more."""
    shed = open_shed()
    started(shed, registry, name)
    proxy.on("PUT .*/uploads/", times=1, **fault)
    push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    fresh = open_shed("fresh")
    assert fresh.pull(f"{registry.host}/{name}/to:v1")[0].image.id == shed.image(image.id).id


def test_a_kept_blob_is_sent_again_from_its_start(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
) -> None:
    shed = open_shed(overrides={"keep_blobs": True})
    shed.pull(f"{registry.host}/{name}/from:v1", "local:1")
    digest = image.layers[0].digest
    proxy.on(f"PUT .*digest={digest.replace(':', '%3A')}", times=1, action=answer(503))
    written, _ = push(shed, "local:1", f"{proxy.host}/{name}/to:v1")
    assert written.manifest.digest == image.manifest.digest
    assert len(proxy.requests(f"PUT .*digest={digest.replace(':', '%3A')}")) == 2


def test_a_push_that_fails_shows_nothing(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    shed: Shed,
    image: MadeImage,
    name: str,
) -> None:
    started(shed, registry, name)
    proxy.on("PATCH", action=answer(500))
    with pytest.raises((RegistryError, UnreachableError)):
        push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    assert proxy.requests("PUT .*/manifests/") == []
    assert proxy.requests("DELETE .*/uploads/")


def test_uploads_to_another_host_see_no_credentials(
    registry: RegistryProcess,
    proxy: FaultProxy,
    authorities: Authorities,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    image: MadeImage,
    name: str,
) -> None:
    """A Location may lead anywhere; what is behind it gets the bytes and no key."""
    with_key = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    elsewhere = FaultProxy(registry.host, host="localhost")
    try:
        asked = answer(401, WWW_Authenticate='Basic realm="test"')

        def begin(handler: Any) -> None:
            if handler.headers.get("Authorization") != f"Basic {with_key}":
                asked(handler)
                return
            where = f"http://{elsewhere.host}/upload"
            answer(202, Location=where)(handler)

        proxy.on("POST", action=begin)
        elsewhere.on("PATCH", action=answer(202, Location="/upload"))
        elsewhere.on("PUT", action=answer(201))
        shed = open_shed(auth_file=str(alice(proxy.host)))
        started(shed, registry, name)
        with pytest.raises(RegistryError):  # the registry doesn't know the blobs, of course
            push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")
    finally:
        elsewhere.close()
    assert elsewhere.requests("PATCH")
    assert {one.authorization for one in elsewhere.seen} == {""}
    assert any(one.authorization for one in proxy.requests("POST"))


@pytest.mark.parametrize(
    "where",
    ["file:///tmp/x", "gopher://127.0.0.1/", "http://localhost:1\\@{host}/", "http://[bad"],
)
def test_uploads_to_another_scheme_are_refused(
    registry: RegistryProcess,
    proxy: FaultProxy,
    shed: Shed,
    image: MadeImage,
    name: str,
    where: str,
) -> None:
    started(shed, registry, name)
    proxy.on("POST", action=answer(202, Location=where.replace("{host}", proxy.host)))
    with pytest.raises(RegistryError, match="it redirects to"):
        push(shed, image.id, f"{proxy.host}/{name}/to:v1", compression="zstd")


def test_a_manifest_put_is_not_redirected_with_a_key(
    registry: RegistryProcess, proxy: FaultProxy, shed: Shed, image: MadeImage, name: str
) -> None:
    started(shed, registry, name)
    proxy.on("PUT .*/manifests/", action=redirect("http://localhost:1/", 301))
    with pytest.raises(RegistryError, match="status 301"):
        push(shed, image.id, f"{proxy.host}/{name}/to:v1")


# -- copies --------------------------------------------------------------------------------------


def test_a_copy_is_the_same_image_wherever_it_goes(
    registry: RegistryProcess,
    publisher: Publisher,
    guarded: RegistryProcess,
    authorities: Authorities,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    image: MadeImage,
    name: str,
    tmp_path: Path,
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    shed = open_shed(certs=str(certs), auth_file=str(alice(guarded.host)))
    source = f"docker://{registry.host}/{name}/from:v1"
    stations = [
        f"docker://{guarded.host}/{name}/copy:v1",
        f"oci:{tmp_path}/layout:v1",
        f"oci-archive:{tmp_path}/archive.tar:v1",
        f"docker://{registry.host}/{name}/back:v1",
    ]
    for station in stations:
        (written,) = shed.copy(source, station)
        assert written.manifest.digest == image.manifest.digest
        assert (written.sent, written.total) in ((image.size, image.size), (0, image.size))
        source = station
    assert publisher.get_manifest(f"{name}/back", "v1") == image.manifest
    assert shed.images() == []
    shed.copy(source, f"docker-archive:{tmp_path}/docker.tar:name:v1")
    shed.import_image(f"docker-archive:{tmp_path}/docker.tar")
    assert f"sha256:{shed.image('name:v1').id}" == image.id


def test_a_copy_within_a_registry_moves_no_bytes(
    proxy: FaultProxy, shed: Shed, image: MadeImage, name: str
) -> None:
    (written,) = shed.copy(f"{proxy.host}/{name}/from:v1", f"{proxy.host}/{name}/to:v1")
    assert (written.sent, written.existing) == (0, 2)
    assert written.manifest.digest == image.manifest.digest
    assert [one for one in proxy.requests("GET .*/blobs/") if image.id not in one.path] == []


def test_a_copy_to_a_layout_takes_only_what_it_lacks(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str, tmp_path: Path
) -> None:
    one, other = make_image(FILES, {"1": b"1"}), make_image(FILES, {"2": b"2"})
    publisher.image(name, one, "v1")
    publisher.image(name, other, "v2")
    shed.copy(f"{proxy.host}/{name}:v1", f"oci:{tmp_path}/layout:v1")
    proxy.reset()
    (written,) = shed.copy(f"{proxy.host}/{name}:v2", f"oci:{tmp_path}/layout:v2")
    assert written.existing == 1
    assert proxy.requests(f"GET .*{other.layers[0].digest}") == []
    assert written.manifest.digest == other.manifest.digest


def test_a_copy_can_change_the_compression(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, image: MadeImage, name: str
) -> None:
    shed.copy(
        f"{registry.host}/{name}/from:v1", f"{registry.host}/{name}/to:v1", compression="zstd"
    )
    document = json.loads(publisher.get_manifest(f"{name}/to", "v1").data)
    assert document["config"]["digest"] == image.id
    for layer, tar in zip(document["layers"], image.tars, strict=True):
        data = publisher.get_blob(f"{name}/to", layer["digest"])
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        assert hashlib.sha256(plain).digest() == hashlib.sha256(tar).digest()


def test_a_copy_of_a_broken_source_writes_nothing(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, image: MadeImage, name: str, tmp_path: Path
) -> None:
    proxy.on(f"GET .*/blobs/{image.layers[1].digest}", corrupt=50_000)
    for target in (f"oci:{tmp_path}/layout:v1", f"docker://{proxy._backend}/{name}/to:v1"):
        with pytest.raises(RegistryError if "docker" in target else Exception):
            shed.copy(f"{proxy.host}/{name}/from:v1", target)
    assert not (tmp_path / "layout").exists()


def test_a_bare_root_file_system_is_no_image_to_copy(shed: Shed, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="import it, then"):
        shed.copy(f"dir:{tmp_path}", f"oci:{tmp_path}/x:1")


# -- saving with kept blobs ----------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_saved_layout_has_the_digest_that_was_pulled(
    registry: RegistryProcess,
    open_shed: OpenShed,
    image: MadeImage,
    name: str,
    driver: str,
    tmp_path: Path,
) -> None:
    shed = open_shed(driver=driver, overrides={"keep_blobs": True})
    shed.pull(f"{registry.host}/{name}/from:v1")
    shed.save([image.id], f"oci:{tmp_path}/layout:v1")
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert entry["digest"] == image.manifest.digest
    # A damaged blob doesn't spoil it: the layer itself is there.
    path = shed.blobs.path(image.layers[0].digest)
    path.write_bytes(bytes(path.stat().st_size))
    shed.save([image.id], f"oci:{tmp_path}/other:v1")
    fresh = open_shed("fresh")
    fresh.import_image(f"oci:{tmp_path}/other:v1")
    assert fresh.image(image.id)
