"""For drivers whose trees are an index of their own, with the contents of files kept elsewhere.

``IndexedTree`` is a file system over nodes in memory: it refuses what POSIX refuses, never follows
a link and keeps every attribute. A driver says where contents lie, and keeps the index (see
``dump``). Its counterpart for trees that are directories is ``cowshed.native``. Core itself uses
neither.
"""

from __future__ import annotations

from .node import Node, dump, empty_root, parse, walk
from .tree import IndexedTree

__all__ = ["IndexedTree", "Node", "dump", "empty_root", "parse", "walk"]
