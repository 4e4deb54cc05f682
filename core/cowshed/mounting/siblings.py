"""Siblings: under which names a mount shows a file of the layer, which has several names there.

The kernel keeps names of one file together while nobody writes to them, also where the directory
that holds one of them was moved. So when a moved directory is brought into a container, its files
are linked to their other names there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..entry import Kind, parent_of
from ..tree import Tree
from .memo import Sign


class Siblings:
    """``signs`` are those of the upper directory now, ``before`` when it was looked at last."""

    def __init__(self, layer: Tree, signs: Mapping[str, Sign], before: Mapping[str, Sign]) -> None:
        self._layer = layer
        self._signs = signs
        self._before = before
        self._names: dict[int, list[str]] | None = None
        #: Directories of the upper one by what is below them.
        self._shown: dict[str, list[str]] = {}
        for path, sign in signs.items():
            if len(sign) == 1 and isinstance(sign[0], str):
                self._shown.setdefault(sign[0], []).append(path)

    def of(self, inode: int) -> Iterator[str]:
        """Yield paths that show the layer's file of that inode number, and did so before."""
        if self._names is None:
            self._names = {}
            for entry in self._layer.walk():
                if entry.links > 1 and entry.inode and entry.kind is not Kind.DIRECTORY:
                    self._names.setdefault(entry.inode, []).append(entry.path)
        for name in self._names.get(inode, ()):
            yield from self._paths_of(name)

    def _paths_of(self, name: str) -> Iterator[str]:
        above = name
        while above:
            above = parent_of(above)
            for directory in self._shown.get(above, ()):
                rest = name[len(above) :] if above else f"/{name}"
                path = (directory + rest).lstrip("/")
                if self._is_untouched(path, directory):
                    yield path

    def _is_untouched(self, path: str, directory: str) -> bool:
        if path in self._before or path in self._signs:
            return False
        above = parent_of(path)
        while above != directory:
            if above in self._signs:
                return False  # that one says what is below it
            above = parent_of(above)
        return True
