"""Tars of every tool, applied and written again: the same bytes, the right tree."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from archive.helpers import Stack, file, link, listing, symlink, tar
from cowshed.archive import read_recipe_summary, replay
from cowshed.entry import Kind
from cowshed.errors import CorruptError

LONG = "/".join(["directory-of-a-long-name"] * 9)
BINARY = os.fsdecode(b"caf\xe9-\xff")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "usr/lib").mkdir(parents=True)
    (root / LONG).mkdir(parents=True)
    (root / LONG / ("n" * 200)).write_bytes(b"long")
    (root / BINARY).write_bytes(b"binary")
    (root / "größe").write_bytes(b"utf-8")
    (root / "usr/lib/a").write_bytes(b"x" * 100_000)
    os.link(root / "usr/lib/a", root / "usr/lib/z")
    (root / "lib").symlink_to("usr/lib")
    (root / "far").symlink_to("t" * 300)
    os.mkfifo(root / "fifo")
    (root / "empty").touch()
    os.utime(root / "empty", ns=(1, 1_600_000_000_123_456_789))
    os.chmod(root / "usr/lib/a", 0o4755)
    with open(root / "sparse", "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"middle" * 2000)
        sparse.seek(4 << 20)
        sparse.write(b"end")
        sparse.truncate(5 << 20)
    with open(root / "many-runs", "wb") as sparse:
        for run in range(60):
            sparse.seek(run * 65536)
            sparse.write(b"%d" % run)
    with open(root / "hole", "wb") as sparse:
        sparse.truncate(1 << 20)
    return root


GNU = ["tar", "--create", "--sort=name", "--directory"]
TOOLS = {
    "gnu": [*GNU, "{}", "--format=gnu", "."],
    "gnu-sparse": [*GNU, "{}", "--format=gnu", "--sparse", "."],
    "oldgnu": [*GNU, "{}", "--format=oldgnu", "--sparse", "."],
    "pax": [*GNU, "{}", "--format=pax", "."],
    "pax-sparse-0.0": [*GNU, "{}", "--format=pax", "--sparse", "--sparse-version=0.0", "."],
    "pax-sparse-0.1": [*GNU, "{}", "--format=pax", "--sparse", "--sparse-version=0.1", "."],
    "pax-sparse-1.0": [*GNU, "{}", "--format=pax", "--sparse", "--sparse-version=1.0", "."],
    "pax-global": [*GNU, "{}", "--format=pax", "--pax-option=comment=global", "."],
    "bsdtar-pax": ["bsdtar", "-c", "--format", "pax", "-C", "{}", "."],
    "bsdtar-gnu": ["bsdtar", "-c", "--format", "gnutar", "-C", "{}", "."],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tar_of_each_tool_comes_back_byte_for_byte(tool: str, files: Path) -> None:
    command = [part.format(files) for part in TOOLS[tool]]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} isn't installed")
    data = subprocess.run(command, check=True, capture_output=True).stdout
    tree = Stack().apply(data)
    found = listing(tree)
    below = {
        os.path.relpath(os.path.join(directory, name), files)
        for directory, directories, names in os.walk(files)
        for name in (*directories, *names)
    }
    assert set(found) == below
    for path in below:
        real = files / path
        if real.is_symlink():
            assert found[path] == f"-> {os.readlink(real)}"
        elif real.is_file():
            assert found[path] == real.read_bytes(), path
            assert tree.stat(path).mode == real.stat().st_mode & 0o7777
    assert tree.stat("usr/lib/a").inode == tree.stat("usr/lib/z").inode
    if "pax" in tool:
        assert tree.stat("empty").mtime_ns == 1_600_000_000_123_456_789


@pytest.mark.parametrize("format", ["ustar", "v7"])
def test_old_formats_come_back_byte_for_byte(format: str, files: Path) -> None:
    command = [*GNU, str(files), f"--format={format}", "usr", "lib", "fifo", "empty", BINARY]
    tree = Stack().apply(subprocess.run(command, check=False, capture_output=True).stdout)
    assert tree.read_bytes("usr/lib/z") == b"x" * 100_000
    assert tree.read_bytes(BINARY) == b"binary"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python_tars_come_back_byte_for_byte(format: int) -> None:
    name = "d" * 80 + "/" + "e" * 90
    tree = Stack().apply(
        tar(file(name, b"1" * 513), file("s", b"2"), link("s", "l"), format=format)
    )
    assert tree.read_bytes(name) == b"1" * 513
    assert tree.read_bytes("l") == b"2"


@pytest.mark.parametrize(
    "members",
    [
        [file("a", b"1"), file("a", b"22")],
        [file("a", b"1"), file("a", b"22"), file("a", b"333")],
        [file("a", b"1"), link("a", "b"), file("a", b"22")],
        [file("a", b"1"), link("a", "b"), file("b", b"22"), file("a", b"4")],
        [file("d/e/a", b"1"), file("d/b", b"2"), symlink("x", "d"), file("d/a", b"3")],
        [file("d/a", b"1"), file("d", b"2"), file("e", b"3")],
        [file("a", b"1"), link("b", "a"), file("b", b"2")][::2],
        [file("a", b"1"), file("b", b"2"), link("b", "a")],
        [file("a", b"x" * 3_000_000), file("a", b"y" * 2_000_000)],
        [file(".wh.nothing", b"content in a whiteout"), file("a", b"1")],
        [file(".wh..wh.plnk/1.2", b"aufs")],
    ],
)
def test_content_that_a_later_member_hides_is_kept(members: list[object]) -> None:
    Stack().apply(tar(*members))  # type: ignore[arg-type]


def test_a_hidden_sparse_file_is_kept(files: Path) -> None:
    for version in ("0.0", "1.0"):
        command = [*GNU, str(files), "--format=pax", "--sparse", f"--sparse-version={version}"]
        command += ["sparse", "hole", "many-runs"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        end = len(data.rstrip(b"\0"))
        data = data[: end + -end % 512]
        assert Stack().apply(data + data).read_bytes("hole") == bytes(1 << 20)


@pytest.mark.parametrize("tail", [b"", bytes(512), bytes(1024), bytes(9216), bytes(1024) + b"tail"])
def test_every_end_is_accepted_and_kept(tail: bytes) -> None:
    Stack().apply(tar(file("a", b"x" * 700))[:-1024] + tail)


def test_a_missing_padding_at_the_end_is_accepted_as_go_does() -> None:
    Stack().apply(tar(file("a", b"x" * 700))[: 512 + 700])


def test_an_empty_tar_is_an_empty_layer() -> None:
    stack = Stack()
    assert listing(stack.apply(b"")) == {}
    assert stack.stats.entries == 0


def test_a_parent_file_of_the_same_name_is_not_taken_for_the_layers() -> None:
    stack = Stack()
    stack.apply(tar(file("a", b"parent"), file("b", b"parent")))
    stack.apply(tar(file("a", b"child!"), link("b", "c")))


@pytest.mark.parametrize("content", [b"other", b"longer than it was", b"", None])
def test_tampering_is_found_and_named(content: bytes | None) -> None:
    stack = Stack()
    stack.apply(tar(file("etc/passwd", b"right")))
    stack.driver.prepare("c" * 64, stack.top)
    tree = stack.driver.tree("c" * 64, writable=True)
    if content is None:
        tree.unlink("etc/passwd")
    else:
        tree.write_bytes("etc/passwd", content)
    with pytest.raises(CorruptError, match="etc/passwd"):
        replay(io.BytesIO(stack.recipe), tree, io.BytesIO())


def test_a_damaged_recipe_is_an_error() -> None:
    stack = Stack()
    tree = stack.apply(tar(*(file(f"f{number}", b"%d" % number) for number in range(99))))
    for at in range(0, len(stack.recipe), 7):
        for damaged in (
            stack.recipe[:at],
            stack.recipe[:at] + bytes([stack.recipe[at] ^ 0x55]) + stack.recipe[at + 1 :],
        ):
            try:
                replay(io.BytesIO(damaged), tree, io.BytesIO())
            except CorruptError:
                continue
            assert at > len(stack.recipe) - 40  # numbers of the end block are for people


def test_the_summary_tells_what_the_tar_contained() -> None:
    stack = Stack()
    stack.apply(
        tar(file("a", b"1"), symlink("a", "./b"), file("a", b"x" * 2_000_000), file(".wh.x"))
    )
    items = list(read_recipe_summary(io.BytesIO(stack.recipe)))
    assert [(item.name, item.kind, item.size) for item in items] == [
        ("a", Kind.FILE, 1),
        ("./b", Kind.SYMLINK, 0),
        ("a", Kind.FILE, 2_000_000),
        (".wh.x", Kind.FILE, 0),
    ]


def test_a_recipe_of_many_entries_is_small() -> None:
    stack = Stack()
    names = [f"usr/share/package-{n % 200}/file-{n:05}" for n in range(5000)]
    stack.apply(tar(*(file(name, name.encode()) for name in sorted(names))))
    assert len(stack.recipe) < 5000 * 40
