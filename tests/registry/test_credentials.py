"""Credentials as podman and Docker leave them: which file, which key, which helper."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed
from cowshed.errors import ConfigError
from cowshed_plugins.registry.credentials import CredentialFiles
from cowshed_plugins.registry.errors import UnauthorisedError

from .conftest import OpenShed
from .images import MadeImage, Publisher, make_image, noise
from .services import PASSWORD, USER, RegistryProcess, TokenServer

FILES = {"etc/hello": b"hello\n", "usr/noise": noise(10_000)}
Helper = Callable[..., Path]


@pytest.fixture
def image(ticketed: RegistryProcess, token_server: TokenServer) -> MadeImage:
    """An image that alice alone may pull, as ``private/helped``."""
    made = make_image(FILES)
    token = token_server.token(["repository:private/helped:pull,push"], USER)
    publisher = Publisher(f"http://{ticketed.host}", {"Authorization": f"Bearer {token}"})
    publisher.image("private/helped", made, "v1")
    token_server.seen.clear()
    return made


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """Put a credential helper on PATH, a program of its own; return where it notes its calls."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, answer: str, *, status: int = 0) -> Path:
        program, calls = place / f"docker-credential-{name}", tmp_path / f"{name}-calls"
        program.write_text(
            f"#!{sys.executable}\n"
            "import sys\n"
            f"open({str(calls)!r}, 'a').write(f'{{sys.argv[1]}} {{sys.stdin.read()}}\\n')\n"
            f"print({answer!r})\n"
            f"sys.exit({status})\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return calls

    return write


def secret(username: str = USER, password: str = PASSWORD) -> str:
    return json.dumps({"ServerURL": "x", "Username": username, "Secret": password})


def packed(username: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def docker_config(home: Path, **document: Any) -> Path:
    path = home / ".docker/config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def pull(shed: Shed, registry: RegistryProcess) -> str:
    (pulled,) = shed.pull(f"{registry.host}/private/helped:v1")
    return f"sha256:{pulled.image.id}"


# -- helpers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["credHelpers", "credsStore"])
def test_a_helper_is_asked_for_the_registry(
    ticketed: RegistryProcess,
    image: MadeImage,
    shed: Shed,
    helper: Helper,
    surroundings: Path,
    which: str,
) -> None:
    calls = helper("vault", secret())
    docker_config(
        surroundings, **{which: {ticketed.host: "vault"} if which == "credHelpers" else "vault"}
    )
    assert pull(shed, ticketed) == image.id
    assert calls.read_text() == f"get {ticketed.host}\n"


def test_a_helpers_token_is_a_refresh_token(
    ticketed: RegistryProcess,
    image: MadeImage,
    token_server: TokenServer,
    shed: Shed,
    helper: Helper,
    surroundings: Path,
) -> None:
    helper("vault", secret("<token>", f"refresh {PASSWORD}"))
    docker_config(surroundings, credsStore="vault")
    assert pull(shed, ticketed) == image.id
    assert token_server.seen[0].method == "POST"


def test_a_hosts_own_helper_comes_before_the_file_and_the_file_before_the_store(
    ticketed: RegistryProcess, helper: Helper, surroundings: Path
) -> None:
    helper("own", secret("own"))
    helper("store", secret("store"))
    host = ticketed.host
    docker_config(surroundings, credHelpers={host: "own"}, auths={host: packed("file")})
    assert found(host) == "own"
    # As ``docker login`` leaves it where a store keeps the secret: an empty entry.
    docker_config(surroundings, credsStore="store", auths={host: packed("file")})
    assert found(host) == "file"
    docker_config(surroundings, credsStore="store", auths={host: {}})
    assert found(host) == "store"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("credentials not found in native keychain", 1, "credentials not found in native"),
        ("no JSON", 0, "its answer isn't understood"),
        ('{"Username": "x"}', 0, "its answer isn't understood"),
    ],
)
def test_a_helper_that_has_nothing_is_named(
    ticketed: RegistryProcess,
    image: MadeImage,
    shed: Shed,
    helper: Helper,
    surroundings: Path,
    answer: str,
    status: int,
    words: str,
) -> None:
    helper("vault", answer, status=status)
    docker_config(surroundings, credsStore="vault")
    with pytest.raises(UnauthorisedError) as caught:
        pull(shed, ticketed)
    assert f"docker-credential-vault ({words}" in str(caught.value)


