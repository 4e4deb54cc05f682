"""What whiteouts and opaque markers remove, and in which order they stand (OCI layer.md)."""

from __future__ import annotations

import io

import pytest

from archive.helpers import Member, Stack, directory, file, link, listing, symlink, tar
from cowshed.archive import Limits, apply_layer
from cowshed.archive.resolve import View
from cowshed.driver import Stage
from cowshed.entry import Entry, Kind

BELOW = (
    directory("d"),
    file("d/a", b"a0"),
    file("d/b", b"b0"),
    directory("d/sub"),
    file("d/sub/c", b"c0"),
    file("keep", b"k"),
)


def result(*above: Member) -> dict[str, str | bytes]:
    stack = Stack()
    stack.apply(tar(*BELOW))
    return listing(stack.apply(tar(*above)))


D = {"d": "directory", "keep": b"k"}

CASES: dict[str, tuple[tuple[Member, ...], dict[str, str | bytes]]] = {
    "file": ((file(".wh.keep"),), {k: v for k, v in {**D}.items() if k == "d"} | {
        "d/a": b"a0", "d/b": b"b0", "d/sub": "directory", "d/sub/c": b"c0"}),
    "directory": ((file(".wh.d"),), {"keep": b"k"}),
    "directory_then_new": ((file(".wh.d"), file("d/n", b"n")), D | {"d/n": b"n"}),
    "new_then_whiteout": ((file("d/n", b"n"), file(".wh.d")), D | {"d/n": b"n"}),
    "new_below_then_whiteout": (
        (file("d/sub/n", b"n"), file(".wh.d")),
        D | {"d/sub": "directory", "d/sub/n": b"n"},
    ),
    "opaque_first": (
        (directory("d"), file("d/.wh..wh..opq"), file("d/a", b"a1")),
        D | {"d/a": b"a1"},
    ),
    "opaque_last": (
        (directory("d"), file("d/a", b"a1"), file("d/.wh..wh..opq")),
        D | {"d/a": b"a1"},
    ),
    "opaque_between": (
        (file("d/a", b"a1"), file("d/sub/.wh..wh..opq"), file("d/.wh..wh..opq"), file("d/z", b"z")),
        D | {"d/a": b"a1", "d/z": b"z"},
    ),
    "opaque_after_own_below": (
        (file("d/sub/n", b"n"), file("d/.wh..wh..opq")),
        D | {"d/sub": "directory", "d/sub/n": b"n"},
    ),
    "opaque_without_directory_entry": ((file("d/.wh..wh..opq"),), D),
    "opaque_root": ((file(".wh..wh..opq"), file("n", b"n")), {"n": b"n"}),
    "opaque_root_last": ((file("n", b"n"), file(".wh..wh..opq")), {"n": b"n"}),
    "opaque_twice": (
        (file("d/.wh..wh..opq"), file("d/n", b"n"), file("d/.wh..wh..opq")),
        D | {"d/n": b"n"},
    ),
    "whiteout_twice": ((file("d/.wh.a"), file("d/.wh.a"), file("d/.wh.b"), file("d/sub/.wh.c")),
        D | {"d/sub": "directory"}),
    "whiteout_in_removed": ((file(".wh.d"), file("d/.wh.a")), {"keep": b"k"}),
    "opaque_in_removed": ((file(".wh.d"), file("d/.wh..wh..opq")), {"keep": b"k"}),
    "whiteout_of_missing": ((file("x/y/.wh.z"), file(".wh.d")), {"keep": b"k"}),
    "replace_by_link_then_whiteout_below": (
        (symlink("keepdir", "d"), directory("keepdir"), file("d/.wh.a")),
        {"d": "-> keepdir", "keepdir": "directory", "keep": b"k"},
    ),
    "link_out_then_opaque": (
        (link("d/a", "linked"), file("d/.wh..wh..opq")),
        D | {"linked": b"a0"},
    ),
    "whiteout_then_directory_hides_old_children": (
        (file("d/.wh.sub"), directory("d/sub"), file("d/.wh.a"), file("d/.wh.b")),
        D | {"d/sub": "directory"},
    ),
    "file_then_directory_hides_old_children": (
        (file("d", b"f"), directory("d"), file("d/n", b"n"), file("d/.wh.a")),
        D | {"d/n": b"n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_whiteouts_remove_what_came_from_below_and_no_more(name: str) -> None:
    members, expected = CASES[name]
    assert result(*members) == expected


class Recorder(Stage):
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry, content: object = None) -> None:
        if content is not None:
            content.read()
        self.entries.append(entry)

    def open(self, path: str) -> io.BytesIO:
        raise FileNotFoundError(path)

    def seal(self, layer: str) -> None: ...

    def discard(self) -> None: ...


def told(*above: Member) -> list[tuple[str, str]]:
    stack = Stack()
    parent = stack.apply(tar(*BELOW))
    recorder = Recorder()
    apply_layer(io.BytesIO(tar(*above)), recorder, parent)
    return [(entry.kind.value, entry.path) for entry in recorder.entries]


def test_an_early_opaque_marker_is_passed_on_as_one() -> None:
    assert told(directory("d"), file("d/.wh..wh..opq")) == [("directory", "d"), ("opaque", "d")]


def test_a_late_opaque_marker_becomes_the_whiteouts_it_means() -> None:
    assert told(file("d/a", b"1"), file("d/.wh..wh..opq")) == [
        ("file", "d/a"),
        ("whiteout", "d/b"),
        ("whiteout", "d/sub"),
    ]


def test_a_whiteout_of_what_does_not_exist_is_not_told() -> None:
    assert told(file(".wh.nothing"), file("d/.wh.nothing")) == []


def test_a_missing_parent_is_told_before_its_child() -> None:
    stack = Stack()
    tree = stack.apply(tar(file("a/b/c", b"x")))
    made = tree.stat("a/b")
    assert (made.kind, made.mode, made.uid, made.mtime_ns) == (Kind.DIRECTORY, 0o755, 0, 0)


def test_a_late_opaque_marker_over_very_many_names_keeps_none_of_them_in_memory() -> None:
    """They would all be in the model of the tree until the next entry."""
    stack = Stack()
    parent = stack.apply(tar(*(file(f"d/{number}") for number in range(2000))))
    view = View(parent, Limits(), lambda path: None)
    directory_ = view.directory("d", make=False)
    assert directory_ is not None
    view.put(directory_, "0", "d/0", 1)
    assert len(list(view.opaque(directory_))) == 1999
    assert view.scratch.weight < 10
    assert view.look(directory_, "1") is None
    assert list(view.whiteout(directory_, "1")) == []
    view.close()
