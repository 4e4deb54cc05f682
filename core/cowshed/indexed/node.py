"""Node: one file-system object of a tree in memory, and trees of nodes as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs

from ..entry import Entry, Kind
from ..tree import now_ns


@attrs.define(eq=False, kw_only=True)
class Node:
    """One object. Two names of one file are two references to one node."""

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = attrs.field(factory=now_ns)
    target: str = ""
    rdev: int = 0
    xattrs: dict[str, bytes] = attrs.field(factory=dict[str, bytes])
    #: How many names it has in its tree.
    links: int = 1
    #: Of a file: its size, and what the driver calls its content; empty for an empty file.
    size: int = 0
    content: str = ""
    #: Of a directory: what it holds, by name.
    children: dict[str, Node] = attrs.field(factory=lambda: dict[str, Node]())

    def entry(self, path: str) -> Entry:
        """Describe it, as found at ``path``."""
        return Entry(
            path=path,
            kind=self.kind,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime_ns,
            size=self.size,
            target=self.target,
            rdev=self.rdev,
            xattrs=dict(self.xattrs),
            inode=id(self),
            links=self.links,
        )


def empty_root() -> Node:
    """Return what a tree without parent starts as; its mtime is fixed, to compare with."""
    return Node(kind=Kind.DIRECTORY, mode=0o755, mtime_ns=0)


def walk(root: Node) -> Iterator[Node]:
    """Yield every node below and including ``root``, each once whatever its names."""
    seen, todo = {id(root)}, [root]
    while todo:
        node = todo.pop()
        yield node
        for child in node.children.values():
            if id(child) not in seen:
                seen.add(id(child))
                todo.append(child)


def dump(root: Node) -> str:
    """Return a tree as one line of ASCII, for ``parse``."""
    nodes = list(walk(root))
    numbers = {id(node): number for number, node in enumerate(nodes)}
    return json.dumps([_fields(node, numbers) for node in nodes], separators=(",", ":"))


def parse(text: str) -> Node:
    """Return the tree that ``dump`` made a line of."""
    plain: list[dict[str, Any]] = json.loads(text)
    nodes = [_node(fields) for fields in plain]
    for node, fields in zip(nodes, plain, strict=True):
        children: dict[str, int] = fields.get("children", {})
        node.children = {name: nodes[number] for name, number in children.items()}
    return nodes[0]


_DEFAULTS = attrs.asdict(Node(kind=Kind.FILE), recurse=False)


def _fields(node: Node, numbers: dict[int, int]) -> dict[str, Any]:
    # What is as usual goes without saying: it is two thirds of an index.
    fields = {
        name: value
        for name, value in attrs.asdict(node, recurse=False).items()
        if value != _DEFAULTS[name]
    }
    fields |= {"kind": node.kind.value, "mtime_ns": node.mtime_ns}
    if node.xattrs:
        fields["xattrs"] = {name: value.hex() for name, value in node.xattrs.items()}
    if node.children:
        fields["children"] = {name: numbers[id(child)] for name, child in node.children.items()}
    return fields


def _node(fields: dict[str, Any]) -> Node:
    given: dict[str, Any] = {name: fields[name] for name in fields if name != "children"}
    given["kind"] = Kind(given["kind"])
    xattrs: dict[str, str] = given.get("xattrs", {})
    given["xattrs"] = {name: bytes.fromhex(value) for name, value in xattrs.items()}
    return Node(**given)
