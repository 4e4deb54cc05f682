"""Tars for the tests, made member by member, and layers of them in memory."""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

from cowshed.archive import LayerStats, Limits, apply_layer, replay
from cowshed.entry import Entry, Kind
from cowshed.testing import MemoryDriver
from cowshed.tree import Tree

Member = tuple[tarfile.TarInfo, bytes]
_stores = itertools.count()


def member(name: str, type: bytes, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type = type
    info.size = len(data)
    info.mtime = 1_600_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def file(name: str, data: bytes = b"", **fields: object) -> Member:
    return member(name, tarfile.REGTYPE, data, **fields)


def directory(name: str, mode: int = 0o755, **fields: object) -> Member:
    return member(name, tarfile.DIRTYPE, mode=mode, **fields)


def symlink(target: str, name: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target)


def link(target: str, name: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """Compose a tar; unlike ``tarfile.TarFile.add``, names are written as they are."""
    out = io.BytesIO()
    for info, data in members:
        out.write(info.tobuf(format, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    out.write(bytes(1024))
    return out.getvalue()


class Stack:
    """Layers on top of each other in a driver in memory."""

    def __init__(self) -> None:
        self.driver = MemoryDriver(Path(f"archive-tests-{next(_stores)}"))
        self.top: str | None = None
        self.recipe = b""
        self.stats: LayerStats

    def apply(self, data: bytes, limits: Limits | None = None) -> Tree:
        """Apply a layer, seal it, check that it can be written again, and return its tree."""
        recipe = io.BytesIO()
        parent = None if self.top is None else self.driver.tree(self.top)
        with self.driver.stage(self.top) as stage:
            self.stats = apply_layer(
                io.BytesIO(data), stage, parent, recipe=recipe, limits=limits or Limits()
            )
            self.recipe = recipe.getvalue()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            assert self.stats.diff_id == digest
            assert self.stats.tar_size == len(data)
            self.top = hashlib.sha256((digest + str(self.top)).encode()).hexdigest()
            stage.seal(self.top)
        tree = self.driver.tree(self.top)
        out = io.BytesIO()
        assert replay(io.BytesIO(self.recipe), tree, out) == digest
        assert out.getvalue() == data
        return tree


def listing(tree: Tree) -> dict[str, str | bytes]:
    """What is in a tree, in a form that reads well in a failure."""
    found: dict[str, str | bytes] = {}
    for entry in entries(tree):
        if entry.kind is Kind.FILE:
            found[entry.path] = tree.read_bytes(entry.path)
        elif entry.kind is Kind.SYMLINK:
            found[entry.path] = f"-> {entry.target}"
        else:
            found[entry.path] = entry.kind.value
    return found


def entries(tree: Tree) -> Iterator[Entry]:
    return (entry for entry in tree.walk() if entry.path)
