"""The models of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from forefend.models.defense import Defended, Defense


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier to evaluate, with or without a defense.

    Args:
        name: name of the classifier in tables.
        network: maps images in [0, 1] to logits; with a defense, the preprocessor and the classifier.
        defended: whether the network has a defense.
        seen: whether the classifier was a guide of the defense.
    """

    name: str
    network: nn.Module
    defended: bool = False
    seen: bool = False


def row_of(model: EvaluatedModel) -> str:
    """The unique name of a model's rows."""
    return f"{model.name} defended" if model.defended else model.name


def evaluated_model(network: nn.Module) -> EvaluatedModel:
    """Wrap a bare network; a `Defended` one is marked as defended, and as seen if its card lists the classifier."""
    if not isinstance(network, Defended):
        return EvaluatedModel("classifier", network)
    defense = network.defense
    seen = isinstance(defense, Defense) and defense.has_seen(network.classifier)
    return EvaluatedModel("classifier", network, defended=True, seen=seen)
