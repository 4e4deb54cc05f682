"""Names: what a path reaches, and what a tree refuses."""

from __future__ import annotations

import errno
import stat as stat_module
from collections.abc import Callable

import pytest

from .files import fails
from .kit import Kit, Store
from .oracle import LONG_AGO, assert_same, directory, file, hardlink, symlink


class NameConformance(Kit):
    """Paths reach what they name, links are never followed, a refused call changes nothing."""

    group = "containers"

    def test_symbolic_links_are_never_followed(self, store: Store) -> None:
        base = store.layer(
            "base", directory("d"), file("d/f", "x"), symlink("s", "d"), symlink("up", "../..")
        )
        child = store.container("child", base)
        with store.write(child) as tree:
            calls: list[Callable[[], object]] = [
                lambda: tree.stat("s/f"),
                lambda: list(tree.scandir("s")),
                lambda: list(tree.listdir("s")),
                lambda: tree.open("s/f"),
                lambda: tree.open("s/new", "wb"),
                lambda: tree.mkdir("s/new"),
                lambda: tree.symlink("x", "s/new"),
                lambda: tree.link("s/f", "new"),
                lambda: tree.link("d/f", "s/new"),
                lambda: tree.mknod("s/new", stat_module.S_IFIFO | 0o600),
                lambda: tree.rename("s/f", "new"),
                lambda: tree.rename("d/f", "s/new"),
                lambda: tree.unlink("s/f"),
                lambda: tree.rmdir("s/f"),
                lambda: tree.chmod("s/f", 0o600),
                lambda: tree.chown("s/f", 1, 1),
                lambda: tree.utime("s/f", 1),
                lambda: tree.setxattr("s/f", "user.a", b""),
                lambda: tree.truncate("s/f", 0),
                lambda: tree.stat("d/f/below"),
                lambda: tree.write_bytes("d/f/below", b""),
                lambda: list(tree.scandir("up")),
            ]
            for call in calls:
                with pytest.raises(NotADirectoryError):
                    call()
        assert_same(store.layers[base], store.look(child), "a link on the way is refused")

    def test_missing_paths_are_file_not_found(self, store: Store) -> None:
        child = store.container("child", store.layer("base", file("f", "x")))
        with store.write(child) as tree:
            calls: list[Callable[[], object]] = [
                lambda: tree.stat("no"),
                lambda: list(tree.scandir("no")),
                lambda: list(tree.listdir("no")),
                lambda: tree.open("no/f", "wb"),
                lambda: tree.mkdir("no/d"),
                lambda: tree.symlink("x", "no/s"),
                lambda: tree.link("no", "new"),
                lambda: tree.link("f", "no/new"),
                lambda: tree.rename("no", "new"),
                lambda: tree.rename("f", "no/new"),
                lambda: tree.unlink("no"),
                lambda: tree.rmdir("no"),
                lambda: tree.chmod("no", 0),
                lambda: tree.chown("no", 0, 0),
                lambda: tree.utime("no", 0),
                lambda: tree.setxattr("no", "user.a", b""),
                lambda: tree.removexattr("no", "user.a"),
                lambda: tree.truncate("no", 0),
            ]
            for call in calls:
                with pytest.raises(FileNotFoundError):
                    call()
            assert [entry.path for entry in tree.walk()] == ["", "f"], (
                "a refused call leaves nothing"
            )

    def test_what_doesnt_fit_is_refused_and_changes_nothing(self, store: Store) -> None:
        base = store.layer(
            "base", directory(""), directory("d"), file("d/f", "1"), directory("e"), file("f", "2")
        )
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.symlink("f", "s")
            tree.utime("", LONG_AGO)
            taken: list[Callable[[], object]] = [
                lambda: tree.mkdir("d"),
                lambda: tree.mkdir("f"),
                lambda: tree.mkdir("s"),
                lambda: tree.symlink("x", "f"),
                lambda: tree.symlink("x", "s"),
                lambda: tree.link("f", "d/f"),
                lambda: tree.link("f", "s"),
                lambda: tree.mknod("f", stat_module.S_IFIFO | 0o600),
            ]
            for make in taken:
                with pytest.raises(FileExistsError):
                    make()
            with fails(errno.EISDIR, errno.EPERM):
                tree.unlink("e")
            with fails(errno.EPERM, errno.EISDIR):
                tree.link("d", "d2")
            with fails(errno.ENOTDIR):
                tree.rmdir("f")
            with fails(errno.ENOTDIR):
                list(tree.scandir("f"))
            with fails(errno.ENOTEMPTY, errno.EEXIST):
                tree.rmdir("d")
            with fails(errno.ENOTEMPTY, errno.EEXIST):
                tree.rename("e", "d")
            with fails(errno.EISDIR):
                tree.rename("f", "e")
            with fails(errno.ENOTDIR):
                tree.rename("e", "f")
            with fails(errno.EINVAL):
                tree.rename("d", "d/inside")
            with pytest.raises(OSError):
                tree.rmdir("")
            with fails(errno.EOPNOTSUPP):
                tree.chmod("s", 0o600)
            with fails(errno.ENODATA):
                tree.removexattr("f", "user.none")
            with fails(errno.EISDIR, errno.EINVAL):
                tree.truncate("d", 0)
            with fails(errno.EINVAL):
                tree.readlink("f")
            assert tree.readlink("s") == "f"
            tree.unlink("s")
            tree.utime("", LONG_AGO)
        assert_same(store.layers[base], store.look(child), "a refused call changes nothing")
        assert store.changes(child) == []

    def test_rename_replaces_as_rename_does(self, store: Store) -> None:
        base = store.layer(
            "base",
            directory("full"),
            directory("full/sub"),
            file("full/sub/f", "1"),
            directory("bare"),
            file("a", "a"),
            hardlink("a2", "a"),
            symlink("s", "nowhere"),
        )
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.rename("a", "a2")
            assert tree.exists("a"), "renaming a file onto itself does nothing"
            tree.rename("full", "full")
            tree.rename("full", "bare")
            assert tree.read_bytes("bare/sub/f") == b"1", "a directory replaces an empty one"
            tree.rename("a", "s")
            assert tree.read_bytes("s") == b"a", "a link is replaced, not written through"
            assert not tree.exists("nowhere")
            tree.rename("bare/sub", "up")
            tree.mkdir("bare/sub")
            assert [entry.path for entry in tree.walk("up")] == ["up", "up/f"]
            paths = [entry.path for entry in tree.walk()]
        assert paths == ["", "a2", "bare", "bare/sub", "s", "up", "up/f"]
        assert set(store.look(child)) == set(paths)
