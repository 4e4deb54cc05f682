"""Chunked: layers with a table of contents, which can be read in part (zstd:chunked, eStargz)."""

from __future__ import annotations

from .contents import Contents, FileContent, Piece
from .tables import Fetch, Table, table_of
from .writer import write_chunked

__all__ = [
    "Contents",
    "Fetch",
    "FileContent",
    "Piece",
    "Table",
    "table_of",
    "write_chunked",
]
