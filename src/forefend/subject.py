"""Subject: who is judged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .defence import Defence, Defended


@dataclass(frozen=True)
class Subject:
    """What is judged: a classifier, alone or behind a defence.

    Args:
        name: the classifier's name in tables.
        network: images in [0, 1] to logits; the whole pipeline where there is a defence.
        defended: whether a defence stands in front.
        seen: whether the classifier was one of the defence's guides.
    """

    name: str
    network: nn.Module
    defended: bool = False
    seen: bool = False


def row_of(subject: Subject) -> str:
    """What tells a subject's rows from others'."""
    return f"{subject.name}{' defended' if subject.defended else ''}"


def subject_of(network: nn.Module) -> Subject:
    """A bare network as what it is: its own type and its defence's card say whether it is defended, and seen."""
    defence = getattr(network, "defence", None)
    seen = isinstance(network, Defended) and isinstance(defence, Defence) and defence.has_seen(network.classifier)
    return Subject("classifier", network, isinstance(network, Defended), seen)
