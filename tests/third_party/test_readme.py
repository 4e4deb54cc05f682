"""drivers/README.md, from top to bottom, in a fresh directory: what it shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from .conftest import HERE, Environment, needs_pip

README = Path(__file__).parents[2] / "drivers/README.md"
SOURCES = HERE / "cowshed-pigeonhole"


@attrs.frozen
class Block:
    language: str
    title: str
    text: str
    line: int


def blocks() -> list[Block]:
    text = README.read_text()
    return [
        Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start()) + 1)
        for found in re.finditer(
            r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, flags=re.M | re.S
        )
    ]


def appended(before: str | None, block: Block) -> str:
    """Return a file with a further block, as a person would paste it."""
    if before is None:
        return block.text
    if block.language == "toml":
        return before + block.text
    return before + ("\n" if block.text.startswith(" ") else "\n\n") + block.text


def test_it_builds_the_package_that_the_other_tests_install() -> None:
    built: dict[str, str] = {}
    for block in blocks():
        if block.title:
            built[block.title] = appended(built.get(block.title), block)
    assert set(built) == {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name, text in built.items():
        assert text == (SOURCES / name).read_text(), f"{name} in drivers/README.md is another"


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text()):
        if "://" not in target:
            assert (README.parent / target).exists(), target


class Reader:
    """Does what the page says, one block after the other."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.files: dict[str, str] = {}

    def follow(self, block: Block) -> None:
        if block.title:
            self.files[block.title] = appended(self.files.get(block.title), block)
            path = self.environment.work / block.title
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.files[block.title])
        elif block.language == "console":
            for command, expected in commands(block.text):
                assert_shown(expected, self.shell(command), f"line {block.line}: {command}")
        else:
            script = self.environment.work / f"line{block.line}.py"
            script.write_text(block.text)
            ran = self.environment.run("python", str(script))
            assert ran.returncode == 0, f"line {block.line}: {ran.stdout}{ran.stderr}"

    def shell(self, command: str) -> list[str]:
        """Run one command; what it exports is there for the next."""
        after = self.environment.place / "variables"
        ran = subprocess.run(
            ["bash", "-c", f"{command}\nstatus=$?\nenv -0 > '{after}'\nexit $status"],
            env=self.environment.variables,
            cwd=self.environment.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout}"
        pairs = after.read_text().rstrip("\0").split("\0")
        self.environment.variables = dict(pair.split("=", 1) for pair in pairs)
        return ran.stdout.splitlines()


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block with the output shown for it."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, *expected = part.splitlines()
        yield command, expected


def assert_shown(expected: list[str], found: list[str], where: str) -> None:
    """Fail unless the lines shown occur in order; "…" stands for anything."""
    rest = iter(found)
    for line in expected:
        if line.strip() == "…":
            continue
        pieces = [re.escape(" ".join(piece.split())) for piece in line.split("…")]
        pattern = re.compile(".*".join(pieces))
        if not any(pattern.search(" ".join(one.split())) for one in rest):
            pytest.fail(f"{where}\nshould show {line!r}, shows\n" + "\n".join(found))


@needs_pip
def test_following_it_gives_a_conforming_driver(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.variables["COLUMNS"] = "300"
    environment.variables.pop("COWSHED_ROOT")
    reader = Reader(environment)
    os.makedirs(environment.work, exist_ok=True)
    for block in blocks():
        reader.follow(block)


def test_what_isn_t_shown_is_noticed() -> None:
    assert_shown(["a … c", "…", "e"], ["x", "a  b  c d", "-", "e"], "here")
    with pytest.raises(pytest.fail.Exception, match="should show 'e'"):
        assert_shown(["e", "a"], ["a", "b"], "here")
