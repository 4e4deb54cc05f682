"""What we write is the same every time, and read unchanged by us, GNU tar, bsdtar and umoci."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.helpers import Stack, directory, file, link, listing, symlink, tar
from cowshed.archive import replay, tree_entries, write_layer, write_tree
from cowshed.entry import Entry, Kind
from cowshed.errors import BusyError, UnsupportedError
from cowshed.tree import Tree

BINARY = os.fsdecode(b"caf\xe9-\xff")
CONTENT = {
    "usr/lib/a": b"x" * 70_000,
    "n" * 255: b"long",
    "/".join(["directory-name"] * 20) + "/f": b"deep",
    "größe": b"utf-8",
    BINARY: b"binary",
    BINARY * 14: b"long and binary",
    "empty": b"",
}


def sample() -> Iterator[Entry]:
    yield Entry(path="", kind=Kind.DIRECTORY, mode=0o755, mtime_ns=10**18)
    yield Entry(path="usr", kind=Kind.DIRECTORY, mode=0o1777, uid=7, gid=2**32 - 2, mtime_ns=-1)
    yield Entry(path="usr/lib", kind=Kind.DIRECTORY, mode=0o755)
    above = "/".join(["directory-name"] * 20)
    for at in range(20):
        yield Entry(path="/".join(["directory-name"] * (at + 1)), kind=Kind.DIRECTORY, mode=0o755)
    assert above
    for path, data in CONTENT.items():
        yield Entry(
            path=path,
            kind=Kind.FILE,
            mode=0o4755,
            size=len(data),
            mtime_ns=1_600_000_000_123_456_789,
            xattrs={"user.empty": b"", "user.binary": b"\0\n\xff", "user.a": b"a"},
        )
    yield Entry(path="link", kind=Kind.HARDLINK, target="n" * 255)
    yield Entry(path="sym", kind=Kind.SYMLINK, mode=0o777, target=BINARY * 30, mtime_ns=5)
    yield Entry(path="fifo", kind=Kind.FIFO, mode=0o600, mtime_ns=2**62)
    yield Entry(path="dev", kind=Kind.CHAR, mode=0o600, rdev=os.makedev(4095, 1_048_575))


def open_content(path: str) -> io.BytesIO:
    return io.BytesIO(CONTENT[path])


def written(entries: Iterator[Entry], clamp: int | None = None) -> tuple[bytes, bytes]:
    out, recipe = io.BytesIO(), io.BytesIO()
    stats = write_layer(entries, open_content, out, recipe=recipe, clamp_mtime_ns=clamp)
    assert stats.tar_size == len(out.getvalue())
    assert stats.diff_id == "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue(), recipe.getvalue()


def test_entries_come_back_as_they_were() -> None:
    data, recipe = written(sample())
    assert written(sample()) == (data, recipe)
    stack = Stack()
    tree = stack.apply(data)
    assert stack.recipe == recipe
    for entry in sample():
        if entry.kind is Kind.HARDLINK:
            assert tree.stat(entry.path).inode == tree.stat(entry.target).inode
        else:
            assert tree.stat(entry.path) == entry
    for path, content in CONTENT.items():
        assert tree.read_bytes(path) == content
    out = io.BytesIO()
    replay(io.BytesIO(recipe), tree, out)
    assert out.getvalue() == data


def test_times_are_clamped() -> None:
    data, _ = written(sample(), clamp=10**9)
    assert all(entry.mtime_ns <= 10**9 for entry in Stack().apply(data).walk() if entry.path)


def below_root() -> Iterator[Entry]:
    """What any user may unpack on any file system."""
    return (
        entry
        for entry in sample()
        if entry.kind not in (Kind.CHAR, Kind.SYMLINK, Kind.FIFO) and entry.path not in ("", "usr")
        if len(os.fsencode(entry.path)) <= 255 or "/" in entry.path
    )


@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_other_tars_read_what_we_write(reader: str, tmp_path: Path) -> None:
    if shutil.which(reader) is None:
        pytest.skip(f"{reader} isn't installed")
    data, _ = written(below_root())
    subprocess.run(
        [reader, "-x", "--no-same-owner", "-p", "-f", "-", "-C", str(tmp_path)],
        input=data,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    for path, content in CONTENT.items():
        assert (tmp_path / path).read_bytes() == content
        assert (tmp_path / path).stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (tmp_path / "link").stat().st_ino == (tmp_path / ("n" * 255)).stat().st_ino


def test_python_reads_what_we_write() -> None:
    data, _ = written(sample())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = {member.name for member in archive}
    assert names == {entry.path or "." for entry in sample()}


def test_whiteouts_are_written_as_layers_have_them() -> None:
    stack = Stack()
    stack.apply(tar(directory("d"), file("d/a", b"1"), file("b", b"2"), file("c", b"3")))
    changes = [
        Entry(path="d", kind=Kind.DIRECTORY, mode=0o755),
        Entry(path="d", kind=Kind.OPAQUE),
        Entry(path="b", kind=Kind.WHITEOUT),
    ]
    data, _ = written(iter(changes))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["d", "d/.wh..wh..opq", ".wh.b"]
    assert listing(stack.apply(data)) == {"d": "directory", "c": b"3"}


def test_a_name_that_would_mean_a_deletion_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="deletion"):
        written(iter([Entry(path="d/.wh.x", kind=Kind.DIRECTORY)]))


@pytest.mark.parametrize("size", [3, 5])
def test_of_a_file_that_changes_meanwhile_what_is_there_is_written(size: int) -> None:
    listed = [Entry(path="f", kind=Kind.FILE, size=size), Entry(path="g", kind=Kind.FILE, size=2)]
    out = io.BytesIO()
    write_layer(listed, lambda path: io.BytesIO(b"1234" if path == "f" else b"56"), out)
    assert listing(Stack().apply(out.getvalue())) == {"f": b"1234", "g": b"56"}


def test_a_file_that_is_gone_is_left_out_and_its_other_name_is_refused() -> None:
    def open_file(path: str) -> io.BytesIO:
        if path == "f":
            raise FileNotFoundError(path)
        return io.BytesIO(b"1234")

    listed = [Entry(path=name, kind=Kind.FILE, size=4) for name in "fg"]
    out = io.BytesIO()
    stats = write_layer(listed, open_file, out)
    assert listing(Stack().apply(out.getvalue())) == {"g": b"1234"}
    assert (stats.entries, stats.size) == (1, 4)
    linked = [*listed, Entry(path="h", kind=Kind.HARDLINK, target="f")]
    with pytest.raises(BusyError, match="'f' changed while it was read"):
        write_layer(linked, open_file, io.BytesIO())


def test_a_file_that_is_cut_off_while_it_is_read_is_noticed() -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(3) if not self.tell() else b""

    with pytest.raises(BusyError, match="changed"):
        write_layer(
            [Entry(path="f", kind=Kind.FILE, size=4)], lambda path: Cut(b"1234"), io.BytesIO()
        )


@pytest.fixture
def tree() -> Tree:
    return Stack().apply(
        tar(
            directory("etc"),
            directory("etc/d"),
            file("etc/a", b"1"),
            link("etc/a", "etc/d/b"),
            symlink("a", "etc/s"),
            link("etc/a", "z"),
        )
    )


def exported(tree: Tree, path: str = "") -> dict[str, str | bytes]:
    out = io.BytesIO()
    write_tree(tree, out, path)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert all(member.name not in ("", ".") for member in archive)
    again = Stack().apply(out.getvalue())
    return listing(again)


def test_an_export_is_the_tree_without_a_member_for_its_root(tree: Tree) -> None:
    assert exported(tree) == listing(tree)


def test_a_part_is_named_from_its_last_component_on(tree: Tree) -> None:
    assert exported(tree, "etc/d") == {"d": "directory", "d/b": b"1"}
    assert exported(tree, "etc/a") == {"a": b"1"}
    assert exported(tree, "etc")["etc/d/b"] == b"1"


def test_further_names_of_a_file_are_hard_links(tree: Tree) -> None:
    links = {
        entry.path: entry.target for entry in tree_entries(tree) if entry.kind is Kind.HARDLINK
    }
    assert links == {"etc/d/b": "etc/a", "z": "etc/a"}
