"""Archive: a container layer's tar ⇄ a stream of ``Entry``, and back byte for byte."""

from __future__ import annotations

from .apply import LayerStats, apply_layer
from .compression import HashingReader, compressor, decompressor
from .limits import Limits
from .recipe import RecipeItem, read_recipe_summary, replay
from .writer import tree_entries, write_layer, write_tree

__all__ = [
    "HashingReader",
    "LayerStats",
    "Limits",
    "RecipeItem",
    "apply_layer",
    "compressor",
    "decompressor",
    "read_recipe_summary",
    "replay",
    "tree_entries",
    "write_layer",
    "write_tree",
]
