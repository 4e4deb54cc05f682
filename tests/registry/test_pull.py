"""Images come from real registries: by tag, by digest, by platform, with and without a key."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed
from cowshed.errors import DigestMismatchError, NotFoundError, SourceError, UnsupportedError
from cowshed_plugins.registry.errors import RegistryError

from .conftest import OpenShed
from .images import (
    OCI_INDEX,
    OCI_MANIFEST,
    Blob,
    MadeImage,
    Publisher,
    make_image,
    make_index,
    noise,
)
from .services import PASSWORD, USER, Authorities, FaultProxy, RegistryProcess, TokenServer, answer

FILES = {"etc/hello": b"hello\n", "usr/noise": noise(300_000)}


def brought(shed: Shed, reference: str, **more: str) -> str:
    (imported,) = shed.import_image(f"docker://{reference}", **more)
    return f"sha256:{imported.image.id}"


def content(shed: Shed, image: str, path: str) -> bytes:
    with shed.create(image).tree() as tree:
        return tree.read_bytes(path)


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker schema 2"])
def test_an_image_comes_by_tag(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, name: str, docker: bool
) -> None:
    image = make_image(FILES, {"etc/more": b"more"}, docker=docker)
    publisher.image(name, image, "v1")
    assert brought(shed, f"{registry.host}/{name}:v1") == image.id
    assert content(shed, f"{registry.host}/{name}:v1", "usr/noise") == FILES["usr/noise"]
    assert shed.image(image.id).record.manifest == image.manifest.digest


def test_an_image_comes_by_digest_and_keeps_its_tag_as_a_name(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, name: str
) -> None:
    image, other = make_image(FILES), make_image({"other": b"other"})
    publisher.image(name, image, "v1")
    publisher.image(name, other, "v1")
    (imported,) = shed.import_image(f"docker://{registry.host}/{name}@{image.manifest.digest}")
    assert (f"sha256:{imported.image.id}", imported.names) == (image.id, ())
    both = f"{registry.host}/{name}:v1@{image.manifest.digest}"
    (imported,) = shed.import_image(f"docker://{both}")
    assert (f"sha256:{imported.image.id}", imported.names) == (
        image.id,
        (f"{registry.host}/{name}:v1",),
    )


@pytest.mark.parametrize("docker", [False, True], ids=["index", "manifest list"])
def test_the_platform_is_chosen(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, name: str, docker: bool
) -> None:
    images = {
        platform: make_image({"which": platform.encode()}, docker=docker, platform=platform)
        for platform in ("linux/amd64", "linux/arm64", "linux/s390x")
    }
    for image in images.values():
        publisher.image(name, image)
    publisher.manifest(name, "all", make_index(images, docker=docker))
    where = f"{registry.host}/{name}:all"
    for platform, image in images.items():
        assert brought(shed, where, platform=platform) == image.id
    with pytest.raises(UnsupportedError, match="linux/amd64, linux/arm64, linux/s390x"):
        brought(shed, where, platform="linux/riscv64")


def index_of(*items: dict[str, Any]) -> Blob:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": items}
    return Blob(json.dumps(document).encode(), OCI_INDEX)


def test_an_index_that_is_named_often_is_fetched_once(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image)
    inner = make_index({"linux/arm64": image})
    last = make_index({"linux/amd64": image})
    for one in (inner, last):
        publisher.manifest(name, one.digest, one)
    outer = index_of(*[inner.descriptor] * 1000, last.descriptor)
    publisher.manifest(name, "many", outer)
    assert brought(shed, f"{proxy.host}/{name}:many", platform="linux/amd64") == image.id
    assert len(proxy.requests(f"GET .*/manifests/{inner.digest}")) == 1


def test_indexes_are_not_fetched_without_end(proxy: FaultProxy, shed: Shed, name: str) -> None:
    other = Blob(b"{}", OCI_MANIFEST).descriptor
    inner = [index_of({**other, "size": size}) for size in range(200)]
    for one in inner:
        proxy.on(f"GET .*/manifests/{one.digest}", action=answer(200, one.data))
    outer = index_of(*(one.descriptor for one in inner))
    proxy.on("GET .*/manifests/many", action=answer(200, outer.data, Content_Type=OCI_INDEX))
    with pytest.raises(SourceError, match="indexes are nested too deeply"):
        brought(shed, f"{proxy.host}/{name}:many")
    assert len(proxy.requests("GET .*/manifests/sha256")) == 64


def test_a_layer_that_is_here_is_not_asked_for(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    first = make_image(FILES, {"one": b"1"})
    second = make_image(FILES, {"two": b"2"})
    publisher.image(name, first, "v1")
    publisher.image(name, second, "v2")
    brought(shed, f"{proxy.host}/{name}:v1")
    proxy.reset()
    brought(shed, f"{proxy.host}/{name}:v2")
    asked = {one.path.rpartition("/")[2] for one in proxy.requests("GET .*/blobs/")}
    assert asked == {second.config.digest, second.layers[1].digest}
    proxy.reset()
    brought(shed, f"{proxy.host}/{name}:v2")
    assert [one.path for one in proxy.requests("GET .*/(blobs|manifests)/")] == [
        f"/v2/{name}/manifests/v2"
    ]


def test_what_is_not_there_is_named_as_the_user_named_it(
    registry: RegistryProcess, publisher: Publisher, shed: Shed, name: str
) -> None:
    publisher.image(name, make_image(FILES), "v1")
    for reference in (f"{registry.host}/{name}:nope", f"{registry.host}/nowhere/{name}:v1"):
        with pytest.raises(NotFoundError, match=f"no such image: {reference}"):
            brought(shed, reference)


# -- keys and locks ------------------------------------------------------------------------------


@pytest.fixture
def guarded_image(guarded: RegistryProcess, authorities: Authorities) -> MadeImage:
    image = make_image(FILES)
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    publisher = Publisher(
        f"https://{guarded.host}",
        {"Authorization": f"Basic {pair}"},
        str(authorities.directory / "ca.crt"),
    )
    publisher.image("private/image", image, "v1")
    return image


def test_tls_of_a_private_authority_and_a_password(
    guarded: RegistryProcess,
    guarded_image: MadeImage,
    authorities: Authorities,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    tmp_path: Path,
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    shed = open_shed(certs=str(certs), auth_file=str(alice(guarded.host)))
    assert brought(shed, f"{guarded.host}/private/image:v1") == guarded_image.id


def test_certificates_are_found_where_podman_keeps_them(
    guarded: RegistryProcess,
    guarded_image: MadeImage,
    authorities: Authorities,
    shed: Shed,
    alice: Callable[..., Path],
    surroundings: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authorities.certs_for(surroundings / "xdg_config_home/containers/certs.d", guarded.host)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(alice(guarded.host)))
    assert brought(shed, f"{guarded.host}/private/image:v1") == guarded_image.id


class Demanding(Authorities):
    """Its servers want a certificate of its authority from clients, too."""

    def server_context(self) -> ssl.SSLContext:
        context = super().server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(context)
        return context


def test_a_client_certificate_is_shown_where_one_is_kept_for_the_registry(
    registry: RegistryProcess, publisher: Publisher, open_shed: OpenShed, tmp_path: Path, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    authorities = Demanding(tmp_path / "authorities")
    with closing(FaultProxy(registry.host, tls=authorities)) as front:
        certs = authorities.certs_for(tmp_path / "certs", front.host)
        with pytest.raises(RegistryError, match=f"registry {front.host}: can't be reached"):
            brought(open_shed(certs=str(certs)), f"{front.host}/{name}:v1")
        mine = authorities.authority.issue_cert("alice@example.com")
        mine.cert_chain_pems[0].write_to_path(str(certs / front.host / "client.cert"))
        mine.private_key_pem.write_to_path(str(certs / front.host / "client.key"))
        shed = open_shed("with it", certs=str(certs))
        assert brought(shed, f"{front.host}/{name}:v1") == image.id


@pytest.fixture
def ticketed_image(ticketed: RegistryProcess, token_server: TokenServer) -> MadeImage:
    image = make_image(FILES)
    for repository in ("public/image", "private/image"):
        token = token_server.token([f"repository:{repository}:pull,push"], USER)
        publisher = Publisher(f"http://{ticketed.host}", {"Authorization": f"Bearer {token}"})
        publisher.image(repository, image, "v1")
    token_server.seen.clear()
    return image


def test_a_token_is_had_without_credentials_where_everybody_may_pull(
    ticketed: RegistryProcess, ticketed_image: MadeImage, token_server: TokenServer, shed: Shed
) -> None:
    assert brought(shed, f"{ticketed.host}/public/image:v1") == ticketed_image.id
    (asked,) = token_server.seen
    assert asked.authorization == ""
    assert "scope=repository%3Apublic%2Fimage%3Apull&service=test+registry" in asked.path


def test_a_token_is_had_for_a_password(
    ticketed: RegistryProcess,
    ticketed_image: MadeImage,
    token_server: TokenServer,
    open_shed: OpenShed,
    alice: Callable[..., Path],
) -> None:
    shed = open_shed(auth_file=str(alice(ticketed.host)))
    assert brought(shed, f"{ticketed.host}/private/image:v1") == ticketed_image.id
    (asked,) = token_server.seen
    assert asked.authorization.startswith("Basic ")


def test_a_token_is_had_for_a_refresh_token(
    ticketed: RegistryProcess,
    ticketed_image: MadeImage,
    token_server: TokenServer,
    open_shed: OpenShed,
    tmp_path: Path,
) -> None:
    path = tmp_path / "auth.json"
    entry = {"identitytoken": f"refresh {PASSWORD}"}
    path.write_text(json.dumps({"auths": {ticketed.host: entry}}))
    shed = open_shed(auth_file=str(path))
    assert brought(shed, f"{ticketed.host}/private/image:v1") == ticketed_image.id
    (asked,) = token_server.seen
    assert (asked.method, asked.authorization) == ("POST", "")
    assert b"grant_type=refresh_token" in asked.body


# -- plain HTTP ----------------------------------------------------------------------------------


def test_loopback_with_tls_needs_no_setting_either(
    guarded: RegistryProcess,
    guarded_image: MadeImage,
    authorities: Authorities,
    shed: Shed,
    alice: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain HTTP is tried first there, and TLS when that is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities.directory / "ca.crt"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(alice(guarded.host)))
    assert brought(shed, f"{guarded.host}/private/image:v1") == guarded_image.id


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host name that isn't loopback's, though it is this machine."""
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "registry.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "registry.test"


