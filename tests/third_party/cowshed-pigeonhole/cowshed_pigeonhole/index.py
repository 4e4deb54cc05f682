"""The index of a tree on disk: a line that says what it is, and a line with its nodes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cowshed.driver import Held, Item
from cowshed.indexed import Node, dump, parse
from cowshed.native.syscalls import sync_directory

NAME = "index"


def write(home: Path, held: Held, parent: str | None, root: Node | None, durable: bool) -> None:
    """Write it aside and rename it: it is there whole, or as it was. No root: the parent's."""
    aside = home / f".{NAME}"
    with aside.open("w", encoding="ascii") as file:
        file.write(f"{json.dumps([held.value, parent])}\n{dump(root) if root else ''}")
        file.flush()
        if durable:
            os.fsync(file.fileno())
    aside.rename(home / NAME)
    if durable:
        sync_directory(str(home))


def read_item(home: Path) -> Item:
    """Read the first line. FileNotFoundError: there is no such tree."""
    with (home / NAME).open(encoding="ascii") as file:
        return _item(home, file.readline())


def read(home: Path) -> tuple[Item, Node | None]:
    """Read all of it."""
    with (home / NAME).open(encoding="ascii") as file:
        item, nodes = _item(home, file.readline()), file.read()
    return item, parse(nodes) if nodes else None


def _item(home: Path, line: str) -> Item:
    held, parent = json.loads(line)
    return Item(id=home.name, held=Held(held), parent=parent)
