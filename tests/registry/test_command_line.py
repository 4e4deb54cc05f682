"""pull, push and copy as people type them: what they print, their JSON, their exit status."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cowshed.cli.main import main
from cowshed.cli.output import share

from .images import MadeImage, Publisher, make_image, noise
from .services import FaultProxy, RegistryProcess, answer, free_port

FILES = {"usr/noise": noise(300_000)}
QUICK = [
    *("--set", "durability=none"),
    *("--set", "plugin.registry.pause=0.01"),
    *("--set", "plugin.registry.timeout=1"),
]


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*arguments: object, root: str = "shed") -> Ran:
        out, err = io.BytesIO(), io.BytesIO()
        words = ["--root", str(tmp_path / root), *QUICK, *map(str, arguments)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8", write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8", write_through=True))
            status = main(words)
            sys.stdout.flush()
            return Ran(status, out.getvalue().decode(), err.getvalue().decode())

    return run_it


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    made = make_image(FILES, {"etc/more": noise(20_000, name)})
    publisher.image(name, made, "v1")
    return made


def test_pull_ends_with_what_it_took(
    registry: RegistryProcess, publisher: Publisher, run: Run, image: MadeImage, name: str
) -> None:
    other = make_image(FILES, {"etc/more": noise(40_000, name)})
    publisher.image(name, other, "v2")
    first = run("pull", f"{registry.host}/{name}:v1")
    assert first.status == 0, first.err
    assert f"Loaded image: {registry.host}/{name}:v1" in first.lines
    assert first.lines[-2] == image.id
    assert first.lines[-1] == (
        f"2 layers: 0 here already, 2 fetched; {share(image.size, image.size)} transferred"
    )
    second = run("pull", f"docker://{registry.host}/{name}:v2")
    assert second.lines[-1] == (
        "2 layers: 1 here already, 1 fetched; "
        f"{share(len(other.layers[1].data), other.size)} transferred"
    )
    third = run("pull", f"{registry.host}/{name}:v2", "named:3")
    assert third.lines[-1] == (
        f"2 layers: 2 here already, 0 fetched; {share(0, other.size)} transferred"
    )
    assert run("images", "-q", "named:3").out


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (41_200_000, 209_800_000, "41.2 of 209.8 MB"),
        (0, 0, "0 of 0 B"),
        (999, 999, "999 of 999 B"),
        (1500, 999_940, "1.5 of 999.9 kB"),
        (1500, 999_960, "0.0 of 1.0 MB"),
        (123_456, 2_000_000_000_000, "0.0 of 2.0 TB"),
    ],
)
def test_shares_have_one_unit(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_quiet_and_json(
    registry: RegistryProcess, run: Run, image: MadeImage, name: str, tmp_path: Path
) -> None:
    assert run("pull", "-q", f"{registry.host}/{name}:v1").out == f"{image.id}\n"
    (pulled,) = json.loads(run("--json", "pull", f"{registry.host}/{name}:v1").out)
    assert pulled == {
        "id": image.id,
        "names": [f"{registry.host}/{name}:v1"],
        "layers": 2,
        "existing": 2,
        "received": 0,
        "total": image.size,
        "size": pulled["size"],
        "manifest": image.manifest.digest,
    }
    pushed = json.loads(run("push", "--json", image.id, f"{registry.host}/{name}:v9").out)
    assert pushed["manifest"] == image.manifest.digest
    assert (pushed["layers"], pushed["existing"], pushed["sent"]) == (2, 2, 0)
    out = run("push", "-q", f"{registry.host}/{name}:v1").out
    assert out == f"{image.manifest.digest}\n"
    (copied,) = json.loads(
        run("copy", "--json", f"{registry.host}/{name}:v1", f"oci:{tmp_path}/l:v1").out
    )
    assert copied["sent"] == image.size


def test_push_and_copy_say_layer_by_layer_what_they_do(
    registry: RegistryProcess, run: Run, image: MadeImage, name: str
) -> None:
    run("pull", f"{registry.host}/{name}:v1")
    pushed = run("push", f"{registry.host}/{name}:v1", f"{registry.host}/{name}/to:v1")
    assert pushed.status == 0, pushed.err
    assert sum(line.endswith(" taken over") for line in pushed.lines) == 2
    assert pushed.lines[-2] == image.manifest.digest
    assert pushed.lines[-1] == (
        f"2 layers: 2 there already, 0 sent; {share(0, image.size)} transferred"
    )
    forced = run("push", f"{registry.host}/{name}:v1", "--format", "zstd", "--level", "1")
    assert forced.status == 0, forced.err
    assert sum(" sent " in line for line in forced.lines[:2]) == 2
    copied = run("copy", f"{registry.host}/{name}:v1", f"{registry.host}/{name}/copy:v1")
    assert copied.status == 0, copied.err


def test_pull_takes_other_transports_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/file").write_bytes(noise(1000))
    pulled = run("pull", f"dir:{tmp_path}/files", "mine:1")
    assert pulled.status == 0, pulled.err
    assert re.fullmatch(r"1 layer: 0 here already, 1 fetched; .* transferred", pulled.lines[-1])


def test_an_image_may_be_called_like_a_transport(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """``docker:24`` is an image on Docker Hub, which isn't reached from here."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    failed = run("pull", "docker:24")
    assert failed.status == 1
    assert failed.err.startswith("cowshed: registry docker.io: can't be reached: ")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"action": answer(404)}, "no such image"),
        ({"action": answer(403)}, "unauthorised"),
        ({"action": answer(429, Retry_After="999")}, "too many requests"),
        ({"action": answer(200, b"{" * 100)}, "not valid JSON"),
        ({"corrupt": 3}, "expected sha256"),
        ({"action": answer(200, b"x" * ((4 << 20) + 1))}, "exceeds the limit of 4,194,304"),
    ],
)
def test_every_failure_is_one_line_and_a_status(
    proxy: FaultProxy, run: Run, image: MadeImage, name: str, fault: dict[str, Any], words: str
) -> None:
    proxy.on("GET .*/manifests/", **fault)
    failed = run("pull", f"{proxy.host}/{name}:v1")
    assert failed.status == 1
    (line,) = failed.err.splitlines()
    assert words in line
    assert "internal error" not in line


