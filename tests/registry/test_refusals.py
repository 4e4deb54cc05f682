"""What bad input, bad servers and missing keys get: one clear line, and nobody's credentials."""

from __future__ import annotations

import base64
import email.utils
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed
from cowshed.errors import (
    ConfigError,
    CowshedError,
    LimitExceededError,
    NotFoundError,
    SourceError,
    UsageError,
)
from cowshed_plugins.registry.errors import (
    RateLimitedError,
    RegistryError,
    UnauthorisedError,
    UnreachableError,
)

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
    free_port,
    redirect,
)

FILES = {"etc/hello": b"hello\n", "usr/noise": noise(200_000)}


def refused(shed: Shed, reference: str, kind: type[CowshedError]) -> str:
    """Importing fails with one line; return it. Nothing of the image is in the shed."""
    with pytest.raises(kind) as caught:
        shed.import_image(f"docker://{reference}")
    assert shed.images() == []
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    made = make_image(FILES)
    publisher.image(name, made, "v1")
    return made


# -- nobody there --------------------------------------------------------------------------------


def test_an_unreachable_registry_is_named(shed: Shed) -> None:
    host = f"127.0.0.1:{free_port()}"
    text = refused(shed, f"{host}/x", UnreachableError)
    assert text == f"registry {host}: can't be reached: connection refused"


def test_a_host_without_an_address_is_named(shed: Shed) -> None:
    text = refused(shed, "no-such-host.invalid/x", UnreachableError)
    assert text == ("registry no-such-host.invalid: can't be reached: its host name isn't known")


def test_a_registry_that_falls_silent_is_given_up(
    proxy: FaultProxy, image: MadeImage, open_shed: OpenShed, name: str
) -> None:
    proxy.on("GET .*/manifests/", stall=10)
    shed = open_shed(retries=0)
    text = refused(shed, f"{proxy.host}/{name}:v1", UnreachableError)
    assert text.endswith("it has stopped sending")


