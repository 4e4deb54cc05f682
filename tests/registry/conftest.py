"""Registries of every kind on loopback, and a shed with none of the user's surroundings."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from cowshed import Shed

from .images import Publisher
from .services import (
    PASSWORD,
    USER,
    Authorities,
    FaultProxy,
    RegistryProcess,
    TokenServer,
)

OpenShed = Callable[..., Shed]
#: Failures repeated at once, and what stalls given up soon.
QUICK = {"pause": 0.01, "timeout": 0.5, "retries": 3, "max_wait": 1.0}


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A registry open to all, without TLS."""
    with closing(RegistryProcess(tmp_path_factory.mktemp("registry"))) as process:
        yield process


@pytest.fixture(scope="session")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, authorities: Authorities
) -> Iterator[RegistryProcess]:
    """A registry with TLS of a private authority that wants alice's password."""
    place = tmp_path_factory.mktemp("guarded")
    with closing(RegistryProcess(place, tls=authorities, basic=True)) as process:
        yield process


@pytest.fixture(scope="session")
def token_server(authorities: Authorities) -> Iterator[TokenServer]:
    with closing(TokenServer(authorities)) as server:
        yield server


@pytest.fixture(scope="session")
def ticketed(
    tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer
) -> Iterator[RegistryProcess]:
    """A registry that wants tokens; whoever has none may pull from ``public/…``."""
    place = tmp_path_factory.mktemp("ticketed")
    with closing(RegistryProcess(place, tokens=token_server)) as process:
        yield process


@pytest.fixture
def proxy(registry: RegistryProcess) -> Iterator[FaultProxy]:
    """A proxy that misbehaves in front of ``registry``."""
    with closing(FaultProxy(registry.host)) as made:
        yield made


@pytest.fixture
def publisher(registry: RegistryProcess) -> Publisher:
    return Publisher(f"http://{registry.host}")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:100].strip("-")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without anybody's credentials, certificates, proxies or settings."""
    for variable in list(os.environ):
        if variable.startswith("COWSHED_") or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    for variable in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    return home


@pytest.fixture
def open_shed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenShed]:
    """Open a shed; further arguments are settings of the registry plugin."""
    with ExitStack() as stack:

        def open_it(
            place: str = "shed",
            driver: str = "chunk-dedup",
            overrides: dict[str, Any] | None = None,
            **settings: Any,
        ) -> Shed:
            root: Path = request.getfixturevalue("xfs") if driver == "reflink" else tmp_path
            opened = stack.enter_context(
                Shed(
                    root / place,
                    driver=driver,
                    overrides={
                        "durability": "none",
                        "plugin": {"registry": {**QUICK, **settings}},
                        **(overrides or {}),
                    },
                )
            )
            if reason := opened.probe(driver):
                pytest.skip(reason)
            return opened

        yield open_it


@pytest.fixture
def shed(open_shed: OpenShed) -> Shed:
    return open_shed()


def auth_file(path: Path, **hosts: str) -> Path:
    """Write an auth file; values are ``NAME:PASSWORD``, hosts have ``__`` for a colon."""
    path.parent.mkdir(parents=True, exist_ok=True)
    auths = {
        host.replace("__", ":"): {"auth": base64.b64encode(pair.encode()).decode()}
        for host, pair in hosts.items()
    }
    path.write_text(json.dumps({"auths": auths}))
    return path


@pytest.fixture
def alice(tmp_path: Path) -> Callable[[str], Path]:
    """Write an auth file with alice's password for a host; return its path."""

    def write(host: str, password: str = PASSWORD) -> Path:
        pair = base64.b64encode(f"{USER}:{password}".encode()).decode()
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
        return path

    return write


def start_pull(
    root: Path, reference: str, *, driver: str = "chunk-dedup", **settings: Any
) -> subprocess.Popen[str]:
    """Run a pull in another process."""
    code = (
        "import sys\n"
        "from cowshed import Shed\n"
        f"settings = { ({**QUICK, **settings})!r}\n"
        f"with Shed({str(root)!r}, driver={driver!r}, overrides={{'durability': 'none',"
        " 'plugin': {'registry': settings}}) as shed:\n"
        f"    (one,) = shed.import_image('docker://{reference}')\n"
        "    print(one.image.id, one.received)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
