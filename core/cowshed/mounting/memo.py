"""Memo: what of an upper directory the driver's container has already, by path.

    HOME/absorbed.json

A directory is remembered by the path that is below it, anything else by inode and ctime, which no
program can set. What is about to be absorbed is noted before and what was is noted after, so a
killed process leaves a note of every path that the container may have from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

#: ``[inode, ctime_ns]``, and ``1`` where the content still is the layer's at that path;
#: ``[path below or null]`` of a directory; empty: look again.
Sign: TypeAlias = list[int | str | None]

NAME = "absorbed.json"


class Memo:
    """Signs by path, and the paths that can't be shown: they are the container's all the same."""

    def __init__(self, signs: dict[str, Sign], hidden: set[str], *, known: bool = True) -> None:
        self.signs = signs
        self.hidden = hidden
        #: False: it was lost, so anything in the container may have come from here.
        self.known = known

    @classmethod
    def read(cls, home: Path) -> Memo:
        """Read that of one mount."""
        try:
            found = json.loads((home / NAME).read_bytes())
            return cls(found["signs"], set(found["hidden"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls({}, set[str](), known=False)

    def write(self, home: Path) -> None:
        """Write it in place of the one there was."""
        aside = home / f"{NAME}.{os.urandom(4).hex()}"
        with aside.open("x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            json.dump({"signs": self.signs, "hidden": sorted(self.hidden)}, file)
        os.rename(aside, home / NAME)

    def expecting(self, paths: Iterable[str]) -> Memo:
        """Return it with ``paths`` to be looked at again."""
        return Memo({**self.signs, **{path: [] for path in paths}}, self.hidden)
