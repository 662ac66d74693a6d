"""Trained: what a training leaves in front of classifiers, with the card that says what it was trained for."""

from __future__ import annotations

from collections.abc import Sequence

from . import preprocessors
from .data import Images
from .defence import Card, Defence
from .modes import fingerprint
from .recipe import Cast, Recipe
from .recipes import RECIPES
from .ways import AS_THE_PAPERS, Ways


def defence_of(
    recipe: Recipe,
    data: Images,
    cast: Cast,
    *,
    ways: Ways = AS_THE_PAPERS,
    origins: Sequence[tuple[str, str]] = (),
) -> Defence:
    """The trained preprocessor with its card: it can be saved, loaded again, and tells its guides from others.

    Args:
        recipe: what it was trained with.
        data: what it was trained on.
        cast: the networks, after training.
        ways: how it was trained: whether its weights are an average.
        origins: names and fingerprints of classifiers that training went on from.

    Raises:
        InputError: the preprocessor is no architecture of ours.
    """
    beside = [{"name": guide.name, "fingerprint": guide.fingerprint()} for guide in cast.guides]
    beside += [{"name": origin, "fingerprint": print_} for origin, print_ in origins]
    if any(True for _ in cast.classifier.parameters()):
        beside.append({"name": "classifier", "fingerprint": fingerprint(cast.classifier)})
    card = Card(
        architecture=preprocessors.name_of(cast.preprocessor),
        settings=dict(cast.preprocessor.settings),  # type: ignore[arg-type]
        threat=str(recipe.settings().get("threat", "")),
        recipe=next((name for name, kind in RECIPES.items() if type(recipe) is kind), type(recipe).__name__),
        data=data.name,
        guides=beside,
        ema=ways.ema,
    )
    return Defence(cast.preprocessor, card).eval()
