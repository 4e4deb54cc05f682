"""What a client of registries meets: a real registry, a token server, and a proxy that misbehaves.

All of it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
import trustme

USER, PASSWORD = "alice", "s3cret"
#: ``s3cret`` as bcrypt has it, which is all that the registry takes.
HTPASSWD = "alice:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Authorities:
    """A certificate authority, a certificate of it for this machine, and another authority."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert("127.0.0.1", "localhost")
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.authority.cert_pem.write_to_path(str(directory / "ca.crt"))
        self.certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        with (directory / "cert.pem").open("wb") as out:
            for blob in self.certificate.cert_chain_pems:
                out.write(blob.bytes())

    def certs_for(self, place: Path, host: str) -> Path:
        """Make a ``certs.d`` that knows the authority for ``host``; return ``place``."""
        (place / host).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.directory / "ca.crt", place / host / "ca.crt")
        return place

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return context


class RegistryProcess:
    """Debian's docker-registry, storing below ``directory``."""

    def __init__(
        self,
        directory: Path,
        *,
        tls: Authorities | None = None,
        basic: bool = False,
        tokens: TokenServer | None = None,
    ) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("docker-registry is not installed; .ci/run installs it")
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "http" if tls is None else "https"
        self.store = directory / "store"
        directory.mkdir(parents=True, exist_ok=True)
        http_part: dict[str, Any] = {"addr": self.host, "secret": "shared"}
        if tls is not None:
            http_part["tls"] = {
                "certificate": str(tls.directory / "cert.pem"),
                "key": str(tls.directory / "key.pem"),
            }
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.store)},
                "delete": {"enabled": True},
            },
            "http": http_part,
        }
        if basic:
            (directory / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        if tokens is not None:
            config["auth"] = {
                "token": {
                    "realm": tokens.realm,
                    "service": "test registry",
                    "issuer": "test issuer",
                    "rootcertbundle": str(tokens.authorities.directory / "ca.crt"),
                }
            }
        (directory / "config.yml").write_text(json.dumps(config))
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [program, "serve", str(directory / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._wait()

    def _wait(self) -> None:
        for _ in range(400):
            assert self._process.poll() is None, "docker-registry has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError("docker-registry doesn't listen")

    def blob(self, digest: str) -> Path:
        """Return where the registry keeps a blob."""
        hex = digest.removeprefix("sha256:")
        return self.store / "docker/registry/v2/blobs/sha256" / hex[:2] / hex / "data"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


@contextlib.contextmanager
def _serving(
    handler: type[http.server.BaseHTTPRequestHandler], tls: Authorities | None
) -> Iterator[int]:
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.server_context().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@attrs.define
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class TokenServer:
    """A token realm (docker/distribution, "Token Authentication Specification").

    Everybody may pull from ``public/…``; alice may do everything, by password or refresh token.
    """

    def __init__(self, authorities: Authorities, host: str = "127.0.0.1") -> None:
        self.authorities = authorities
        self.seen: list[Seen] = []
        self._stack = contextlib.ExitStack()
        self.port = self._stack.enter_context(_serving(self._handler(), None))
        self.realm = f"http://{host}:{self.port}/token"

    def close(self) -> None:
        self._stack.close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *ignored: object) -> None:
                pass

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                packed = self.headers.get("Authorization", "").removeprefix("Basic ")
                user = ""
                if packed:
                    pair = base64.b64decode(packed).decode()
                    user = USER if pair == f"{USER}:{PASSWORD}" else "wrong"
                self._answer(query.get("scope", []), user, b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                form = parse_qs(body.decode())
                refreshed = form["grant_type"] == ["refresh_token"]
                known = form.get("refresh_token") == [f"refresh {PASSWORD}"]
                scopes = form.get("scope", [""])[0].split()
                self._answer(scopes, USER if refreshed and known else "wrong", body)

            def _answer(self, scopes: list[str], user: str, body: bytes) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append(Seen(self.command, self.path, headers, body))
                answer = {"token": outer.token(scopes, user), "expires_in": 300}
                data = json.dumps({} if user == "wrong" else answer).encode()
                self.send_response(401 if user == "wrong" else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler

    def token(self, scopes: list[str], user: str) -> str:
        """Return a JSON web token for what ``user`` may do of ``scopes``."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [
                action
                for action in actions.split(",")
                if user == USER or (name.startswith("public/") and action == "pull")
            ]
            access.append({"type": kind, "name": name, "actions": allowed})
        certificate = self.authorities.certificate.cert_chain_pems[0].bytes().decode()
        key = serialization.load_pem_private_key(
            self.authorities.certificate.private_key_pem.bytes(), None
        )
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        pem = "".join(certificate.splitlines()[1:-1])
        header = {"typ": "JWT", "alg": algorithm, "x5c": [pem]}
        now = int(time.time())
        claims = {
            "iss": "test issuer",
            "sub": user,
            "aud": "test registry",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": hashlib.sha256(str(time.time_ns()).encode()).hexdigest(),
            "access": access,
        }
        signed = f"{_packed(json.dumps(header).encode())}.{_packed(json.dumps(claims).encode())}"
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(signed.encode(), PKCS1v15(), hashes.SHA256())
        else:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{signed}.{_packed(signature)}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Handler = http.server.BaseHTTPRequestHandler
#: Does what the proxy should do instead of passing the request on.
Action = Callable[[Handler], None]


@attrs.define
class Rule:
    """What happens to requests whose ``METHOD PATH`` fits, ``times`` times (-1: always)."""

    pattern: re.Pattern[str]
    times: int = -1
    #: Answers instead of the registry.
    action: Action | None = None
    #: The connection is closed after so many bytes of the answer's body.
    cut: int | None = None
    #: Nothing comes any more after so many bytes, until the client goes away.
    stall: int | None = None
    #: The byte at this position of the body is another one.
    corrupt: int | None = None
    #: Bytes a second.
    rate: int | None = None
    #: Ranges aren't known, or not in requests with such headers.
    no_ranges: bool = False
    when: Callable[[dict[str, str]], bool] = lambda headers: True
    #: The registry does what it is asked, and its answer is lost.
    lose: bool = False
    #: Waited for before the answer is passed on.
    gate: threading.Event | None = None


class FaultProxy:
    """A proxy in front of a registry, doing to chosen requests what networks do."""

    def __init__(
        self, backend: str, *, tls: Authorities | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._backend = backend
        self.rules: list[Rule] = []
        self.seen: list[Seen] = []
        #: Bytes of answers' bodies passed on, by path.
        self.sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._stack = contextlib.ExitStack()
        self.port = self._stack.enter_context(_serving(self._handler(), tls))
        self.host = f"{host}:{self.port}"

    def close(self) -> None:
        self.released.set()
        self._stack.close()

    def on(self, pattern: str, **fault: Any) -> Rule:
        """Add a rule; the first that fits counts."""
        rule = Rule(re.compile(pattern), **fault)
        self.rules.append(rule)
        return rule

    def requests(self, pattern: str) -> list[Seen]:
        """Return the requests whose ``METHOD PATH`` fits."""
        return [one for one in self.seen if re.search(pattern, f"{one.method} {one.path}")]

    def reset(self) -> None:
        self.rules.clear()
        self.seen.clear()
        self.sent.clear()

    def _rule(self, request: str) -> Rule | None:
        with self._lock:
            for rule in self.rules:
                if rule.times and rule.pattern.search(request):
                    rule.times -= 1
                    return rule
        return None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class ProxyHandler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *ignored: object) -> None:
                pass

            def _handle(self) -> None:
                outer._handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

        return ProxyHandler

    def _handle(self, handler: Handler) -> None:
        body = _body(handler)
        # Some clients send several Accept headers, which mean one.
        headers = {
            name.lower(): ", ".join(handler.headers.get_all(name, [])) for name in handler.headers
        }
        with self._lock:
            self.seen.append(Seen(handler.command, handler.path, headers, body))
        rule = self._rule(f"{handler.command} {handler.path}") or Rule(re.compile(""))
        if rule.action is not None:
            rule.action(handler)
            return
        if rule.no_ranges and rule.when(headers):
            headers.pop("range", None)
        if rule.gate is not None:
            rule.gate.wait(30)
        connection = http.client.HTTPConnection(self._backend, timeout=60)
        try:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            if rule.lose:
                answer.read()
                raise ConnectionResetError
            self._pass_on(handler, answer, rule)
        except (OSError, http.client.HTTPException):
            handler.close_connection = True
        finally:
            connection.close()

    def _pass_on(self, handler: Handler, answer: http.client.HTTPResponse, rule: Rule) -> None:
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                handler.send_header(name, value)
        if answer.getheader("Content-Length") is None and answer.status not in (204, 304):
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        done = 0
        if handler.command == "HEAD":
            return
        while True:
            wanted = 16 << 10
            for limit in (rule.cut, rule.stall):
                if limit is not None:
                    wanted = min(wanted, limit - done)
            if wanted == 0:
                break
            data = answer.read(wanted)
            if not data:
                break
            if rule.corrupt is not None and done <= rule.corrupt < done + len(data):
                at = rule.corrupt - done
                data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            handler.wfile.write(data)
            handler.wfile.flush()
            done += len(data)
            with self._lock:
                self.sent[handler.path] = self.sent.get(handler.path, 0) + len(data)
            if rule.rate is not None:
                time.sleep(len(data) / rule.rate)
        if rule.cut == done:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        elif rule.stall == done:
            handler.close_connection = True
            self._until_gone(handler)

    def _until_gone(self, handler: Handler) -> None:
        handler.connection.settimeout(0.05)
        while not self.released.is_set():
            try:
                if not handler.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def _body(handler: Handler) -> bytes:
    length = handler.headers.get("Content-Length")
    if length is not None:
        return handler.rfile.read(int(length))
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return b""
    parts = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def answer(status: int, body: bytes = b"", *, close: bool = False, **headers: str) -> Action:
    """Return an action that answers so; underscores in names of headers are hyphens."""

    def act(handler: Handler) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        if close:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return act


def redirect(target: str, status: int = 307) -> Action:
    """Return an action that redirects; ``{path}`` in the target is the request's."""

    def act(handler: Handler) -> None:
        answer(status, Location=target.replace("{path}", handler.path))(handler)

    return act
