"""The kit's own eyes: what a tree must look like, kept on the test's side, and what it looks like.

Nothing here trusts the code under test to compare itself. ``look`` walks a tree with ``scandir``,
asks ``stat`` about every object again, reads every byte and hashes it; ``Sketch`` applies entries
to a dictionary of its own, without a line of ``Tree.apply``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat as stat_module
from collections.abc import Iterable, Mapping
from io import BytesIO

import attrs
import pytest

from ..driver import Driver
from ..entry import Change, Entry, Kind, join
from ..tree import Tree

#: For what has no number of its own. A driver's numbers may be as small as they like.
_identities = itertools.count(-1, -1)


@attrs.frozen(kw_only=True)
class Seen:
    """One object. ``mtime_ns`` is None where any will do; ``identity`` is the inode."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int | None = None
    size: int = 0
    target: str = ""
    rdev: int = 0
    xattrs: Mapping[str, bytes]
    digest: str = ""
    identity: int = attrs.field(eq=False, factory=_identities.__next__)


Picture = dict[str, Seen]


@attrs.frozen
class Thing:
    """An entry of a stream together with its content."""

    entry: Entry
    data: bytes = b""

    def content(self) -> BytesIO | None:
        """Return the content as a stream, None for all but files."""
        return BytesIO(self.data) if self.entry.kind is Kind.FILE else None


# -- things to build layers of ----------------------------------------------------------------

#: An mtime with nanoseconds that no clock shows now.
LONG_AGO = 1_234_567_890_123_456_789


def file(
    path: str,
    data: bytes | str = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = LONG_AGO,
    xattrs: Mapping[str, bytes] | None = None,
) -> Thing:
    """Return a regular file."""
    content = data.encode() if isinstance(data, str) else data
    return Thing(
        Entry(
            path=path,
            kind=Kind.FILE,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            size=len(content),
            xattrs=dict(xattrs or {}),
        ),
        content,
    )


def directory(
    path: str,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = LONG_AGO,
    xattrs: Mapping[str, bytes] | None = None,
) -> Thing:
    """Return a directory; the root is the empty path."""
    return Thing(
        Entry(
            path=path,
            kind=Kind.DIRECTORY,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            xattrs=dict(xattrs or {}),
        )
    )


def symlink(path: str, target: str, *, uid: int = 0, mtime_ns: int = LONG_AGO) -> Thing:
    """Return a symbolic link."""
    return Thing(
        Entry(path=path, kind=Kind.SYMLINK, mode=0o777, uid=uid, mtime_ns=mtime_ns, target=target)
    )


def special(path: str, kind: Kind, *, rdev: int = 0, mode: int = 0o600) -> Thing:
    """Return a fifo or device."""
    return Thing(Entry(path=path, kind=kind, mode=mode, rdev=rdev, mtime_ns=LONG_AGO))


def hardlink(path: str, target: str) -> Thing:
    """Return another name of ``target``."""
    return Thing(Entry(path=path, kind=Kind.HARDLINK, target=target))


def whiteout(path: str) -> Thing:
    """Return the deletion of ``path``."""
    return Thing(Entry(path=path, kind=Kind.WHITEOUT))


def opaque(path: str) -> Thing:
    """Return the emptying of directory ``path``."""
    return Thing(Entry(path=path, kind=Kind.OPAQUE))


# -- what must be -----------------------------------------------------------------------------


def digest(data: bytes) -> str:
    """Return the hash that pictures hold of contents.

    Compare contents of more than a few hundred bytes by it: pytest, which where ``CI`` is set shows
    differences whole, takes minutes to line up half a megabyte.
    """
    return hashlib.sha256(data).hexdigest()


def empty() -> Picture:
    """Return the picture of an empty root: 0755, 0:0, any mtime."""
    return {"": Seen(kind=Kind.DIRECTORY, mode=0o755, xattrs={})}


def sketch(things: Iterable[Thing], base: Picture | None = None) -> Picture:
    """Return what ``base`` must look like after ``things`` were applied in order."""
    picture = dict(empty() if base is None else base)
    for thing in things:
        entry = thing.entry
        old = picture.get(entry.path)
        both = old is not None and old.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY
        if not both:
            below = f"{entry.path}/" if entry.path else ""
            for path in [path for path in picture if path and path.startswith(below)]:
                del picture[path]
        if entry.kind is Kind.OPAQUE:
            continue
        if entry.kind is Kind.WHITEOUT:
            del picture[entry.path]
        elif entry.kind is Kind.HARDLINK:
            picture[entry.path] = picture[entry.target]
        else:
            picture[entry.path] = Seen(
                kind=entry.kind,
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                mtime_ns=entry.mtime_ns,
                size=entry.size,
                target=entry.target,
                rdev=entry.rdev,
                xattrs=dict(entry.xattrs),
                digest=digest(thing.data) if entry.kind is Kind.FILE else "",
            )
    return picture


# -- what is ----------------------------------------------------------------------------------


def look(tree: Tree) -> Picture:
    """Return what ``tree`` shows, every object asked for twice and every byte read."""
    picture = {"": _see(tree, tree.stat(""), "")}
    todo = [""]
    names: dict[int, list[Entry]] = {}
    while todo:
        here = todo.pop()
        children = list(tree.scandir(here))
        keys = [child.name.encode("utf-8", "surrogateescape") for child in children]
        assert keys == sorted(set(keys)), f"scandir({here!r}) isn't in the byte order of names"
        for child in children:
            path = join(here, child.name)
            assert child.path == path, f"scandir({here!r}) yields an entry with path {child.path!r}"
            picture[path] = _see(tree, child, path)
            if child.kind is Kind.DIRECTORY:
                todo.append(path)
            elif child.inode:
                names.setdefault(child.inode, []).append(child)
    for same in names.values():
        for entry in same:
            assert entry.links == len(same), (
                f"{entry.path!r} says it has {entry.links} names; the tree shows {len(same)}"
            )
    return picture


