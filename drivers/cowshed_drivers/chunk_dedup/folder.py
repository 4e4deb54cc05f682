"""Folder: a directory loaded for writing, of which only what is new is in memory if it is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .node import Entries, put_directory, put_sorted
from .record import Record
from .runs import Runs

#: What was taken away from a folder that has a file.
_GONE: Record = (255, 0, 0, 0, 0, 0, 0, b"")


class Folder:
    """A directory loaded for writing. A very large one has only what is new in memory."""

    __slots__ = ("_newer", "_runs", "folders")

    def __init__(self, entries: Entries) -> None:
        self._newer = entries
        self._runs: Runs | None = None
        self.folders: dict[str, Folder] = {}

    @property
    def entries(self) -> Entries:
        """All that is in it, for who changes more than one name or looks at more."""
        if self._runs is not None:
            self._newer = dict(self.items())
            self.close()
        return self._newer

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it."""
        return next(iter(self.items()), None) is None

    def get(self, name: str) -> Record | None:
        """Return what is at ``name``."""
        found = self._newer.get(name)
        if self._runs is None:
            return found
        if found is None:
            found = self._runs.get(name)
        return None if found is None or found[0] == _GONE[0] else found

    def put(self, name: str, record: Record) -> None:
        """Put an object at ``name``, in place of what is there."""
        self._newer[name] = record

    def remove(self, name: str) -> None:
        """Take away what is at ``name``."""
        if self._runs is None:
            del self._newer[name]
        else:
            self._newer[name] = _GONE

    def clear(self) -> None:
        """Take away everything."""
        self.close()
        self._newer.clear()
        self.folders.clear()

    def items(self) -> Iterator[tuple[str, Record]]:
        """Yield all that is in it. Of a name that is put meanwhile it may be what was there."""
        if self._runs is None:
            return iter([*self._newer.items()])
        merged = self._runs.merged(self._newer)
        return ((name, record) for name, record in merged if record[0] != _GONE[0])

    @property
    def is_large(self) -> bool:
        """Whether not all of it is in memory."""
        return self._runs is not None

    def spill(self, directory: Path, most: int) -> int:
        """Write what is in memory to a file in ``directory``, but for folders that are loaded, if
        it is more than ``most`` entries; return how many were written."""
        if len(self._newer) - len(self.folders) <= most:
            return 0
        if self._runs is None:
            self._runs = Runs(directory)
        cold = {name: record for name, record in self._newer.items() if name not in self.folders}
        self._runs.add(cold)
        self._newer = {name: self._newer[name] for name in self.folders if name in self._newer}
        return len(cold)

    def store(self, put: Callable[[bytes], bytes]) -> bytes:
        """Write it as objects; return what names it."""
        if self._runs is None:
            return put_directory(self._newer, put)
        return put_sorted(self.items(), put)

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        runs, self._runs = self._runs, None
        if runs is not None:
            runs.close()