def test_elsewhere_plain_http_is_spoken_where_the_settings_say_so_only(
    proxy: FaultProxy, publisher: Publisher, open_shed: OpenShed, far_away: str, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    place = f"{far_away}:{proxy.port}"
    with pytest.raises(RegistryError, match=f"registry {place}: can't be reached: no TLS"):
        brought(open_shed(), f"{place}/{name}:v1")
    assert proxy.seen == []
    shed = open_shed("told", plain_http=[place])
    assert brought(shed, f"{place}/{name}:v1") == image.id


# -- proxies -------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    far_away: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    monkeypatch.setenv("http_proxy", f"http://user:pass%3A%E2%82%AC@{proxy.host}")
    place = f"{far_away}:5000"
    shed = open_shed(plain_http=[place])
    assert brought(shed, f"{place}/{name}:v1") == image.id
    assert {one.path.partition("/v2/")[0] for one in proxy.seen} == {f"http://{place}"}
    pair = base64.b64encode("user:pass:€".encode()).decode()
    assert {one.headers["proxy-authorization"] for one in proxy.seen} == {f"Basic {pair}"}
    proxy.reset()
    brought(shed, f"{registry.host}/{name}:v1")
    assert proxy.seen == []
    monkeypatch.setenv("no_proxy", far_away)
    with pytest.raises(RegistryError, match="connection refused"):
        brought(open_shed("direct", plain_http=[f"{far_away}:1"]), f"{far_away}:1/{name}:v1")
    assert proxy.seen == []


# -- mirrors -------------------------------------------------------------------------------------


def test_a_mirror_is_asked_first_and_the_registry_where_it_fails(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    name: str,
) -> None:
    image, other = make_image(FILES), make_image({"other": b"x"})
    publisher.image(f"cache/{name}", image, "v1")
    publisher.image(name, image, "v1")
    publisher.image(name, other, "v2")
    shed = open_shed(mirrors={registry.host: [f"{proxy.host}/cache"]})
    assert brought(shed, f"{registry.host}/{name}:v1") == image.id
    assert proxy.requests(f"GET /v2/cache/{name}/blobs/{image.layers[0].digest}")
    # What the mirror lacks comes from the registry, and the name is the registry's.
    assert brought(shed, f"{registry.host}/{name}:v2") == other.id
    assert proxy.requests(f"GET /v2/cache/{name}/manifests/v2")
    assert shed.image(f"{registry.host}/{name}:v2").id == other.id.removeprefix("sha256:")


def test_a_mirror_that_breaks_in_a_blob_is_left_for_the_registry(
    registry: RegistryProcess,
    proxy: FaultProxy,
    publisher: Publisher,
    open_shed: OpenShed,
    name: str,
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    proxy.on(f"GET .*/blobs/{image.layers[0].digest}", cut=100_000)
    shed = open_shed(mirrors={registry.host: [proxy.host]}, retries=0)
    assert brought(shed, f"{registry.host}/{name}:v1") == image.id


def test_a_mirror_that_is_down_is_passed_over(
    registry: RegistryProcess, publisher: Publisher, open_shed: OpenShed, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    shed = open_shed(mirrors={registry.host: ["127.0.0.1:1"]})
    assert brought(shed, f"{registry.host}/{name}:v1") == image.id


# -- documents that lie --------------------------------------------------------------------------


def test_a_manifest_of_another_digest_is_refused(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    proxy.on("GET .*/manifests/", corrupt=40)
    with pytest.raises(DigestMismatchError, match="manifest of"):
        brought(shed, f"{proxy.host}/{name}@{image.manifest.digest}")
    with pytest.raises(DigestMismatchError, match="manifest of"):
        brought(shed, f"{proxy.host}/{name}:v1")


def test_a_config_of_another_digest_is_refused(
    proxy: FaultProxy, publisher: Publisher, shed: Shed, name: str
) -> None:
    image = make_image(FILES)
    publisher.image(name, image, "v1")
    proxy.on(f"GET .*/blobs/{image.config.digest}", corrupt=5)
    with pytest.raises(DigestMismatchError, match=image.config.digest):
        brought(shed, f"{proxy.host}/{name}:v1")


def test_nothing_of_http_is_imported_before_a_registry_is_spoken_to() -> None:
    import subprocess
    import sys

    code = (
        "import sys, cowshed, cowshed.cli.main, cowshed_plugins.registry.plugin\n"
        "from cowshed.cli.main import main\n"
        "main(['ps'])\n"
        "assert not {'urllib3', 'http.client', 'ssl'} & set(sys.modules), 'imported'\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
