"""The two small files beside a tree: what it stands on, and what it was last found to cost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import EllipsisType
from typing import Any

import attrs

from ..driver import Usage
from ..errors import CorruptError

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")


def is_id(id: str) -> bool:
    """Say whether ``id`` can safely be a file name."""
    return _ID.fullmatch(id) is not None


class ItemFile:
    """``item.json`` in a tree's home, written once before publication."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._path = os.path.join(home, "item.json")

    def write(self, parent: str | None, apparent: int) -> None:
        """Record the parent layer and the bytes of the files that this layer brought."""
        with open(self._path, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            json.dump({"parent": parent, "apparent": apparent}, file)

    def parent(self) -> str | EllipsisType | None:
        """Return the parent's ID, None for a base; Ellipsis if there is no such item."""
        try:
            found = self._read()
        except FileNotFoundError:
            return ...
        parent = found["parent"]
        return None if parent is None else str(parent)

    def apparent(self) -> int:
        """Return the bytes of the files that this layer brought."""
        return int(self._read()["apparent"])

    def _read(self) -> dict[str, Any]:
        with open(self._path, "rb") as file:
            data = file.read()
        try:
            found: dict[str, Any] = json.loads(data)
            return {"parent": found["parent"], "apparent": found["apparent"]}
        except (ValueError, KeyError, TypeError) as error:
            problem = f"item.json is damaged: {error}"
            raise CorruptError(os.path.basename(self._home), problem) from error


class UsageCache:
    """``usage.json`` in a tree's home: never synced, measured anew if absent or damaged."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "usage.json")

    def read(self, stamp: int) -> Usage | None:
        """Return what was measured when the store was in state ``stamp``."""
        try:
            with open(self._path, "rb") as file:
                found: dict[str, int] = json.load(file)
            if found.pop("stamp") != stamp:
                return None
            return Usage(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, stamp: int, usage: Usage) -> None:
        """Remember ``usage``; a tree that was removed meanwhile is no error."""
        aside = f"{self._path}.{os.urandom(4).hex()}"
        try:
            with open(aside, "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                json.dump({"stamp": stamp, **attrs.asdict(usage)}, file)
            os.rename(aside, self._path)
        except OSError:
            Path(aside).unlink(missing_ok=True)

    def forget(self) -> None:
        """Throw away what was measured."""
        Path(self._path).unlink(missing_ok=True)