def test_what_passes_is_tried_again(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on("GET .*/manifests/", times=1, action=answer(503))
    proxy.on("GET .*/manifests/", times=1, action=answer(500))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert len(proxy.requests("GET .*/manifests/")) == 3


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_document_that_breaks_off_is_fetched_again(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, fault: str
) -> None:
    for what in ("manifests/", f"blobs/{image.config.digest}"):
        proxy.on(f"GET .*/{what}", times=2, **{fault: 10})
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert len(proxy.requests("GET .*/manifests/")) == 3
    assert len(proxy.requests(f"GET .*/blobs/{image.config.digest}")) == 3


def test_a_token_that_breaks_off_is_asked_for_again(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    header = f'Bearer realm="http://{proxy.host}/token"'
    wanted = proxy.on("GET .*/manifests/", times=1, action=answer(401, WWW_Authenticate=header))

    def break_off(handler: Any) -> None:
        handler.send_response_only(200)
        handler.send_header("Content-Length", "14")
        handler.end_headers()
        handler.wfile.write(b'{"tok')
        handler.close_connection = True

    proxy.on("GET /token", times=2, action=break_off)
    proxy.on("GET /token", action=answer(200, b'{"token": "t"}'))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert wanted.times == 0
    assert len(proxy.requests("GET /token")) == 3
    assert proxy.requests("GET .*/manifests/")[-1].authorization == "Bearer t"


def test_what_does_not_pass_is_reported_with_what_the_registry_says(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    said = json.dumps({"errors": [{"code": "DOWN", "message": "storage\x1b[31m is on fire"}]})
    proxy.on("GET .*/manifests/", action=answer(500, said.encode()))
    text = refused(shed, f"{proxy.host}/{name}:v1", RegistryError)
    assert f"registry {proxy.host}: GET /v2/{name}/manifests/v1: status 500 (storage" in text
    assert len(proxy.requests("GET .*/manifests/")) == 4


def test_something_that_is_no_registry_is_refused(proxy: FaultProxy, shed: Shed, name: str) -> None:
    proxy.on("GET", action=answer(200, b"<html>Welcome</html>", Content_Type="text/html"))
    assert "not valid JSON" in refused(shed, f"{proxy.host}/{name}:v1", SourceError)


# -- keys ----------------------------------------------------------------------------------------


def test_missing_credentials_are_said_with_where_they_were_looked_for(
    guarded: RegistryProcess, authorities: Authorities, open_shed: OpenShed, tmp_path: Path
) -> None:
    shed = open_shed(certs=str(authorities.certs_for(tmp_path / "certs", guarded.host)))
    text = refused(shed, f"{guarded.host}/private/image:v1", UnauthorisedError)
    assert text.startswith(f"registry {guarded.host}: unauthorised: ")
    home = tmp_path / "home"
    for place in (
        home / "xdg_runtime_dir/containers/auth.json",
        home / "xdg_config_home/containers/auth.json",
        home / ".docker/config.json",
    ):
        assert str(place) in text


def test_wrong_credentials_are_said_with_where_they_came_from(
    guarded: RegistryProcess,
    authorities: Authorities,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    tmp_path: Path,
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    path = alice(guarded.host, "wr0ng")
    shed = open_shed(certs=str(certs), auth_file=str(path))
    text = refused(shed, f"{guarded.host}/private/image:v1", UnauthorisedError)
    assert "name or password is wrong" in text
    assert f"the credentials came from {path}" in text
    assert "wr0ng" not in text


def test_a_token_server_that_refuses_is_said(
    ticketed: RegistryProcess, open_shed: OpenShed, alice: Callable[..., Path]
) -> None:
    path = alice(ticketed.host, "wr0ng")
    shed = open_shed(auth_file=str(path))
    text = refused(shed, f"{ticketed.host}/private/image:v1", UnauthorisedError)
    assert text.startswith(f"registry {ticketed.host}: unauthorised: the credentials are refused")


def test_a_token_that_does_not_suffice_is_said(ticketed: RegistryProcess, shed: Shed) -> None:
    text = refused(shed, f"{ticketed.host}/private/image:v1", UnauthorisedError)
    assert text.startswith(f"registry {ticketed.host}: unauthorised: ")


def test_an_untrusted_certificate_is_said(guarded: RegistryProcess, shed: Shed) -> None:
    text = refused(shed, f"{guarded.host}/private/image:v1", RegistryError)
    assert "its certificate isn't trusted" in text


def test_damaged_auth_files_and_certificates_are_named(
    guarded: RegistryProcess, open_shed: OpenShed, tmp_path: Path, authorities: Authorities
) -> None:
    certs = authorities.certs_for(tmp_path / "certs", guarded.host)
    path = tmp_path / "auth.json"
    for number, damage in enumerate(
        ("{", "[]", '{"auths": ["x"]}', json.dumps({"auths": {guarded.host: {"auth": "%%%"}}}))
    ):
        path.write_text(damage)
        shed = open_shed(f"shed{number}", certs=str(certs), auth_file=str(path))
        assert str(path) in refused(shed, f"{guarded.host}/private/image", ConfigError)
    broken = certs / guarded.host / "other.crt"
    broken.write_text("no certificate")
    shed = open_shed("last", certs=str(certs))
    assert str(broken) in refused(shed, f"{guarded.host}/private/image", ConfigError)


# -- rate limits ---------------------------------------------------------------------------------


def test_retry_after_is_obeyed(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    proxy.on("GET .*/manifests/", times=1, action=answer(429, Retry_After="1"))
    proxy.on(f"GET .*/blobs/{image.config.digest}", times=1, action=answer(503, Retry_After="0"))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert waits.count(1.0) == 1 and waits.count(0.0) == 1


def test_a_token_realm_is_met_with_the_same_patience(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    challenge = answer(401, WWW_Authenticate=f'Bearer realm="http://{proxy.host}/token"')

    def unless_told(handler: Any) -> None:
        challenge(handler)
        proxy.rules.remove(wanted)

    wanted = proxy.on("GET .*/manifests/", action=unless_told)
    proxy.on("GET /token", times=1, action=answer(429, Retry_After="1"))
    proxy.on("GET /token", times=1, action=answer(500))
    proxy.on("GET /token", action=answer(200, b'{"token": "t"}'))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert len(proxy.requests("GET /token")) == 3
    assert waits[0] == 1.0 and len(waits) >= 2
    (_, told) = proxy.requests("GET .*/manifests/")
    assert told.authorization == "Bearer t"


def test_a_realm_that_asks_for_a_long_wait_is_reported(
    proxy: FaultProxy, shed: Shed, name: str
) -> None:
    header = f'Bearer realm="http://{proxy.host}/token"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    proxy.on("GET /token", action=answer(429, Retry_After="90"))
    text = refused(shed, f"{proxy.host}/{name}:v1", RateLimitedError)
    assert text == f"registry {proxy.host}: too many requests; it says to try again in 90 s"


def test_a_long_wait_is_reported_instead(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on("GET .*/manifests/", action=answer(429, Retry_After="3600"))
    text = refused(shed, f"{proxy.host}/{name}:v1", RateLimitedError)
    assert text == (f"registry {proxy.host}: too many requests; it says to try again in 3,600 s")
    assert len(proxy.requests("GET .*/manifests/")) == 1
    proxy.reset()
    later = email.utils.formatdate(time.time() + 7200, usegmt=True)
    proxy.on("GET .*/manifests/", action=answer(429, Retry_After=later))
    assert "try again in 7," in refused(shed, f"{proxy.host}/{name}:v1", RateLimitedError)


def test_endless_rate_limits_end(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on("GET .*/manifests/", action=answer(429))
    text = refused(shed, f"{proxy.host}/{name}:v1", RateLimitedError)
    assert text.endswith("try again later")
    assert len(proxy.requests("GET .*/manifests/")) == 4


# -- too much ------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "without"])
def test_a_manifest_over_4_mib_is_refused(
    proxy: FaultProxy, shed: Shed, name: str, told: bool
) -> None:
    data = b" " * ((4 << 20) + 1)

    def act(handler: Any) -> None:
        handler.send_response_only(200)
        handler.send_header(*(("Content-Length", str(len(data))) if told else ("X", "y")))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):  # the client has seen enough
            handler.wfile.write(data)

    proxy.on("GET .*/manifests/", action=act)
    text = refused(shed, f"{proxy.host}/{name}:v1", LimitExceededError)
    assert text == f"manifest of {proxy.host}/{name} exceeds the limit of 4,194,304"


# -- credentials stay at home --------------------------------------------------------------------


@pytest.fixture
def stranger(registry: RegistryProcess) -> Iterator[FaultProxy]:
    """Another host that would serve the same blobs, and sees what it is sent."""
    with closing(FaultProxy(registry.host, host="localhost")) as made:
        yield made


def guard(proxy: FaultProxy) -> None:
    """Let the proxy ask for alice's password, as a registry with basic authentication does."""
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    challenge = answer(401, WWW_Authenticate='Basic realm="test"')

    def act(handler: Any) -> None:
        if handler.headers.get("Authorization") != f"Basic {pair}":
            challenge(handler)
            return
        rules, proxy.rules = proxy.rules, proxy.rules[:-1]
        try:
            proxy._handle(handler)
        finally:
            proxy.rules = rules

    proxy.on("", action=act)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_sees_no_credentials(
    proxy: FaultProxy,
    stranger: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
    status: int,
) -> None:
    proxy.on("GET .*/blobs/", action=redirect(f"http://{stranger.host}{{path}}", status))
    guard(proxy)
    shed = open_shed(auth_file=str(alice(proxy.host)))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert stranger.requests("GET .*/blobs/")
    assert [one.authorization for one in stranger.seen] == [""] * len(stranger.seen)
    assert all(one.authorization for one in proxy.requests("GET .*/manifests/")[1:])


def test_a_redirect_on_the_same_host_keeps_them(
    proxy: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
) -> None:
    proxy.on("GET /v2/.*/blobs/", action=redirect("/else{path}"))
    proxy.on(
        "GET /else",
        action=lambda handler: answer(  # what is behind it matters less than who asks for it
            200 if handler.headers.get("Authorization") else 401
        )(handler),
    )
    guard(proxy)
    shed = open_shed(auth_file=str(alice(proxy.host)))
    with pytest.raises(SourceError):
        shed.import_image(f"docker://{proxy.host}/{name}:v1")
    (there,) = proxy.requests("GET /else")
    assert there.authorization.startswith("Basic ")


def test_a_challenge_behind_a_redirect_is_not_answered(
    proxy: FaultProxy,
    stranger: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
) -> None:
    stranger.on("GET", action=answer(401, WWW_Authenticate='Basic realm="phish"'))
    proxy.on("GET .*/blobs/", action=redirect(f"http://{stranger.host}{{path}}"))
    guard(proxy)
    shed = open_shed(auth_file=str(alice(proxy.host)))
    refused(shed, f"{proxy.host}/{name}:v1", UnauthorisedError)
    assert {one.authorization for one in stranger.seen} == {""}


@pytest.mark.parametrize("asked", ["GET .*/blobs/", "GET /token"], ids=["a blob", "a token"])
def test_a_redirect_with_two_hosts_in_it_goes_to_none(
    proxy: FaultProxy,
    stranger: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
    asked: str,
) -> None:
    """Python reads the registry's host in it, and urllib3 would connect to the other."""
    there = f"localhost:{stranger.port}"
    proxy.on(asked, action=redirect(f"http://{there}\\@{proxy.host}/x"))
    if "token" in asked:
        header = f'Bearer realm="http://{proxy.host}/token"'
        proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    else:
        guard(proxy)
    shed = open_shed(auth_file=str(alice(proxy.host)))
    text = refused(shed, f"{proxy.host}/{name}:v1", RegistryError)
    assert f"redirects to 'http://{there}\\\\@{proxy.host}/x'" in text
    assert stranger.seen == []


@pytest.mark.parametrize(
    "realm", ["http://{there}\\\\@{home}/token", "http://{home}@{there}/token"]
)
def test_a_realm_with_two_hosts_in_it_is_not_asked(
    proxy: FaultProxy,
    stranger: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
    realm: str,
) -> None:
    realm = realm.format(there=stranger.host, home=proxy.host)
    header = f'Bearer realm="{realm}"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    shed = open_shed(auth_file=str(alice(proxy.host)))
    assert "unusable token realm" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)
    assert stranger.seen == []


@pytest.mark.parametrize(
    "target",
    ["https://[bad", "http://127.0.0.1:99999/", "http://user@127.0.0.1/", "//a\tb/"],
)
def test_a_redirect_to_what_is_no_address_is_refused(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, target: str
) -> None:
    proxy.on("GET .*/blobs/", action=redirect(target))
    assert f"it redirects to {target!r}" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)


def test_redirects_in_a_circle_end(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on("GET .*/blobs/", action=redirect("{path}"))
    assert "redirects more than" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_to_another_scheme_is_refused(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, target: str
) -> None:
    proxy.on("GET .*/blobs/", action=redirect(target))
    assert f"it redirects to '{target}'" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)


def test_a_redirect_from_tls_to_plain_http_is_refused(
    registry: RegistryProcess,
    stranger: FaultProxy,
    image: MadeImage,
    authorities: Authorities,
    open_shed: OpenShed,
    tmp_path: Path,
    name: str,
) -> None:
    with closing(FaultProxy(registry.host, tls=authorities)) as front:
        certs = authorities.certs_for(tmp_path / "certs", front.host)
        front.on("GET .*/blobs/", action=redirect(f"http://{stranger.host}{{path}}"))
        shed = open_shed(certs=str(certs))
        text = refused(shed, f"{front.host}/{name}:v1", RegistryError)
    assert f"it redirects from TLS to plain HTTP ({stranger.host})" in text
    assert stranger.seen == []


@pytest.fixture
def foreign_realm(authorities: Authorities) -> Iterator[TokenServer]:
    """A token server under another host name than the registry."""
    with closing(TokenServer(authorities, host="localhost")) as server:
        yield server


def test_a_realm_on_another_host_sees_no_credentials(
    foreign_realm: TokenServer,
    proxy: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
) -> None:
    header = f'Bearer realm="{foreign_realm.realm}",service="test registry"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    shed = open_shed(auth_file=str(alice(proxy.host)))
    text = refused(shed, f"{proxy.host}/{name}:v1", UnauthorisedError)
    assert f"its token realm is on another host, localhost:{foreign_realm.port}" in text
    assert foreign_realm.seen
    assert {one.authorization for one in foreign_realm.seen} == {""}
    assert all("account" not in one.path for one in foreign_realm.seen)


def test_a_realm_that_the_settings_name_sees_them(
    foreign_realm: TokenServer,
    tmp_path: Path,
    open_shed: OpenShed,
    alice: Callable[..., Path],
) -> None:
    with closing(RegistryProcess(tmp_path / "registry", tokens=foreign_realm)) as process:
        token = foreign_realm.token(["repository:private/image:pull,push"], USER)
        made = make_image(FILES)
        Publisher(f"http://{process.host}", {"Authorization": f"Bearer {token}"}).image(
            "private/image", made, "v1"
        )
        shed = open_shed(auth_file=str(alice(process.host)), realms={process.host: ["localhost"]})
        shed.import_image(f"docker://{process.host}/private/image:v1")
    assert foreign_realm.seen[0].authorization.startswith("Basic ")


def test_a_realm_that_redirects_elsewhere_sees_no_credentials_there(
    proxy: FaultProxy,
    stranger: FaultProxy,
    image: MadeImage,
    open_shed: OpenShed,
    alice: Callable[..., Path],
    name: str,
) -> None:
    header = f'Bearer realm="http://{proxy.host}/token"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    proxy.on("GET /token", action=redirect(f"http://{stranger.host}{{path}}"))
    stranger.on("GET /token", action=answer(200, b'{"token": "t"}'))
    shed = open_shed(auth_file=str(alice(proxy.host)))
    refused(shed, f"{proxy.host}/{name}:v1", UnauthorisedError)
    assert proxy.requests("GET /token")[0].authorization.startswith("Basic ")
    assert {one.authorization for one in stranger.requests("GET /token")} == {""}


@pytest.mark.parametrize(
    "said",
    [b"[" * 100_000, b'{"token": "\\u20ac"}', b"9" * 5000, b'{"token": 1}'],
    ids=["nested deeply", "no ASCII", "a long number", "a number"],
)
def test_an_answer_that_is_no_token_is_refused(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, said: bytes
) -> None:
    header = f'Bearer realm="http://{proxy.host}/token"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    proxy.on("GET /token", action=answer(200, said))
    assert "gave no token" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)


def test_a_token_that_is_good_for_ever_is_taken(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    header = f'Bearer realm="http://{proxy.host}/token"'
    proxy.on("GET .*/manifests/", times=1, action=answer(401, WWW_Authenticate=header))
    said = b'{"token": "t", "expires_in": 1' + b"0" * 400 + b"}"
    proxy.on("GET /token", action=answer(200, said))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert len(proxy.requests("GET /token")) == 1


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000], ids=["no digit", "a long number"])
def test_a_length_that_is_no_number_is_none(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, length: str
) -> None:
    def act(data: bytes) -> Any:
        def send(handler: Any) -> None:
            handler.send_response_only(200)
            handler.send_header("Content-Length", length)
            handler.end_headers()
            handler.wfile.write(data)
            handler.close_connection = True

        return send

    for blob in (image.config, *image.layers):
        proxy.on(f"GET .*/blobs/{blob.digest}", action=act(blob.data))
    shed.import_image(f"docker://{proxy.host}/{name}:v1")
    assert f"sha256:{shed.images()[0].id}" == image.id


@pytest.mark.parametrize(
    "realm", ["", "nonsense", "file:///etc/passwd", "https://[bad", "http://127.0.0.1:99999/"]
)
def test_an_unusable_realm_is_refused(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str, realm: str
) -> None:
    header = f'Bearer realm="{realm}"'
    proxy.on("GET .*/manifests/", action=answer(401, WWW_Authenticate=header))
    assert "unusable token realm" in refused(shed, f"{proxy.host}/{name}:v1", RegistryError)


# -- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "docker:",
        "docker://",
        "docker:debian",
        "docker://UPPER",
        "docker://x:",
        "docker://x@sha256:1",
    ],
)
def test_what_is_no_reference_is_a_wrong_call(shed: Shed, reference: str) -> None:
    with pytest.raises(UsageError):
        shed.import_image(reference)


def test_wrong_settings_are_named(open_shed: OpenShed) -> None:
    for number, (setting, value) in enumerate(
        [("timeout", "soon"), ("mirror", {}), ("mirrors", ["x"]), ("retries", -1)]
    ):
        shed = open_shed(f"shed{number}", **{setting: value})
        with pytest.raises(ConfigError, match=setting):
            shed.import_image("docker://127.0.0.1:1/x")


def test_an_image_that_is_gone_in_the_meantime_is_not_found(
    proxy: FaultProxy, image: MadeImage, shed: Shed, name: str
) -> None:
    proxy.on(f"GET .*/blobs/{image.layers[0].digest}", action=answer(404))
    text = refused(shed, f"{proxy.host}/{name}:v1", NotFoundError)
    assert image.layers[0].digest in text
