"""Credentials: found where podman and Docker keep theirs, helpers included.

The first file that knows the registry wins: ``REGISTRY_AUTH_FILE`` or the setting ``auth_file``
stands for all others; otherwise podman's (``XDG_RUNTIME_DIR/containers/auth.json``,
``XDG_CONFIG_HOME/containers/auth.json``) come before Docker's (``DOCKER_CONFIG/config.json`` or
``~/.docker/config.json``). In a file, ``credHelpers`` of the host, then ``auths`` from the most
special key (``host/namespace/repository``) to the host's, then ``credsStore``.

A helper is the program ``docker-credential-NAME``: it reads a server's name and prints JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any, cast

import attrs

from cowshed.errors import ConfigError

from .reference import DOCKER_HUB

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
#: A helper may ask a person or a far server.
_HELPER_SECONDS = 60
_MAX_FILE = 4 << 20


@attrs.frozen(kw_only=True)
class Credentials:
    """A name with a password, or a token that a login left (OAuth 2's refresh token)."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    #: A bearer token to be used as it is.
    registry_token: str = attrs.field(default="", repr=False)
    #: The file or helper it came from.
    origin: str

    @property
    def basic(self) -> str:
        """The value of a header for basic authentication (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class CredentialFiles:
    """Where credentials may be; nothing is read before somebody asks."""

    def __init__(self, auth_file: str = "") -> None:
        chosen = auth_file or os.environ.get("REGISTRY_AUTH_FILE", "")
        self.files = [chosen] if chosen else _usual_files()
        self._chosen = bool(chosen)
        #: What was tried and gave nothing, for the message.
        self.looked: list[str] = []

    def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials for a repository, if any file or helper has some.

        Raises:
            ConfigError: a file that can't be read or isn't what it should be.
        """
        self.looked = []
        for path in self.files:
            found = self._in_file(path, registry, repository)
            if found is not None:
                return found
        return None

    def _in_file(self, path: str, registry: str, repository: str) -> Credentials | None:
        document = _read(path)
        if document is None:
            self.looked.append(f"{path} (not there)" if self._chosen else path)
            return None
        helpers = _table(document, "credHelpers", path)
        servers = _HUB_KEYS if registry == DOCKER_HUB else (registry,)
        for server in servers:
            helper = helpers.get(server)
            if isinstance(helper, str) and helper:
                found = self._ask(helper, server)
                if found is not None:
                    return found
        auths = {_key(name): name for name in _table(document, "auths", path)}
        for key in _keys(registry, repository):
            if key in auths:
                value = _table(document, "auths", path)[auths[key]]
                found = _entry(value, path, key)
                if found is not None:
                    return found
        store = document.get("credsStore")
        if isinstance(store, str) and store:
            found = self._ask(store, servers[0])
            if found is not None:
                return found
        self.looked.append(path)
        return None

    def _ask(self, helper: str, server: str) -> Credentials | None:
        program = f"docker-credential-{helper}"
        if "/" in helper:
            self.looked.append(f"{program} (no name of a helper)")
            return None
        import shutil
        import subprocess

        if shutil.which(program) is None:
            self.looked.append(f"{program} (not installed: it isn't in PATH)")
            return None

        try:
            done = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=_HELPER_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = error.strerror if isinstance(error, OSError) else "it doesn't answer"
            self.looked.append(f"{program} ({why})")
            return None
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip().splitlines()
            self.looked.append(f"{program} ({said[0][:100] if said else 'failed'})")
            return None
        try:
            answer = json.loads(done.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            self.looked.append(f"{program} (its answer isn't understood)")
            return None
        if not secret:
            self.looked.append(program)
            return None
        if username == "<token>":
            return Credentials(identity_token=secret, origin=program)
        return Credentials(username=username, password=secret, origin=program)


def _usual_files() -> list[str]:
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    podman = [f"{runtime}/containers/auth.json", f"{config}/containers/auth.json"]
    if os.geteuid() == 0:
        podman.insert(0, "/run/containers/0/auth.json")
    return [*dict.fromkeys(podman), f"{docker}/config.json"]


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"credentials can't be read: {error.strerror}", path) from None
    if not data.strip():
        return {}
    try:
        document: object = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"isn't JSON: {error}", path) from None
    if not isinstance(document, dict):
        raise ConfigError("isn't a JSON object", path)
    return cast("dict[str, Any]", document)


def _table(document: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    table: object = document.get(name) or {}
    if not isinstance(table, dict):
        raise ConfigError(f"{name!r} isn't an object", path)
    return cast("dict[str, Any]", table)


def _key(name: str) -> str:
    """Return a file's key as podman writes it; Docker's is a URL such as ``https://HOST/v1/``."""
    for scheme in ("https://", "http://"):
        if name.startswith(scheme):
            return name.removeprefix(scheme).partition("/")[0]
    return name.rstrip("/")


def _keys(registry: str, repository: str) -> list[str]:
    """Return the keys that hold for a repository, the most special first."""
    hosts = ["docker.io", "index.docker.io"] if registry == DOCKER_HUB else [registry]
    parts = repository.split("/")
    paths = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return [f"{host}/{path}" for host in hosts for path in paths] + hosts


def _entry(value: object, path: str, key: str) -> Credentials | None:
    if not isinstance(value, dict):
        raise ConfigError(f"the entry for {key} isn't an object", path)
    fields = cast("dict[str, Any]", value)
    token = str(fields.get("identitytoken") or "")
    registry_token = str(fields.get("registrytoken") or "")
    username = str(fields.get("username") or "")
    password = str(fields.get("password") or "")
    packed = fields.get("auth")
    if packed:
        try:
            pair = base64.b64decode(str(packed), validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"'auth' of {key} isn't base64", path) from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise ConfigError(f"'auth' of {key} isn't NAME:PASSWORD", path)
    if not (registry_token.isascii() and registry_token.isprintable()):
        raise ConfigError(f"'registrytoken' of {key} can't be sent: it isn't ASCII", path)
    if not (token or registry_token or username or password):
        return None  # as Docker leaves it where a store has them
    return Credentials(
        username=username,
        password=password,
        identity_token=token,
        registry_token=registry_token,
        origin=path,
    )
