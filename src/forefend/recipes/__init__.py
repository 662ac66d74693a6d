"""Recipes: one file for each paper's training method or baseline. The table is what the command line calls them."""

from __future__ import annotations

from ..recipe import Recipe
from .adversarial import Adversarial
from .natural import Natural
from .rtfe import RTFE

__all__ = ["RECIPES", "RTFE", "Adversarial", "Natural"]

RECIPES: dict[str, type[Recipe]] = {"adversarial": Adversarial, "natural": Natural, "rtfe": RTFE}
