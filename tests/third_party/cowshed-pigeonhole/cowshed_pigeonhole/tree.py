"""PigeonTree: an index in memory, and the holes that hold what its files hold."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cowshed.indexed import IndexedTree, Node


def nothing() -> None:
    """Do nothing."""


class PigeonTree(IndexedTree):
    """``save`` keeps the index, ``let_go`` is called once, in the end."""

    def __init__(
        self,
        root: Node,
        home: Path,
        trees: Path,
        *,
        writable: bool = False,
        durable: bool = True,
        save: Callable[[], None] = nothing,
        let_go: Callable[[], None] = nothing,
    ) -> None:
        super().__init__(root, writable=writable, durable=durable)
        self.home, self.trees = home, trees
        self._save, self._let_go = save, let_go

    def hole(self, node: Node) -> Path:
        """Return where a file's content lies: in this tree, or in a layer below."""
        below = "/" in node.content
        return (self.trees if below else self.home) / node.content

    def read(self, node: Node) -> BinaryIO:
        return self.hole(node).open("rb")

    def aside(self) -> Path:
        return self.home / f".{secrets.token_hex(8)}"

    def keep(self, aside: Path) -> str:
        with aside.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        aside.rename(self.home / digest)
        return digest

    def sync(self) -> None:
        if self.writable:
            self._save()

    def close(self) -> None:
        let_go, self._let_go = self._let_go, nothing
        try:
            if let_go is not nothing:
                self.sync()
        finally:
            let_go()
