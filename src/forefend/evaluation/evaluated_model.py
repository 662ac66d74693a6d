"""Subject: who is judged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from forefend.models.defense import Defended, Defense


@dataclass(frozen=True)
class EvaluatedModel:
    """What is judged: a classifier, alone or behind a defense.

    Args:
        name: the classifier's name in tables.
        network: images in [0, 1] to logits; the whole pipeline where there is a defense.
        defended: whether a defense stands in front.
        seen: whether the classifier was one of the defense's guides.
    """

    name: str
    network: nn.Module
    defended: bool = False
    seen: bool = False


def row_of(model: EvaluatedModel) -> str:
    """What tells a subject's rows from others'."""
    return f"{model.name}{' defended' if model.defended else ''}"


def evaluated_model(network: nn.Module) -> EvaluatedModel:
    """A bare network as what it is: its own type and its defense's card say whether it is defended, and seen."""
    defense = getattr(network, "defense", None)
    seen = isinstance(network, Defended) and isinstance(defense, Defense) and defense.has_seen(network.classifier)
    return EvaluatedModel("classifier", network, isinstance(network, Defended), seen)
