"""Settings: a recipe's fields as names and plain values, for the command line, configs and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring

from . import guides, losses
from .checks import choose
from .guides import Policy
from .losses import Loss
from .recipe import Recipe
from .threat import ThreatModel
from .threat import parse as parse_threat

LOSSES: dict[str, Loss] = {
    "ce": losses.ce,
    "dlr": losses.dlr,
    "huber_mean": losses.huber_mean,
    "huber_sum": losses.huber_sum,
    "huber_vector": losses.huber_vector,
    "margin": losses.margin,
}
POLICIES: dict[str, Policy] = {"every": guides.every, "in_turn": guides.in_turn, "sampled": guides.sampled}


@dataclass(frozen=True)
class Setting:
    """One field of a recipe, as a person writes it.

    Args:
        name: the field's name.
        kind: the plain type that is typed: int, float, str or a list of floats.
        default: the plain default value.
        meaning: what it is and where it comes from, from the recipe's docstring.
        read: from the plain value to the field's.
    """

    name: str
    kind: Any
    default: Any
    meaning: str
    read: Callable[[Any], Any]


def settings_of(recipe: type[Recipe]) -> list[Setting]:
    """The settings of a recipe, in the order of its fields."""
    hints = get_type_hints(recipe)
    meanings = {p.arg_name: p.description or "" for p in parse_docstring(recipe.__doc__ or "").params}
    defaults = recipe().settings()
    return [
        Setting(name, kind, defaults[name], " ".join(meanings[name].split()), read)
        for name, (kind, read) in ((f.name, _kind(hints[f.name])) for f in fields(recipe))  # type: ignore[arg-type]
    ]


def purpose(recipe: type[Recipe]) -> str:
    """The recipe's one-line purpose: the first sentence of its docstring."""
    return (parse_docstring(recipe.__doc__ or "").short_description or "").replace("\n", " ")


def build(recipe: type[Recipe], values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values; what is not given keeps its default.

    Raises:
        InputError: a name that stands for no loss, policy or threat model.
    """
    return recipe(**{s.name: s.read(values[s.name]) for s in settings_of(recipe) if s.name in values})


def _kind(hint: Any) -> tuple[Any, Any]:
    """What is typed for a field of this type, and how it is read."""
    if hint is ThreatModel:
        return str, parse_threat
    if hint == Loss:
        return str, lambda name: choose(name, LOSSES, "loss")
    if hint == Policy:
        return str, lambda name: choose(name, POLICIES, "guide policy")
    if get_origin(hint) is tuple:
        return list[float], tuple
    return hint, hint
