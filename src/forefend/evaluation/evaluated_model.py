"""EvaluatedModel: a network and its name in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from forefend.checks import InputError
from forefend.models.defended import Defended
from forefend.models.defense import Defense


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier to evaluate, alone or behind a defense.

    Args:
        name: the name of the classifier in tables.
        network: images in [0, 1] to logits; with a defense, the whole pipeline.
        defended: whether a defense is in front.
        seen: whether the classifier was one of the defense's guides.
    """

    name: str
    network: nn.Module
    defended: bool = False
    seen: bool = False

    @property
    def title(self) -> str:
        """The name that distinguishes its rows from others."""
        return f"{self.name}{' defended' if self.defended else ''}"

    @property
    def defense(self) -> str:
        """The identity of its defense; empty without one, and for a preprocessor without a card."""
        defense = getattr(self.network, "defense", None)
        return defense.identity() if isinstance(defense, Defense) else ""


def with_and_without(defense: Defense, name: str, network: nn.Module) -> list[EvaluatedModel]:
    """Return a classifier alone, and with the defense."""
    seen = defense.has_seen(network)
    defended = EvaluatedModel(name, Defended(defense, network), defended=True, seen=seen)
    return [EvaluatedModel(name, network, seen=seen), defended]


def as_models(given: nn.Module | EvaluatedModel | Sequence[EvaluatedModel]) -> list[EvaluatedModel]:
    """Return models to evaluate; a network alone is called `classifier`.

    Raises:
        InputError: another type, or two models of one name.
    """
    if isinstance(given, nn.Module):
        defense = getattr(given, "defense", None)
        seen = isinstance(given, Defended) and isinstance(defense, Defense) and defense.has_seen(given.classifier)
        return [EvaluatedModel("classifier", given, isinstance(given, Defended), seen)]
    models = [given] if isinstance(given, EvaluatedModel) else given
    if not isinstance(models, Sequence) or not all(isinstance(model, EvaluatedModel) for model in models):
        raise InputError(
            f"A {type(given).__name__} was given as models, expected a torch module or a list of EvaluatedModel: wrap "
            "a function in a module, and give each network a name as forefend.EvaluatedModel(name, network)."
        )
    titles = [model.title for model in models]
    if twice := next((title for title in titles if titles.count(title) > 1), None):
        raise InputError(f"Two models are called {twice!r}: give each a different name, or their rows would mix.")
    return list(models)