def test_a_wrong_call_has_status_2(run: Run) -> None:
    for words in (
        ["pull", "UPPER/case:x:y"],
        ["push", "--format", "rar", "x"],
        ["copy", "x"],
    ):
        assert run(*words).status == 2


def test_nothing_in_a_registrys_words_reaches_the_terminal(
    proxy: FaultProxy, run: Run, image: MadeImage, name: str
) -> None:
    said = json.dumps({"errors": [{"message": "\x1b]0;owned\x07\x1b[2J"}]}).encode()
    proxy.on("GET .*/manifests/", action=answer(400, said))
    failed = run("pull", f"{proxy.host}/{name}:v1")
    assert "\x1b" not in failed.err and "\\x1b" in failed.err


def test_a_terminal_sees_bars_for_layers_side_by_side(
    proxy: FaultProxy, run: Run, publisher: Publisher, tmp_path: Path, name: str
) -> None:
    made = make_image(*({f"f{n}": noise(600_000, (name, n))} for n in range(3)))
    publisher.image(name, made, "v1")
    proxy.on("GET .*/blobs/", rate=2_000_000)
    words = ["--root", str(tmp_path / "shed"), *QUICK, "pull", f"{proxy.host}/{name}:v1"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    environment |= {"COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cowshed", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.stderr is not None
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    for diff_id in made.diff_ids:
        short = f"{diff_id[:19]}".encode()
        assert short + b": Fetching" in seen or short + b": Importing" in seen
        assert short + b": Imported" in seen
    assert b"3 layers: 0 here already, 3 fetched; 1.8 of 1.8 MB transferred" in seen


def test_what_is_pushed_as_zstd_chunked_is_pulled_in_part_and_pull_says_so(
    run: Run, registry: RegistryProcess, publisher: Publisher, name: str
) -> None:
    base = {"etc/base": noise(300_000, 9)}
    files = {f"f{number}": noise(40_000, number) for number in range(20)}
    for tag, layer in (("v1", files), ("v2", {**files, "f7": noise(40_000, "other")})):
        publisher.image(f"{name}/from", make_image(base, layer), tag)
        assert run("pull", f"{registry.host}/{name}/from:{tag}", root="other").status == 0
        pushed = run(
            *("push", "--format", "zstd:chunked"),
            *(f"{registry.host}/{name}/from:{tag}", f"{registry.host}/{name}/to:{tag}"),
            root="other",
        )
        assert pushed.status == 0, pushed.err
    ends = [run("pull", f"{registry.host}/{name}/to:{tag}").lines[-1] for tag in ("v1", "v2", "v2")]
    assert ends[0] == "2 layers: 0 here already, 2 fetched; 1.1 of 1.1 MB transferred"
    assert re.fullmatch(
        r"2 layers: 1 here already, 1 fetched; 0\.[01] of 1\.1 MB transferred", ends[1]
    )
    assert ends[2] == "2 layers: 2 here already, 0 fetched; 0.0 of 1.1 MB transferred"
