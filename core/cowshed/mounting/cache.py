"""Cache: whole files of layers whose driver keeps them otherwise, for the kernel to read.

    ROOT/lowers/files/ab/KEY                     a file's content, by what the driver calls it
    ROOT/lowers/files/new-RANDOM/                contents on their way in
    ROOT/lowers/images/DRIVER.LAYER.cached.erofs names and attributes of a layer
    ROOT/lowers/images/DRIVER.LAYER.cached.json  the keys that it needs, and their sizes

A file is here once for all layers that have it. A layer comes in whole when it is first mounted,
and goes when the cache is full, the one that was mounted longest ago first, unless a mount has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..entry import Entry, Kind
from ..native.syscalls import syncfs, write_sparse
from ..tree import Tree

if TYPE_CHECKING:
    from ..locking import Lock
    from ..shed import Shed
    from .lowers import Lowers

_IMAGE, _KEYS = ".cached.erofs", ".cached.json"
_PIECE = 1 << 20


class Cache:
    """The cache of one shed. Who changes anything holds ``alone``."""

    def __init__(self, shed: Shed, lowers: Lowers) -> None:
        self._shed = shed
        self._lowers = lowers
        self.files = lowers.root / "files"
        self._most: int = shed.config["mount"]["cache_size"]

    def alone(self) -> Lock:
        """Keep others from filling it and from making room in it."""
        return self._shed.locks.acquire("mount-cache")

    def image(self, driver: str, layer: str) -> Path | None:
        """Return the image of a layer whose contents are here; None: they are more than may be."""
        name = f"{driver}.{layer}"
        image, keys = (
            self._lowers.images / f"{name}{_IMAGE}",
            self._lowers.images / f"{name}{_KEYS}",
        )
        if image.exists() and keys.exists():
            os.utime(keys)  # it was used now
            return image
        with self._shed.driver(driver).tree(layer) as tree:
            entries = list(tree.walk())
            by_path = {entry.path: _key(driver, tree, entry) for entry in entries if _has(entry)}
            sizes = {by_path[entry.path]: entry.size for entry in entries if _has(entry)}
            if sum(sizes.values()) > self._most:
                return None
            if self.shrink(sizes) > self._most:
                return None
            missing = {by_path[entry.path]: entry.path for entry in entries if _has(entry)}
            self._bring(tree, {k: p for k, p in missing.items() if not self._at(k).exists()})
        # First what keeps them from being taken for nobody's.
        aside = keys.with_name(f"{keys.name}.{os.urandom(4).hex()}")
        aside.write_text(json.dumps(sizes))
        os.rename(aside, keys)
        self._lowers.write_image(image, entries, lambda entry: f"/{_place(by_path[entry.path])}")
        return image

    def _at(self, key: str) -> Path:
        return self.files / _place(key)

    def _bring(self, tree: Tree, paths: dict[str, str]) -> None:
        """Unpack contents. None has its name before it is durable."""
        self.files.mkdir(mode=0o700, exist_ok=True)
        new = self.files / f"new-{os.urandom(8).hex()}"
        new.mkdir(mode=0o700)
        try:
            for key, path in paths.items():
                with tree.open(path) as content, (new / key).open("xb") as file:
                    size = 0
                    while piece := content.read(_PIECE):
                        write_sparse(file.fileno(), piece, size)
                        size += len(piece)
                    os.ftruncate(file.fileno(), size)
            if self._shed.config.durable:
                descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    syncfs(descriptor)
                finally:
                    os.close(descriptor)
            for key in paths:
                self._at(key).parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(new / key, self._at(key))
        finally:
            shutil.rmtree(new, ignore_errors=True)

    # -- making room ----------------------------------------------------------------------------

    def shrink(self, wanted: dict[str, int] | None = None) -> int:
        """Drop layers that are not mounted until what is kept and what is ``wanted`` fit; then
        remove the files that no layer has any more. Return the bytes of what is left."""
        layers = self._layers()
        mounted = self._lowers.mounted() | {
            f"{record.driver}.{record.over}"
            for record in self._shed.mounting.registry.records()
            if record.over
        }
        for name in [name for name in layers if name not in mounted]:
            if _total([*layers.values(), wanted or {}]) <= self._most:
                break
            del layers[name]
            for ending in (_IMAGE, _KEYS):
                (self._lowers.images / f"{name}{ending}").unlink(missing_ok=True)
        kept = set(wanted or ()).union(*layers.values())
        with suppress(FileNotFoundError):
            for part in os.listdir(self.files):
                if part.startswith("new-"):
                    shutil.rmtree(self.files / part, ignore_errors=True)
                    continue
                for key in os.listdir(self.files / part):
                    if key not in kept:
                        (self.files / part / key).unlink(missing_ok=True)
        return _total([*layers.values(), wanted or {}])

    def _layers(self) -> dict[str, dict[str, int]]:
        """Return the keys and sizes of each layer, the one that was used longest ago first."""
        found: list[tuple[float, str, dict[str, int]]] = []
        for path in self._lowers.images.glob(f"*{_KEYS}"):
            with suppress(FileNotFoundError, ValueError):
                name = path.name.removesuffix(_KEYS)
                found.append((path.stat().st_mtime, name, json.loads(path.read_bytes())))
        return {name: sizes for _, name, sizes in sorted(found, key=lambda one: one[:2])}


def _has(entry: Entry) -> bool:
    return entry.kind is Kind.FILE and entry.size > 0


def _total(layers: list[dict[str, int]]) -> int:
    together: dict[str, int] = {}
    for sizes in layers:
        together |= sizes
    return sum(together.values())


def _place(key: str) -> str:
    return f"{key[:2]}/{key}"


def _key(driver: str, tree: Tree, entry: Entry) -> str:
    name = tree.fingerprint(entry.path)
    if name is not None:
        return hashlib.sha256(driver.encode() + b"\0" + name).hexdigest()
    content = hashlib.sha256()
    with tree.open(entry.path) as file:
        while piece := file.read(_PIECE):
            content.update(piece)
    return content.hexdigest()
