"""Small questions: URLs that can't be misread, and connections kept only while they are good."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from cowshed_plugins.registry import tls
from cowshed_plugins.registry.answer import Answer, WireError, drain, read_whole
from cowshed_plugins.registry.urls import BadUrlError, is_loopback, joined, origin, parsed
from cowshed_plugins.registry.wire import Wire

from .images import Publisher, make_image
from .services import RegistryProcess

OPEN = f"/proc/{os.getpid()}/fd"


# -- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, host, port, target",
    [
        ("http://one/", "one", 80, "/"),
        ("HTTPS://One.Example", "one.example", 443, "/"),
        ("http://one:/", "one", 80, "/"),
        ("http://one:5000?a=b#c", "one", 5000, "/?a=b"),
        ("http://[::1]:5000/v2/", "[::1]", 5000, "/v2/"),
        ("http://one/ä b", "one", 80, "/%C3%A4%20b"),
        ("http://one/@two", "one", 80, "/@two"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, target: str) -> None:
    found = parsed(url)
    assert (found.host, found.port, found.target) == (host, port, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "one",
        "//one/",
        "ftp://one/",
        "http://",
        "http:///path",
        "http://one@two/",
        "http://one\\@two/",
        "http://one\\two/",
        "http://one:70000/",
        "http://one:1:2/",
        "http://o%6ee/",
        "http://öne/",
        "http://[::1%25eth0]/",
        "http://[::1/",
        "http://[1.2.3.4]/",
        "http://[::1::]/",
        "http://[.]/",
        "http://one/a\rb",
        "http://one\n/",
        "http://one /",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(BadUrlError):
        parsed(url)


def test_a_host_stays_as_it_was_written_where_files_are_looked_for_by_it() -> None:
    assert parsed("https://Registry.Example:5000/v2/").netloc == "Registry.Example:5000"
    assert origin("https://Registry.Example:5000/v2/") == "https://registry.example:5000"


@pytest.mark.parametrize("host", ["[::1", "[nothing]:5000", "a]b"])
def test_what_is_no_host_is_no_loopback(host: str) -> None:
    assert not is_loopback(host)


@given(st.text("htps:/@\\[]?#.%one1\t é", max_size=30).map(lambda text: f"http://{text}"))
@example("http://one\\@two/")
@example("http://one?@two/")
@example("http://[::1]@two/")
@example("http://one#@two/")
def test_nobody_sees_another_host_in_a_url_than_we_do(url: str) -> None:
    try:
        ours = parsed(url)
    except BadUrlError:
        return
    try:
        theirs = parse_url(url)
    except LocationParseError:
        return  # which no request is sent for
    assert theirs.host == ours.host
    assert (theirs.port or 80) == ours.port
    assert theirs.auth is None


@given(st.text(max_size=20))
def test_a_redirect_leads_somewhere_or_is_refused(location: str) -> None:
    try:
        target = joined("http://one/v2/", location)
    except BadUrlError:
        return
    parsed(target)


# -- connections ------------------------------------------------------------------------------


class Scripted:
    """A server that answers each request with the next of some bytes; None: it hangs up.

    It does so without waiting for another request.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.connections = 0
        self.requests: list[bytes] = []
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, suppress(OSError):
                connection.settimeout(20)
                self._answer(connection)
            self.hung_up.set()

    def _answer(self, connection: socket.socket) -> None:
        while self._answers:
            if self._answers[0] is None:
                self._answers.pop(0)
                return
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(65536)
                if not data:
                    return
                request += data
            self.requests.append(request)
            connection.sendall(self._answers.pop(0) or b"")

    def close(self) -> None:
        self._answers.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the wait for the next
        self._listener.close()
        self._thread.join(30)


Serve = Callable[..., Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Scripted] = []

    def start(*answers: bytes | None) -> Scripted:
        made.append(Scripted(*answers))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with closing(Wire(2.0)) as made:
        yield made


