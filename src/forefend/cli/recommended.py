"""`--config recommended`: the options of training that are recommended for a recipe, as defaults."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from forefend.cli.parser import Parser
from forefend.recipes.base import Recipe
from forefend.training.config import TrainingConfig, not_recommended
from forefend.training.inner_attacks import ATTA


def parse(parser: Parser, words: list[str], recipe_of: Callable[[Any], Recipe]) -> Any:
    """Parse the options of a training; `--config recommended` replaces defaults, and options that are given count.

    Args:
        parser: the parser of the recipe's training.
        words: the words of the command line.
        recipe_of: from the options to the recipe.
    """
    places = {i for i, two in enumerate(pairwise(words)) if two == ("--config", "recommended")}
    places |= {i + 1 for i in places} | {i for i, word in enumerate(words) if word == "--config=recommended"}
    rest = [word for i, word in enumerate(words) if i not in places]
    options = parser.parse_args(rest)
    if not places:
        return options
    recipe = recipe_of(options)
    chosen = as_options(TrainingConfig.recommended(recipe))
    words_of = (f"--{name.replace('_', '-')} {_text(value)}" for name, value in chosen.items())
    print(f"recommended: {' '.join(words_of)}", flush=True)
    for name, reason in not_recommended(recipe).items():
        print(f"without --{name.replace('_', '-')}: {reason}", flush=True)
    before = {name: parser.get_defaults()[name] for name in ("atta_steps", "atta_noise")}
    parser.set_defaults(**chosen)
    options = parser.parse_args(rest)
    if options.inner_attack == "atta":
        return options
    parser.set_defaults(**before)  # another inner attack was given
    return parser.parse_args(rest)


def as_options(config: TrainingConfig) -> dict[str, Any]:
    """Return the options of the command line that make a recommended configuration."""
    given = {name: value for name, value in config.settings().items() if value is not None and name != "inner_attack"}
    if isinstance(config.inner_attack, ATTA):
        inner = config.inner_attack
        given |= {"inner_attack": "atta", "atta_steps": list(inner.steps), "atta_noise": inner.noise}
    return given


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
