"""Every kind of write there is, each with the changes that it makes.

``GROUND`` is what they start from, in three layers. Isolation and change tests both go through
the whole table, so a kind of write added here is checked against every promise at once.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Callable

import attrs

from ..entry import Entry, Kind
from ..tree import Tree
from .oracle import LONG_AGO, Thing, directory, file, hardlink, special, symlink, whiteout

BODY = bytes(range(251)) * 20

GROUND: list[list[Thing]] = [
    [
        directory("", mtime_ns=LONG_AGO),
        directory("d", mode=0o750, uid=10, gid=20, xattrs={"user.dir": b"1"}),
        file("d/f", BODY, mode=0o640, uid=10, xattrs={"user.x": b"1", "user.y": b"2"}),
        file("d/h1", "linked"),
        hardlink("d/h2", "d/h1"),
        directory("e"),
        directory("d/gone"),
        symlink("s", "d/f"),
    ],
    [file("d/other", "other", mode=0o755), directory("d/sub"), file("d/sub/deep", "deep")],
    [file("top", "top"), file("void"), special("pipe", Kind.FIFO), whiteout("d/gone")],
]


@attrs.frozen
class Write:
    """``act`` on a container that stands on ``GROUND`` makes exactly ``changes``."""

    name: str
    act: Callable[[Tree], object]
    changes: list[str]


def _write_at(tree: Tree, path: str, offset: int, data: bytes) -> None:
    with tree.open(path, "r+b") as content:
        content.seek(offset)
        content.write(data)


def _append(tree: Tree, path: str, data: bytes) -> None:
    with tree.open(path, "ab") as content:
        content.write(data)


def _rewrite_in_secret(tree: Tree) -> None:
    before = tree.stat("d/f")
    _write_at(tree, "d/f", 100, b"\xff\xfe")
    tree.utime("d/f", before.mtime_ns)


def _replace(tree: Tree, path: str, new: Callable[[], object]) -> None:
    tree.remove_tree(path)
    new()


def _over(tree: Tree) -> None:
    tree.write_bytes("d/temporary", b"new version")
    tree.rename("d/temporary", "d/f")


_FILE = ["C d", "C d/f"]
_LINKED = ["C d", "C d/h1", "C d/h2"]
_MOVED = ["A z", "A z/f", "A z/h1", "A z/h2", "A z/other", "A z/sub", "A z/sub/deep"]
_EMPTIED = ["D d/f", "D d/h1", "D d/h2", "D d/other", "D d/sub"]

WRITES = [
    Write("rewriting a file", lambda t: t.write_bytes("d/f", b"short"), _FILE),
    Write("overwriting in the middle", lambda t: _write_at(t, "d/f", 2000, b"new"), _FILE),
    Write("writing past the end", lambda t: _write_at(t, "d/f", 9000, b"far"), _FILE),
    Write("appending", lambda t: _append(t, "d/f", b"more"), _FILE),
    Write("truncating", lambda t: t.truncate("d/f", 7), _FILE),
    Write("truncating to nothing", lambda t: t.truncate("d/f", 0), _FILE),
    Write("extending", lambda t: t.truncate("d/f", 10_000), _FILE),
    Write("writing with the mtime put back", _rewrite_in_secret, _FILE),
    Write("writing into an empty file", lambda t: _append(t, "void", b"1"), ["C void"]),
    Write("chmod of an empty file", lambda t: t.chmod("void", 0o600), ["C void"]),
    Write("chmod of a file", lambda t: t.chmod("d/f", 0o4711), _FILE),
    Write("chown of a file", lambda t: t.chown("d/f", 77, 88), _FILE),
    Write("utime of a file", lambda t: t.utime("d/f", LONG_AGO + 1), _FILE),
    Write("setxattr of a file", lambda t: t.setxattr("d/f", "user.x", b"22"), _FILE),
    Write("a new xattr", lambda t: t.setxattr("d/f", "user.z", b""), _FILE),
    Write("removexattr of a file", lambda t: t.removexattr("d/f", "user.y"), _FILE),
    Write("chmod of a directory", lambda t: t.chmod("d", 0o1777), ["C d"]),
    Write("chown of a directory", lambda t: t.chown("d", 1, 2), ["C d"]),
    Write("utime of a directory", lambda t: t.utime("d", 5), ["C d"]),
    Write("setxattr of a directory", lambda t: t.setxattr("d", "user.dir", b"2"), ["C d"]),
    Write("chmod of the root", lambda t: t.chmod("", 0o700), ["C "]),
    Write("chown of a symlink", lambda t: t.chown("s", 3, 4), ["C s"]),
    Write("utime of a symlink", lambda t: t.utime("s", -1), ["C s"]),
    Write("chown of a fifo", lambda t: t.chown("pipe", 3, 4), ["C pipe"]),
    Write("writing through a hard link", lambda t: _append(t, "d/h2", b"!"), _LINKED),
    Write("chmod through a hard link", lambda t: t.chmod("d/h1", 0o600), _LINKED),
    Write("setxattr through a hard link", lambda t: t.setxattr("d/h1", "user.h", b"1"), _LINKED),
    Write("link", lambda t: t.link("d/f", "e/f2"), [*_FILE, "C e", "A e/f2"]),
    Write("a third name", lambda t: t.link("d/h1", "d/h3"), [*_LINKED, "A d/h3"]),
    Write("unlink of one name", lambda t: t.unlink("d/h1"), ["C d", "D d/h1"]),
    Write("rename", lambda t: t.rename("d/f", "d/g"), ["C d", "D d/f", "A d/g"]),
    Write(
        "rename to another directory",
        lambda t: t.rename("d/sub/deep", "e/deep"),
        ["C d", "C d/sub", "D d/sub/deep", "C e", "A e/deep"],
    ),
    Write("rename over", lambda t: t.rename("d/f", "d/other"), ["C d", "D d/f", "C d/other"]),
    Write("replacing by rename", _over, _FILE),
    Write("rename of a directory", lambda t: t.rename("d", "z"), ["C ", "D d", *_MOVED]),
    Write("unlink", lambda t: t.unlink("d/f"), ["C d", "D d/f"]),
    Write("unlink of a symlink", lambda t: t.unlink("s"), ["C ", "D s"]),
    Write("a new file", lambda t: t.write_bytes("d/new", b"new"), ["C d", "A d/new"]),
    Write("mkdir", lambda t: t.mkdir("d/gone"), ["C d", "A d/gone"]),
    Write("symlink", lambda t: t.symlink("/nowhere", "d/new"), ["C d", "A d/new"]),
    Write(
        "mknod of a fifo",
        lambda t: t.mknod("d/new", stat_module.S_IFIFO | 0o600),
        ["C d", "A d/new"],
    ),
    Write(
        "mknod of a device",
        lambda t: t.mknod("d/new", stat_module.S_IFCHR | 0o666, os.makedev(1, 3)),
        ["C d", "A d/new"],
    ),
    Write("rmdir", lambda t: t.rmdir("e"), ["C ", "D e"]),
    Write("removing a full directory", lambda t: t.remove_tree("d"), ["C ", "D d"]),
    Write(
        "removing and making a directory",
        lambda t: _replace(t, "d", lambda: t.mkdir("d")),
        ["C ", "C d", *_EMPTIED],
    ),
    Write(
        "replacing a directory by a file",
        lambda t: _replace(t, "d", lambda: t.write_bytes("d", b"file")),
        ["C ", "C d"],
    ),
    Write(
        "replacing a file by a directory",
        lambda t: _replace(t, "d/f", lambda: (t.mkdir("d/f"), t.mkdir("d/f/in"))),
        [*_FILE, "A d/f/in"],
    ),
    Write(
        "replacing a symlink by a file",
        lambda t: _replace(t, "s", lambda: t.write_bytes("s", b"file")),
        ["C ", "C s"],
    ),
    Write(
        "emptying the root",
        lambda t: t.remove_tree(""),
        ["C ", "D d", "D e", "D pipe", "D s", "D top", "D void"],
    ),
    Write(
        "applying an entry",
        lambda t: t.apply(Entry(path="top", kind=Kind.SYMLINK, mode=0o777, target="s")),
        ["C top"],
    ),
    Write(
        "applying a whiteout",
        lambda t: t.apply(Entry(path="d/sub", kind=Kind.WHITEOUT)),
        ["C d", "D d/sub"],
    ),
    Write(
        "applying opaque",
        lambda t: t.apply(Entry(path="d", kind=Kind.OPAQUE)),
        ["C d", *_EMPTIED],
    ),
]