def said(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def asked(wire: Wire, url: str) -> bytes:
    answer = wire.ask(url, {"User-Agent": "cowshed"})
    try:
        body = read_whole(answer, 1 << 20)
        answer.release()
    finally:
        answer.close()
    return body


def test_a_connection_is_used_again(serve: Serve, wire: Wire) -> None:
    server = serve(said(b"one"), said(b""), said(b"three"))
    assert [asked(wire, server.url) for _ in range(3)] == [b"one", b"", b"three"]
    assert server.connections == 1


def test_one_that_the_server_closed_meanwhile_is_not(serve: Serve, wire: Wire) -> None:
    server = serve(said(b"one"), None, said(b"two"))
    assert asked(wire, server.url) == b"one"
    assert server.hung_up.wait(10)
    assert asked(wire, server.url) == b"two"
    assert server.connections == 2


def test_one_whose_answer_was_not_read_is_not(serve: Serve, wire: Wire) -> None:
    server = serve(said(bytes(1 << 20), status="401 Unauthorized"), said(b"two"))
    answer = wire.ask(server.url, {})
    assert answer.status == 401
    drain(answer)
    assert asked(wire, server.url) == b"two"
    assert server.connections == 2


def test_one_that_the_server_will_close_is_not(serve: Serve, wire: Wire) -> None:
    server = serve(said(b"one", "Connection: close"), said(b"two"))
    assert asked(wire, server.url) == b"one"
    assert asked(wire, server.url) == b"two"
    assert server.connections == 2


def test_several_headers_of_a_name_are_joined(serve: Serve, wire: Wire) -> None:
    headers = ['WWW-Authenticate: Basic realm="a"', "www-authenticate: Bearer b=c"]
    answer = wire.ask(serve(said(b"", *headers)).url, {})
    assert answer.header("WWW-Authenticate") == 'Basic realm="a", Bearer b=c'
    assert answer.header("Link") == ""
    answer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * (1 << 17) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nwhat\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nab",
    ],
)
def test_an_answer_that_is_none_is_a_failure_of_one_line(
    serve: Serve, wire: Wire, answer: bytes
) -> None:
    before = len(os.listdir(OPEN))
    server = serve(answer, None) if answer else serve(None)
    with pytest.raises(WireError) as failed:
        asked(wire, server.url)
    server.close()
    text = str(failed.value)
    assert text and text.isprintable() and failed.value.passing
    assert len(os.listdir(OPEN)) <= before


@pytest.mark.parametrize("way", ["ask", "send"])
def test_both_ways_say_the_same_of_what_is_wrong(wire: Wire, way: str) -> None:
    def get(url: str) -> Answer:
        return wire.ask(url, {}) if way == "ask" else wire.send("GET", url, {})

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(WireError, match=r"^it has stopped sending$") as failed:
            get(f"http://127.0.0.1:{port}/")
        assert failed.value.passing
        with pytest.raises(WireError, match=r"^no TLS|stopped sending|doesn't answer"):
            get(f"https://127.0.0.1:{port}/")
    with pytest.raises(WireError, match=r"^connection refused$") as failed:
        get(f"http://127.0.0.1:{port}/")
    assert not failed.value.passing
    with pytest.raises(WireError, match=r"^its host name isn't known$") as failed:
        get("http://nowhere.invalid/")
    assert not failed.value.passing
    with pytest.raises(WireError) as failed:
        get(f"http://{'a' * 64}.invalid/")
    assert not failed.value.passing
    with pytest.raises(WireError, match=r"is no URL to go to$") as failed:
        get("http://one\\@two/")
    assert not failed.value.passing


@pytest.mark.parametrize("way", ["ask", "send"])
def test_a_read_that_another_thread_ended_is_a_failure(serve: Serve, wire: Wire, way: str) -> None:
    server = serve(said(b"short")[:-1], None)
    answer = wire.ask(server.url, {}) if way == "ask" else wire.send("GET", server.url, {})
    assert answer.read(2) == b"sh"
    answer.close()
    with suppress(WireError):  # or it has ended
        assert answer.read(2) == b""
    drain(answer)


def test_a_connection_that_comes_back_after_the_end_is_closed(serve: Serve) -> None:
    before = len(os.listdir(OPEN))
    server = serve(said(b"one"))
    wire = Wire(2.0)
    answer = wire.ask(server.url, {})
    assert read_whole(answer, 10) == b"one"
    wire.close()
    answer.release()
    answer.close()
    server.close()
    assert len(os.listdir(OPEN)) <= before


def test_closing_waits_for_nobody_who_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    """Streams ask for a context with their own lock held, and closing takes both locks."""
    wire = Wire(2.0)
    server = serve(said(b"one"))
    wire.send("GET", server.url, {}).close()
    inside, go_on = threading.Event(), threading.Event()

    def directories(*_: str) -> list[str]:
        inside.set()
        go_on.wait(10)
        return []

    monkeypatch.setattr(tls, "directories", directories)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}/"

    def send() -> None:
        with suppress(WireError):
            wire.send("GET", url, {})

    threads = [threading.Thread(target=send, daemon=True)]
    threads[0].start()
    assert inside.wait(10)
    threads.append(threading.Thread(target=wire.close, daemon=True))
    threads[1].start()
    threads[1].join(0.2)  # as far as it gets
    go_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


# -- what it is for ---------------------------------------------------------------------------


def test_a_pull_of_nothing_new_needs_nothing_that_streams(
    registry: RegistryProcess, publisher: Publisher, tmp_path: Path, name: str
) -> None:
    publisher.image(name, make_image({"a": b"a"}), "v1")
    code = (
        "import sys\n"
        "from cowshed.cli.main import main\n"
        "status = main()\n"
        "print('urllib3' in sys.modules, status)\n"
    )
    command = [sys.executable, "-c", code, "--root", str(tmp_path / "shed"), "pull", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for streamed in ("True", "False"):
        ran = subprocess.run(
            [*command, f"{registry.host}/{name}:v1"],
            check=True, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert ran.stdout.splitlines()[-1] == f"{streamed} 0"
