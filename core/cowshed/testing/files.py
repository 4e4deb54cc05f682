"""Files: reading, writing and moving in a tree, as POSIX has it."""

from __future__ import annotations

import errno
import os
import random
import stat as stat_module
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from ..entry import Kind
from ..tree import OpenMode
from .kit import Kit, Store
from .oracle import (
    LONG_AGO,
    assert_same,
    digest,
    directory,
    file,
    hardlink,
    look,
    sketch,
    symlink,
)

SIZES = [0, 1, 4095, 4096, 4097, 1 << 20, 5 << 20]


def pattern(size: int, seed: int = 1) -> bytes:
    """Return bytes in which every place is different enough to notice a shift."""
    return random.Random(seed).randbytes(size)


@contextmanager
def fails(code: int, *others: int) -> Generator[None]:
    """Expect an OSError with one of these codes."""
    with pytest.raises(OSError) as caught:
        yield
    names = [errno.errorcode[number] for number in (code, *others)]
    assert caught.value.errno in (code, *others), f"should be {names}: {caught.value!r}"


class FileConformance(Kit):
    """A tree behaves as the file system that it describes."""

    group = "containers"

    # -- content --------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", SIZES)
    def test_content_of_any_size_reads_back_from_anywhere(self, store: Store, size: int) -> None:
        data = pattern(size)
        base = store.layer("base", file("f", data))
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.write_bytes("own", data)
        store.assert_layers("content survives")
        for id, path in ((base, "f"), (child, "f"), (child, "own")):
            with store.driver.tree(id) as tree, tree.open(path) as content:
                for offset in {0, 1, size // 3, size // 2, max(0, size - 1), size, size + 10}:
                    assert content.seek(offset) == offset
                    assert digest(content.read(5000)) == digest(data[offset : offset + 5000]), (
                        f"read at {offset}"
                    )
                    assert content.tell() == min(offset + 5000, max(size, offset))
                assert content.seek(-min(size, 7), os.SEEK_END) == size - min(size, 7)
                assert content.read() == data[size - min(size, 7) :]
                content.seek(0)
                whole = b"".join(iter(lambda: content.read(70_001), b""))
                assert digest(whole) == digest(data), "content comes back"

    @pytest.mark.parametrize("own", [False, True], ids=["of the parent", "of its own"])
    @pytest.mark.parametrize("size", SIZES)
    def test_a_file_is_overwritten_extended_and_cut(
        self, store: Store, size: int, own: bool
    ) -> None:
        data = bytearray(pattern(size))
        base = store.layer("base", file("f", b"" if own else bytes(data)))
        child = store.container("child", base)
        with store.write(child) as tree:
            if own:
                tree.write_bytes("f", bytes(data))

            def check(what: str) -> None:
                assert digest(tree.read_bytes("f")) == digest(bytes(data)), (
                    f"{what} a file of {size} bytes"
                )
                assert tree.stat("f").size == len(data), f"size after {what}"

            check("making")
            for offset in (0, size // 2, max(0, size - 3), size, size + 5000):
                with tree.open("f", "r+b") as content:
                    content.seek(offset)
                    content.write(b"<new>")
                    content.seek(max(0, offset - 2))
                    content.flush()
                    data.extend(bytes(max(0, offset + 5 - len(data))))
                    data[offset : offset + 5] = b"<new>"
                    assert content.read(7) == data[max(0, offset - 2) :][:7], "reads its writes"
                check("overwriting")
            with tree.open("f", "ab") as content:
                content.write(b"appended")
            data.extend(b"appended")
            check("appending to")
            for new in (len(data) - 3, size // 2, size // 2 + 6000, 0, 3):
                tree.truncate("f", new)
                del data[new:]
                data.extend(bytes(new - len(data)))
                check("truncating")
            with tree.open("f", "r+b") as content:
                content.write(b"123456")
                content.truncate(2)
            data[:] = b"12"
            check("truncating while writing")
        with store.driver.tree(child) as tree:
            assert digest(tree.read_bytes("f")) == digest(bytes(data)), "what was written is there"
        store.assert_layers()

    def test_what_a_cut_removed_doesnt_come_back(self, store: Store) -> None:
        child = store.container("child", store.layer("base", file("f", pattern(300_000))))
        with store.write(child) as tree:
            tree.truncate("f", 100)
            tree.truncate("f", 300_000)
            rest = tree.read_bytes("f")[100:]
            assert digest(rest) == digest(bytes(299_900)), "an extended file reads zeros"
            with tree.open("f", "r+b") as content:
                content.seek(400_000)
                content.write(b"end")
            rest = tree.read_bytes("f")[100:]
            assert digest(rest) == digest(bytes(399_900) + b"end"), "a gap reads zeros"

    def test_equal_files_are_files_of_their_own(self, store: Store) -> None:
        same = pattern(5000)
        base = store.layer("base", *(file(name, same, mode=0o640) for name in "abcd"))
        child = store.container("child", base)
        with store.write(child) as tree:
            assert {tree.stat(name).links for name in "abcd"} == {1}, "equal files aren't linked"
            with tree.open("a", "r+b") as content:
                content.write(b"changed")
            tree.chmod("b", 0o600)
            tree.setxattr("c", "user.x", b"1")
            tree.write_bytes("e", same)
            tree.write_bytes("f", same)
            tree.truncate("f", 10)
            found = look(tree)
        assert found["d"] == store.layers[base]["d"], "a write reaches one of several equal files"
        assert found["b"].digest == found["c"].digest == found["e"].digest == digest(same)
        assert found["f"].digest == digest(same[:10]) and found["c"].mode == 0o640
        expected = ["C ", "C a", "C b", "C c", "A e", "A f"]
        assert store.changes(child) == expected, "a write reaches one of several equal files"
        store.assert_layers()

    def test_modes_of_opening_do_what_they_say(self, store: Store) -> None:
        child = store.container("child", store.layer("base", file("f", "old", mode=0o600, uid=9)))
        with store.write(child) as tree:
            with fails(errno.EEXIST):
                tree.open("f", "xb")
            assert tree.read_bytes("f") == b"old", "a refused xb changes nothing"
            reading: tuple[OpenMode, ...] = ("rb", "r+b")
            making: tuple[OpenMode, ...] = ("wb", "xb", "ab")
            for mode in reading:
                with fails(errno.ENOENT):
                    tree.open("missing", mode)
            tree.write_bytes("f", b"new")
            assert (tree.stat("f").mode, tree.stat("f").uid) == (0o600, 9), "wb keeps attributes"
            for number, mode in enumerate(making):
                tree.open(f"new{number}", mode).close()
                entry = tree.stat(f"new{number}")
                assert (entry.mode, entry.uid, entry.gid, entry.size) == (0o644, 0, 0, 0), mode
            with fails(errno.EISDIR):
                tree.open("", "rb")
            tree.symlink("f", "s")
            for mode in (*reading, *making):
                with pytest.raises(OSError):
                    tree.open("s", mode)
            assert tree.read_bytes("f") == b"new", "no primitive follows a symbolic link"

    # -- attributes of new objects --------------------------------------------------------------

    def test_new_objects_belong_to_root_and_have_the_mode_asked_for(self, store: Store) -> None:
        base = store.layer("base", directory("shared", mode=0o2777, uid=5, gid=50))
        child = store.container("child", base)
        mask = os.umask(0o077)
        try:
            with store.write(child) as tree:
                tree.mkdir("shared/d", 0o775)
                tree.mkdir("shared/sticky", 0o1777)
                tree.write_bytes("shared/f", b"")
                tree.symlink("x", "shared/s")
                tree.mknod("shared/p", stat_module.S_IFIFO | 0o666)
                tree.mknod("shared/r", stat_module.S_IFREG | 0o4666)
        finally:
            os.umask(mask)
        found = store.look(child)
        for name, mode in {
            "d": 0o775, "sticky": 0o1777, "f": 0o644, "s": 0o777, "p": 0o666, "r": 0o4666
        }.items():  # fmt: skip
            seen = found[f"shared/{name}"]
            assert (seen.uid, seen.gid) == (0, 0), f"new objects belong to 0:0: {name}"
            assert seen.mode == mode, f"the mode is the one asked for, whatever the umask: {name}"

    def test_chown_and_writing_keep_setuid(self, store: Store) -> None:
        child = store.container("child", store.layer("base", file("su", "x", mode=0o6755)))
        with store.write(child) as tree:
            tree.chown("su", 12, 34)
            assert tree.stat("su").mode == 0o6755, "chown keeps setuid and setgid bits"
            assert (tree.stat("su").uid, tree.stat("su").gid) == (12, 34)

    def test_directories_and_files_get_a_fresh_mtime(self, store: Store) -> None:
        base = store.layer(
            "base",
            directory(""),
            *(directory(name) for name in "abcdefgh"),
            *(file(f"{name}/f", name) for name in "abcdefgh"),
        )
        child = store.container("child", base)
        since = time.time_ns() - 1_000_000_000
        with store.write(child) as tree:
            tree.unlink("a/f")
            tree.write_bytes("b/new", b"")
            tree.link("c/f", "c/g")
            tree.rename("d/f", "e/g")
            tree.mkdir("f/new")
            with tree.open("g/f", "ab") as content:
                content.write(b"more")
            tree.chmod("h/f", 0o600)
            tree.setxattr("h", "user.a", b"1")
            tree.chown("h", 1, 1)
        with store.driver.tree(child) as tree:
            for path in ("a", "b", "c", "d", "e", "f", "g/f", "b/new", "f/new"):
                assert tree.stat(path).mtime_ns >= since, f"mtime of {path!r} is fresh"
            for path in ("", "g", "h", "h/f", "c/f", "e/g"):
                assert tree.stat(path).mtime_ns == LONG_AGO, f"mtime of {path!r} is left alone"

    def test_apply_makes_exactly_the_entry_and_leaves_the_parents_mtime(self, store: Store) -> None:
        child = store.container("child", store.layer("base", directory("")))
        things = [
            directory("d", mode=0o2750, uid=1, gid=2, xattrs={"user.a": b"1"}),
            file("d/f", "one", mode=0o4711, uid=3, gid=4, xattrs={"user.b": b"2"}),
            hardlink("d/g", "d/f"),
            symlink("d/s", "f", uid=5),
            file("d/f", "two", mode=0o600),
            directory("d", mode=0o700, xattrs={"user.c": b"3"}, mtime_ns=-5),
        ]
        with store.write(child) as tree:
            for thing in things:
                tree.apply(thing.entry, thing.content())
            assert tree.stat("").mtime_ns == LONG_AGO, "apply leaves the parent's mtime"
            expected = sketch([directory(""), *things])
            assert_same(expected, look(tree), "apply makes exactly the entry")
        assert_same(expected, store.look(child), "apply makes exactly the entry")

    def test_walk_is_parents_first_and_reaches_everything(self, store: Store) -> None:
        base = store.layer(
            "base",
            directory("b"),
            file("b/x", "1"),
            directory("b/c"),
            file("b/c/y"),
            file("b-"),
            file("a"),
        )
        with store.driver.tree(base) as tree:
            walked = [(entry.path, entry.kind) for entry in tree.walk()]
            inner = [entry.path for entry in tree.walk("b/c")]
        assert [path for path, _ in walked] == ["", "a", "b", "b/c", "b/c/y", "b/x", "b-"]
        assert walked[2][1] is Kind.DIRECTORY and inner == ["b/c", "b/c/y"]
