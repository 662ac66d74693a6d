"""The fields of recipes as names and plain values, for the command line, configurations and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring

from forefend import losses
from forefend.attacks import pgd
from forefend.attacks.pgd import Start
from forefend.checks import choose
from forefend.losses import Loss
from forefend.models import defended
from forefend.models.defended import Knowledge
from forefend.recipes import base, denoised_smoothing, ensemble, hgd, transfer
from forefend.recipes.base import Optimizer, Recipe, plain
from forefend.recipes.ensemble import Policy
from forefend.runtime.labels import label_of
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import parse_threat_model

# The choices for fields that hold a function: (type, name in messages, functions).
CHOICES: list[tuple[Any, str, list[Callable[..., Any]]]] = [
    (Loss, "loss of logits and labels", [losses.boosted_ce, losses.ce, losses.dlr, losses.margin]),
    (
        Loss,
        "loss of two outputs",
        [
            losses.euclidean,
            losses.huber_mean,
            losses.huber_sum,
            losses.huber_vector,
            losses.mae,
            losses.mse,
            losses.sse,
        ],
    ),
    (Start, "start", [pgd.noise_corner, pgd.random_start, pgd.small_noise]),
    (Optimizer, "optimizer", [base.adam, base.sgd]),
    (Policy, "guide policy", [ensemble.every, ensemble.in_turn, ensemble.sampled]),
    (Knowledge, "knowledge", [defended.full, defended.oblivious]),
    (
        denoised_smoothing.Objective,
        "guidance or objective",
        [
            hgd.pixel,
            hgd.logit,
            hgd.feature,
            hgd.label,
            denoised_smoothing.reconstruction,
            denoised_smoothing.stability,
            denoised_smoothing.classification,
        ],
    ),
    (transfer.Labels, "labels", [transfer.true_labels, transfer.predicted_labels]),
    (transfer.Layers, "layers", [transfer.head, transfer.last_stage, transfer.everything]),
]


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a recipe in plain values.

    Args:
        name: name of the field.
        kind: plain type: int, float, str or a list of floats.
        default: plain default value.
        meaning: description in the recipe's docstring, with the source of the default.
        read: from the plain value to the value of the field.
    """

    name: str
    kind: Any
    default: Any
    meaning: str
    read: Callable[[Any], Any]


def hyperparameters_of(recipe: type[Recipe]) -> list[Hyperparameter]:
    """The hyper-parameters of a recipe, in the order of its fields."""
    hints = get_type_hints(recipe)
    # An abstract class may document the fields that recipes share.
    documented = [parse_docstring(ancestor.__doc__ or "").params for ancestor in reversed(recipe.__mro__)]
    meanings = {p.arg_name: p.description or "" for params in documented for p in params}
    built = recipe()
    names = [f.name for f in fields(recipe)]  # type: ignore[arg-type]
    kinds = {name: _kind(hints[name], getattr(built, name)) for name in names}
    return [
        Hyperparameter(name, kind, plain(getattr(built, name)), " ".join(meanings[name].split()), read)
        for name, (kind, read) in kinds.items()
    ]


def build(recipe: type[Recipe], values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values; other fields keep their defaults.

    Raises:
        InputError: an unknown name of a loss, policy or threat model, or a number out of range.
    """
    built = recipe(**{s.name: s.read(values[s.name]) for s in hyperparameters_of(recipe) if s.name in values})
    built.check()
    return built


def _kind(hint: Any, default: Any) -> tuple[Any, Any]:
    """Plain type and reader of a field; a field that holds a function offers those of the default's kind."""
    if hint is ThreatModel:
        return str, parse_threat_model
    for kind, noun, functions in CHOICES:
        if hint == kind and default in functions:
            return str, partial(_named, noun=noun, functions=functions)
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]], tuple  # type: ignore[misc]
    return hint, hint


def _named(name: str, *, noun: str, functions: list[Callable[..., Any]]) -> Callable[..., Any]:
    return choose(name, {label_of(f): f for f in functions}, noun)