def test_a_helper_that_is_missing_is_named(
    ticketed: RegistryProcess, image: MadeImage, shed: Shed, surroundings: Path
) -> None:
    docker_config(surroundings, credHelpers={ticketed.host: "nowhere"})
    with pytest.raises(UnauthorisedError) as caught:
        pull(shed, ticketed)
    assert "docker-credential-nowhere (not installed: it isn't in PATH)" in str(caught.value)


def test_a_helpers_name_is_no_path(
    ticketed: RegistryProcess, image: MadeImage, shed: Shed, surroundings: Path, tmp_path: Path
) -> None:
    docker_config(surroundings, credHelpers={ticketed.host: f"x/../../{tmp_path}/evil"})
    with pytest.raises(UnauthorisedError, match="no name of a helper"):
        pull(shed, ticketed)


# -- files and keys ------------------------------------------------------------------------------


def found(registry: str, repository: str = "library/debian") -> str | None:
    credentials = CredentialFiles().find(registry, repository)
    return None if credentials is None else credentials.username


def write(path: Path, **auths: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))


def test_podmans_files_come_before_dockers(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = "registry.example.com"
    docker_config(surroundings, auths={host: packed("docker")})
    assert found(host) == "docker"
    write(surroundings / "xdg_config_home/containers/auth.json", **{host: packed("kept")})
    assert found(host) == "kept"
    write(surroundings / "xdg_runtime_dir/containers/auth.json", **{host: packed("session")})
    assert found(host) == "session"
    assert found("other.example.com") is None
    # One that is named stands for all others.
    write(tmp_path / "mine.json", **{"other.example.com": packed("mine")})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "mine.json"))
    assert (found("other.example.com"), found(host)) == ("mine", None)


def test_dockers_directory_can_be_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "docker/config.json", **{"registry.example.com": packed("there")})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert found("registry.example.com") == "there"


def test_the_most_special_key_wins(surroundings: Path) -> None:
    docker_config(
        surroundings,
        auths={
            "registry.example.com": packed("host"),
            "registry.example.com/team": packed("team"),
            "registry.example.com/team/app": packed("app"),
        },
    )
    assert found("registry.example.com", "team/app") == "app"
    assert found("registry.example.com", "team/other") == "team"
    assert found("registry.example.com", "teams") == "host"


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://registry.example.com/v1/", "registry.example.com"),
        ("http://registry.example.com:5000", "registry.example.com:5000"),
    ],
)
def test_dockers_old_urls_are_understood(surroundings: Path, key: str, registry: str) -> None:
    docker_config(surroundings, auths={key: packed("old")})
    assert found(registry) == "old"


def test_a_password_may_hold_colons_and_umlauts(surroundings: Path) -> None:
    docker_config(surroundings, auths={"registry.example.com": packed("jörg", "a:b:ü")})
    credentials = CredentialFiles().find("registry.example.com", "x")
    assert credentials is not None
    assert (credentials.username, credentials.password) == ("jörg", "a:b:ü")
    assert "a:b" not in repr(credentials)


@pytest.mark.parametrize("token", ["tökn", "to\r\nkn"])
def test_a_bearer_token_in_a_file_that_no_header_can_hold_is_refused(
    surroundings: Path, token: str
) -> None:
    docker_config(surroundings, auths={"registry.example.com": {"registrytoken": token}})
    with pytest.raises(ConfigError, match=r"'registrytoken' of .* can't be sent"):
        CredentialFiles().find("registry.example.com", "x")


def test_a_bearer_token_in_a_file_is_used_as_it_is(
    ticketed: RegistryProcess,
    image: MadeImage,
    token_server: TokenServer,
    shed: Shed,
    surroundings: Path,
) -> None:
    token = token_server.token(["repository:private/helped:pull"], USER)
    docker_config(surroundings, auths={ticketed.host: {"registrytoken": token}})
    assert pull(shed, ticketed) == image.id
    assert token_server.seen == []


# -- tokens that grow old ------------------------------------------------------------------------


def test_a_token_that_has_grown_old_is_renewed(
    ticketed: RegistryProcess,
    image: MadeImage,
    token_server: TokenServer,
    open_shed: OpenShed,
    surroundings: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The registry refuses what the realm gave first: it is asked for another."""
    docker_config(surroundings, auths={ticketed.host: packed()})
    real, given = token_server.token, []

    def token(scopes: list[str], user: str) -> str:
        made = real(scopes, user)
        given.append(made)
        return f"{made[:-8]}outdated" if len(given) == 1 else made

    monkeypatch.setattr(token_server, "token", token)
    shed = open_shed()
    assert pull(shed, ticketed) == image.id
    assert len(given) == 2
    assert {seen.headers["user-agent"] for seen in token_server.seen} == {"cowshed"}
