"""Archive: a container layer's tar ⇄ a stream of ``Entry``, and back byte for byte."""

from __future__ import annotations

from .apply import LayerStats, apply_layer, clean
from .compression import HashingReader, ZstdFrames, compressor, decompressor
from .limits import Limits
from .recipe import (
    RecipeItem,
    StoredContent,
    read_recipe_summary,
    read_stored_contents,
    replay,
)
from .writer import tree_entries, write_layer, write_tree

__all__ = [
    "HashingReader",
    "LayerStats",
    "Limits",
    "RecipeItem",
    "StoredContent",
    "ZstdFrames",
    "apply_layer",
    "clean",
    "compressor",
    "decompressor",
    "read_recipe_summary",
    "read_stored_contents",
    "replay",
    "tree_entries",
    "write_layer",
    "write_tree",
]
