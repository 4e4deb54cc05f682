"""What the model of the merged tree takes for a layer of very many entries."""

from __future__ import annotations

import tracemalloc

from cowshed.archive.limits import Limits
from cowshed.archive.resolve import Directory, View
from cowshed.entry import Kind

ODD = "nicht-utf8-\udcff"


def view() -> View:
    return View(None, Limits(), lambda path: None)


def fill(view: View, directory: str, count: int, *names: str) -> Directory:
    found = view.directory(directory, make=True)
    assert found is not None
    for number, name in enumerate((*names, *(f"file-{one:06d}" for one in range(count))), 1):
        view.put(found, name, view.path(found, name), number)
    return found


def test_many_directories_take_little_once_they_are_left() -> None:
    made = view()
    tracemalloc.start()
    try:
        for number in range(300):
            fill(made, f"directory-{number:03d}", 400)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 120_000 < 40, "bytes a name; 190 if nothing is packed"


def test_a_large_directory_takes_little_while_it_is_filled() -> None:
    made = view()
    tracemalloc.start()
    try:
        large = fill(made, "large", 200_000, ODD)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 200_000 < 90, "bytes a name; 190 if nothing is packed"
    assert made.look(large, ODD) == 1
    assert made.look(large, "file-000000") == 2
    assert made.look(large, "file-199999") == 200_001
    assert made.look(large, "file-200000") is None
    made.put(large, "file-000000", "large/file-000000", 7)
    assert made.look(large, "file-000000") == 7
    assert dict(made.replaced(made.root, "large", "large", Kind.FILE))["large/file-000000"] == 7
    assert len(large.children) == 200_001


def test_what_was_packed_is_known_as_before() -> None:
    made = view()
    old = fill(made, "old", 3, ODD, "link")
    made.put(old, "link", "old/link", "target")
    made.put(old, "object", "old/object", 0)
    for number in range(60):
        fill(made, f"other-{number}", 400)
    assert made.look(old, ODD) == 1
    assert made.look(old, "link") == "target"
    assert made.look(old, "object") == 0
    assert made.look(old, "nothing") is None
    assert list(made.replaced(old, "file-000002", "old/file-000002", Kind.FILE)) == [
        ("old/file-000002", 5)
    ]
    again = fill(made, "old", 1)
    assert again is old
    for number in range(60):
        fill(made, f"more-{number}", 400)
    assert sorted(made.replaced(made.root, "old", "old", Kind.FILE)) == [
        ("old/file-000000", 1),
        ("old/file-000001", 4),
        ("old/file-000002", 5),
        (f"old/{ODD}", 1),
    ]