def _see(tree: Tree, listed: Entry, path: str) -> Seen:
    entry = tree.stat(path)
    assert entry == listed, f"stat({path!r}) and scandir disagree"
    assert entry.inode == listed.inode, f"stat({path!r}) and scandir disagree about the inode"
    found = ""
    if entry.kind is Kind.FILE:
        with tree.open(path) as content:
            data = content.read()
        assert len(data) == entry.size, f"{path!r} has {len(data)} bytes, stat says {entry.size}"
        found = digest(data)
    return Seen(
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        size=entry.size,
        target=entry.target,
        rdev=entry.rdev,
        xattrs=dict(entry.xattrs),
        digest=found,
        identity=entry.inode or next(_identities),
    )


def look_at(driver: Driver, id: str) -> Picture:
    """Return what layer or container ``id`` shows to whoever opens it now, natively too."""
    with driver.tree(id) as tree:
        picture = look(tree)
        if tree.path is not None:
            look_natively(tree.path, picture)
        return picture


def look_natively(root: str, picture: Picture) -> None:
    """Fail unless directory ``root`` shows the names, contents and targets of ``picture``.

    Owners, modes, devices and xattrs are left out: without privilege only the tree has them.
    """
    todo = [""]
    seen = {""}
    while todo:
        here = todo.pop()
        for name in os.listdir(f"{root}/{here}"):
            path = join(here, name)
            native = f"{root}/{path}"
            status = os.lstat(native)
            if stat_module.S_ISSOCK(status.st_mode):
                continue  # no image holds one
            seen.add(path)
            want = picture.get(path)
            assert want is not None, f"{path!r} is in the native path, but not in the tree"
            if stat_module.S_ISDIR(status.st_mode):
                assert want.kind is Kind.DIRECTORY, f"{path!r} is natively a directory"
                if len(os.fsencode(native)) < _LONGEST_NATIVE:
                    todo.append(path)
                else:
                    seen |= {other for other in picture if other.startswith(f"{path}/")}
            elif want.kind is Kind.SYMLINK:
                if len(os.fsencode(want.target)) <= _LONGEST_NATIVE_TARGET:
                    assert os.readlink(native) == want.target, f"{path!r} points elsewhere natively"
            elif want.kind is Kind.FILE:
                with open(native, "rb") as content:
                    assert digest(content.read()) == want.digest, f"{path!r} differs natively"
    missing = sorted(picture.keys() - seen)
    assert not missing, f"{missing[0]!r} is in the tree, but not in the native path"


#: So that the names in a directory of that length still fit into PATH_MAX.
_LONGEST_NATIVE = 3800

#: XFS takes no longer ones; what stands for them is nothing a process can follow.
_LONGEST_NATIVE_TARGET = 1023


# -- comparing --------------------------------------------------------------------------------


def differences(expected: Picture, found: Picture) -> list[str]:
    """Return one line for every difference, none if the pictures are equal."""
    lines: list[str] = []
    for path in sorted(expected.keys() | found.keys()):
        want, have = expected.get(path), found.get(path)
        if want is None:
            lines.append(f"{path!r}: should not be there, is a {have and have.kind.value}")
        elif have is None:
            lines.append(f"{path!r}: the {want.kind.value} is missing")
        else:
            fields = [field.name for field in attrs.fields(Seen) if field.eq]
            if want.mtime_ns is None:
                fields.remove("mtime_ns")
            if want.xattrs != have.xattrs:
                fields.remove("xattrs")
                lines += [
                    f"{path!r}: xattr {name} should be {want.xattrs.get(name)!r:.200}, "
                    f"is {have.xattrs.get(name)!r:.200}"
                    for name in sorted(want.xattrs.keys() | have.xattrs.keys())
                    if want.xattrs.get(name) != have.xattrs.get(name)
                ]
            lines += [
                f"{path!r}: {name} should be {_show(name, want)}, is {_show(name, have)}"
                for name in fields
                if getattr(want, name) != getattr(have, name)
            ]
    for group in sorted(map(sorted, linked(expected) ^ linked(found))):
        should = "should" if frozenset(group) in linked(expected) else "should not"
        lines.append(f"{group} {should} be names of one file")
    return lines


def linked(picture: Picture) -> set[frozenset[str]]:
    """Return the sets of names that belong to one file, where there are several."""
    groups: dict[int, set[str]] = {}
    for path, seen in picture.items():
        if seen.kind is not Kind.DIRECTORY:
            groups.setdefault(seen.identity, set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def assert_same(expected: Picture, found: Picture, promise: str) -> None:
    """Fail with the promise and the first differences, unless the pictures are equal."""
    lines = differences(expected, found)
    shown = "\n  ".join(lines[:12])
    # pytest.fail, because a rewritten assertion would print the lines a second time.
    if lines:
        pytest.fail(f"broken promise: {promise}\n  {shown}")


def letters(changes: Iterable[Change]) -> list[str]:
    """Return changes as ``diff`` prints them, "A etc/passwd", in the order given."""
    return [f"{change.kind.value} {change.path}" for change in changes]


def _show(name: str, seen: Seen) -> str:
    value = getattr(seen, name)
    shown = f"{value:#o}" if name == "mode" else repr(value)
    return shown if len(shown) <= 400 else f"{shown[:400]} …"
