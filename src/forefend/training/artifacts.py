"""The results of a training run: networks with the card that says how they were trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.models import preprocessors
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import frozen
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe


def defense_of(
    recipe: Recipe, data: ImageDataset, networks: Networks, *, ema: float | None, kept: dict[str, Any]
) -> Defense:
    """Return the trained preprocessor with its card, in eval mode; it shares the weights.

    A preprocessor of another class than forefend's has a card without an architecture and cannot be saved.
    """
    known = [{"name": guide.name, "fingerprint": guide.fingerprint()} for guide in networks.guides]
    if any(True for _ in networks.classifier.parameters()):
        known.append({"name": "classifier", "fingerprint": fingerprint(networks.classifier)})
    architecture, settings = _architecture(networks.preprocessor)
    card = DefenseCard(
        architecture=architecture,
        settings=settings,
        threat=str(recipe.settings().get("threat", "")),
        recipe=_name(recipe),
        data=data.name,
        guides=known,
        ema=ema,
        kept=kept,
    )
    return Defense(frozen(networks.preprocessor), card)


def _architecture(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """Name and settings that rebuild a preprocessor; empty for one of another class."""
    try:
        return preprocessors.name_of(network), dict(network.settings)  # type: ignore[arg-type]
    except InputError:
        return "", {}


def _name(recipe: Recipe) -> str:
    return next((name for name, kind in RECIPES.items() if type(recipe) is kind), type(recipe).__name__)


def training_config(recipe: Recipe, images: ImageDataset, seed: int) -> dict[str, Any]:
    """The part of a run's configuration that every training has."""
    return {
        "recipe": _name(recipe),
        "settings": recipe.settings(),
        "data": images.name,
        "images": len(images),
        "seed": seed,
    }
