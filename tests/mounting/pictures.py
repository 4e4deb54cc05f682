"""What a directory holds and what a ``Tree`` holds, in one form, to be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import attrs

from cowshed.entry import Entry, Kind, kind_of
from cowshed.tree import Tree


@attrs.frozen
class Seen:
    """One object."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: str
    rdev: int
    xattrs: tuple[tuple[str, bytes], ...]
    digest: str
    #: All its names, if it has several.
    names: tuple[str, ...] = ()


Picture = dict[str, Seen]


def of_directory(root: str | os.PathLike[str]) -> Picture:
    """Look at a directory as processes do; sockets, which no image holds, are left out."""
    top = os.fspath(root)
    found: Picture = {}
    inodes: dict[str, int] = {}
    for path in _walk(top):
        whole = os.path.join(top, path) if path else top
        status = os.lstat(whole)
        kind = kind_of(status.st_mode)
        if kind is None:
            continue
        names = [name for name in os.listxattr(whole, follow_symlinks=False)
                 if name != "security.selinux"]  # fmt: skip
        found[path] = Seen(
            kind,
            0o777 if kind is Kind.SYMLINK else stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if kind is Kind.FILE else 0,
            os.readlink(whole) if kind is Kind.SYMLINK else "",
            status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            tuple(
                sorted((name, os.getxattr(whole, name, follow_symlinks=False)) for name in names)
            ),
            _digest(Path(whole)) if kind is Kind.FILE else "",
        )
        if kind is not Kind.DIRECTORY and status.st_nlink > 1:
            inodes[path] = status.st_ino
    return _linked(found, inodes)


def of_tree(tree: Tree) -> Picture:
    """Look at a tree."""
    found: Picture = {}
    inodes: dict[str, int] = {}
    for entry in tree.walk():
        found[entry.path] = _of_entry(tree, entry)
        if entry.kind is not Kind.DIRECTORY and entry.links > 1 and entry.inode:
            inodes[entry.path] = entry.inode
    return _linked(found, inodes)


def _of_entry(tree: Tree, entry: Entry) -> Seen:
    digest = ""
    if entry.kind is Kind.FILE:
        with tree.open(entry.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Seen(
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.size,
        entry.target,
        entry.rdev,
        tuple(sorted(entry.xattrs.items())),
        digest,
    )


def _walk(top: str) -> list[str]:
    found = [""]
    for path in found:
        whole = os.path.join(top, path) if path else top
        if stat.S_ISDIR(os.lstat(whole).st_mode):
            found += [os.path.join(path, name) for name in os.listdir(whole)]
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _linked(found: Picture, inodes: Mapping[str, int]) -> Picture:
    groups: dict[int, list[str]] = {}
    for path, inode in inodes.items():
        groups.setdefault(inode, []).append(path)
    for names in groups.values():
        if len(names) > 1:
            for path in names:
                found[path] = attrs.evolve(found[path], names=tuple(sorted(names)))
    return found


def differences(one: Picture, other: Picture) -> list[str]:
    """Say what differs, a line each, so that a failing test can be read."""
    lines: list[str] = []
    for path in sorted(one.keys() | other.keys()):
        here, there = one.get(path), other.get(path)
        if here is None or there is None:
            lines.append(f"{path!r}: only in {'the second' if here is None else 'the first'}")
        elif here != there:
            fields = [
                f"{field.name}: {getattr(here, field.name)!r} != {getattr(there, field.name)!r}"
                for field in attrs.fields(Seen)
                if getattr(here, field.name) != getattr(there, field.name)
            ]
            lines.append(f"{path!r}: {'; '.join(fields)}")
    return lines
