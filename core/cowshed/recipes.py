"""Recipes: what turns a layer's stored files back into its exact tar, one file per diff ID.

``ROOT/recipes/HEX``: the headers, padding and order of the tar, compressed; the files' contents
come from whichever driver holds the layer. Some 30 bytes an entry.

``ROOT/recipes/HEX.digests`` of a layer that came with a table of contents: digests of its files and
their chunks, by which a later layer finds them here. 36 bytes a file, 44 a chunk; see ``holdings``.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .errors import CorruptError

_DIGESTS = ".digests"


class RecipeStore:
    """The recipes of one shed."""

    def __init__(self, directory: Path, temporary: Path, *, durable: bool = True) -> None:
        self._directory = directory
        self._temporary = temporary
        self._durable = durable

    def writer(self) -> RecipeWriter:
        """Begin a recipe; ``publish`` names it once the diff ID is known."""
        return RecipeWriter(self, self._temporary / f"recipe-{os.urandom(8).hex()}")

    def open(self, diff_id: str) -> BinaryIO:
        """Open a recipe. CorruptError: it is missing."""
        try:
            return self.path(diff_id).open("rb")
        except FileNotFoundError:
            raise CorruptError(f"layer {diff_id[:19]}", "its tar recipe is missing") from None

    def has(self, diff_id: str) -> bool:
        return self.path(diff_id).exists()

    def path(self, diff_id: str) -> Path:
        """Return where the recipe of a (validated) diff ID lies."""
        return self._directory / diff_id.removeprefix("sha256:")

    def diff_ids(self) -> Iterator[str]:
        """Yield the diff IDs there are recipes for."""
        for name in sorted(os.listdir(self._directory)):
            if not name.endswith(_DIGESTS):
                yield f"sha256:{name}"

    def digests(self, diff_id: str) -> bytes | None:
        """Return what is known of the digests in a layer. None: nothing."""
        try:
            return self.path(f"{diff_id}{_DIGESTS}").read_bytes()
        except FileNotFoundError:
            return None

    def put_digests(self, diff_id: str, data: bytes) -> None:
        """Remember the digests in a layer. Losing them loses nothing but transfers."""
        aside = self._temporary / f"digests-{os.urandom(8).hex()}"
        aside.write_bytes(data)
        aside.rename(self.path(f"{diff_id}{_DIGESTS}"))

    def remove(self, diff_id: str) -> None:
        """Remove all there is of a layer. Twice is fine."""
        self.path(diff_id).unlink(missing_ok=True)
        self.path(f"{diff_id}{_DIGESTS}").unlink(missing_ok=True)

    def sweep(self, keep: Container[str]) -> int:
        """Remove the recipes of diff IDs not in ``keep``; return the bytes freed."""
        freed = 0
        for diff_id in self.diff_ids():
            if diff_id not in keep:
                freed += self.path(diff_id).stat().st_blocks * 512
                self.remove(diff_id)
        for name in os.listdir(self._directory):
            if name.endswith(_DIGESTS) and not self.has(name.removesuffix(_DIGESTS)):
                (self._directory / name).unlink(missing_ok=True)
        return freed

    def put_in_place(self, temporary: Path, diff_id: str) -> None:
        """Give a finished recipe its name, durably."""
        os.rename(temporary, self.path(diff_id))
        if self._durable:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @property
    def durable(self) -> bool:
        return self._durable


class RecipeWriter:
    """A recipe being written; leaving the context unpublished discards it."""

    def __init__(self, store: RecipeStore, path: Path) -> None:
        self._store = store
        self._path = path
        self.file: BinaryIO = path.open("xb")

    def publish(self, diff_id: str) -> None:
        """Keep it as the recipe of ``diff_id``."""
        self.file.flush()
        if self._store.durable:
            os.fsync(self.file.fileno())
        self.file.close()
        self._store.put_in_place(self._path, diff_id)

    def __enter__(self) -> RecipeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.file.close()  # it may write, and find the disk full
        finally:
            self._path.unlink(missing_ok=True)
