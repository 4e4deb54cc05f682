"""Records: what a file of a native tree can't say itself, by path.

``Sidecar`` keeps them in a database beside the tree. A driver whose trees are changed by programs
that know nothing of it keeps them where they follow the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import attrs


@attrs.define
class Record:
    """What one file can't say itself. ``xattrs`` holds those that it can't hold; other None
    fields defer to the file."""

    #: 0 for one that isn't stored.
    id: int = attrs.field(default=0, eq=False)
    kind: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    rdev: int | None = None
    xattrs: dict[str, bytes] = attrs.Factory(dict[str, bytes])
    #: Names that share the record.
    links: int = 1

    @property
    def says_nothing(self) -> bool:
        """Say whether the file itself says it all."""
        fields = (self.kind, self.mode, self.uid, self.gid, self.rdev)
        return not self.xattrs and all(field is None for field in fields)


class ByName(Protocol):
    """The records of what one directory holds."""

    def get(self, name: str, /) -> Record | None:
        """Return the record of ``name``."""
        ...


class Records:
    """The records of one tree."""

    def get(self, path: str) -> Record | None:
        """Return the record of ``path``."""
        raise NotImplementedError

    def below(self, path: str) -> ByName:
        """Return the records of what directory ``path`` holds."""
        raise NotImplementedError

    def put(self, path: str, record: Record) -> None:
        """Store ``record`` for all names of ``path``; forget it where it says nothing."""
        raise NotImplementedError

    def visible(self, xattrs: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return a file's own attributes without one that is a record."""
        return xattrs

    # -- what follows by itself where records are kept with the files -----------------------------

    @property
    def version(self) -> int | None:
        """Another number after each ``move`` that counts; None: there is nothing to move."""
        return None

    def at_once(self) -> AbstractContextManager[None]:
        """Let what is changed meanwhile count together, or not at all if anything is raised."""
        return nullcontext()

    def will_share(self, existing: str) -> bool:
        """Say whether ``link`` has something to do for a further name of ``existing``."""
        return False

    def link(self, existing: str, path: str) -> None:
        """Let the new name ``path`` share the record of ``existing``."""

    def shared(self, path: str) -> bool:
        """Say whether ``path`` is one of several names that a record counts."""
        return False

    def drop(self, path: str) -> None:
        """Forget the name ``path``, and its record with the last name."""

    def move(self, source: str, destination: str) -> None:
        """Follow a rename of ``source`` and everything below it; ``destination`` was replaced."""

    def retimed(self, path: str, record: Record) -> None:
        """Take note that the mtime of ``path``, whose record this is, was set."""

    def copy_to(self, path: str) -> None:
        """Write a copy for another tree, whose sidecar ``path`` is."""

    def problems(self) -> list[str]:
        """Check the structure and return what is wrong."""
        return []

    def sync(self) -> None:
        """Bring everything to where a sync of the file system reaches it."""

    def close(self) -> None:
        """Let go. Closing twice is fine."""
