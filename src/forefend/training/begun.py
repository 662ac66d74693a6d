"""Begun: which training a checkpoint is of, so that no other one goes on from it."""

from __future__ import annotations

from typing import Any

from forefend.data import ImageDataset
from forefend.data.dataset import dataset_digest
from forefend.recipes.base import Networks, Recipe
from forefend.training.config import TrainingConfig


def begun(
    recipe: Recipe, data: ImageDataset, networks: Networks, *, seed: int, config: TrainingConfig
) -> dict[str, Any]:
    """What a training must have in common with one that goes on from its checkpoint, as JSON values.

    Not who watches it, nor how images are augmented, for a function's name says little; and nothing of a setting whose
    text differs from process to process.

    Args:
        recipe: what is done at each step.
        data: training images.
        networks: the networks, whose guides count.
        seed: of everything random.
        config: how it is done.
    """
    return {
        "recipe": type(recipe).__name__,
        "settings": _steady(recipe.settings()),
        "data": data.name,
        "images": len(data),
        "pixels": dataset_digest(data),
        "guides": [guide.fingerprint() for guide in networks.guides],
        "seed": seed,
        "ways": _steady(config.settings()),
    }


def _steady(values: dict[str, Any]) -> dict[str, Any]:
    """Those whose text holds no address in memory."""
    return {name: value for name, value in values.items() if " at 0x" not in str(value)}
