"""Links: which names each file with several names has.

The table is a directory in form: each inode number, in hex, is a name whose record's payload lists
the paths, so it is shared, split and compared by the same code. Reading never needs it. Writing
does, because what one name sees all names shall see: each name's record is a full copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .node import NO_DIGEST, Entries, put_directory
from .nodes import Nodes
from .record import FILE


def load(nodes: Nodes, digest: bytes) -> dict[int, set[str]]:
    """Return the paths of every number, from the table that ``digest`` names."""
    if digest == NO_DIGEST:
        return {}
    found: dict[int, set[str]] = {}
    for name, record in nodes.directory(digest).items():
        found[int(name, 16)] = set(decode_paths(record[7]))
    return found


def decode_paths(payload: bytes) -> list[str]:
    """Return the paths that one row of the table lists."""
    return payload.decode("utf-8", "surrogateescape").split("\0")


def store(table: dict[int, set[str]], put: Callable[[bytes], bytes]) -> bytes:
    """Hand the objects that hold the table to ``put``; return what names it, as ``load`` takes
    it."""
    entries: Entries = {
        f"{number:x}": (FILE, 0, 0, 0, 0, 0, 0, _encode_paths(paths))
        for number, paths in table.items()
    }
    return put_directory(entries, put) or NO_DIGEST


def _encode_paths(paths: Iterable[str]) -> bytes:
    return "\0".join(sorted(paths)).encode("utf-8", "surrogateescape")
