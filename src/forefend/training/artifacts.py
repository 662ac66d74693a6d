"""Trained: what a training leaves in front of classifiers, with the card that says what it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forefend.data import ImageDataset
from forefend.models import preprocessors
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe
from forefend.training.config import AS_THE_PAPERS, TrainingConfig


def defense_of(
    recipe: Recipe,
    data: ImageDataset,
    networks: Networks,
    *,
    config: TrainingConfig = AS_THE_PAPERS,
    origins: Sequence[tuple[str, str]] = (),
) -> Defense:
    """The trained preprocessor with its card: it can be saved, loaded again, and tells its guides from others.

    Args:
        recipe: what it was trained with.
        data: what it was trained on.
        networks: the networks, after training.
        config: how it was trained: whether its weights are an average.
        origins: names and fingerprints of classifiers that training went on from.

    Raises:
        InputError: the preprocessor is no architecture of ours.
    """
    beside = [{"name": guide.name, "fingerprint": guide.fingerprint()} for guide in networks.guides]
    beside += [{"name": origin, "fingerprint": print_} for origin, print_ in origins]
    if any(True for _ in networks.classifier.parameters()):
        beside.append({"name": "classifier", "fingerprint": fingerprint(networks.classifier)})
    card = DefenseCard(
        architecture=preprocessors.name_of(networks.preprocessor),
        settings=dict(networks.preprocessor.settings),  # type: ignore[arg-type]
        threat=str(recipe.settings().get("threat", "")),
        recipe=next((name for name, kind in RECIPES.items() if type(recipe) is kind), type(recipe).__name__),
        data=data.name,
        guides=beside,
        ema=config.ema,
    )
    return Defense(networks.preprocessor, card).eval()


def training_config(name: str, recipe: Recipe, images: ImageDataset, seed: int) -> dict[str, Any]:
    """What every training run's config says."""
    return {
        "recipe": name,
        "settings": recipe.settings(),
        "data": images.name,
        "images": len(images),
        "seed": seed,
    }
