"""Archive: a container layer's tar ⇄ a stream of ``Entry``, and back byte for byte."""

from __future__ import annotations

from .apply import LayerStats, apply_layer
from .limits import Limits
from .recipe import RecipeItem, read_recipe_summary, replay

__all__ = [
    "LayerStats",
    "Limits",
    "RecipeItem",
    "apply_layer",
    "read_recipe_summary",
    "replay",
]
