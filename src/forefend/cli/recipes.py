"""`forefend recipes`: list the training methods with their hyper-parameters."""

from __future__ import annotations

import json

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Print the recipes as text or as JSON."""
    parser = Parser("recipes", "List the training methods with their hyper-parameters.")
    parser.add_argument("--json", action="store_true", help="print JSON: {name: {purpose, source, settings}}")
    as_json = parser.parse_args(arguments).json
    from forefend.recipes import RECIPES
    from forefend.recipes.hyperparameters import hyperparameters_of

    listing = {
        name: {
            "purpose": recipe.purpose(),
            "source": recipe.source(),
            "settings": {s.name: {"default": s.default, "meaning": s.meaning} for s in hyperparameters_of(recipe)},
        }
        for name, recipe in RECIPES.items()
    }
    if as_json:
        print(json.dumps(listing, indent=1, ensure_ascii=False))
        return 0
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.purpose()}\n    {recipe.source()}")
        for s in hyperparameters_of(recipe):
            print(f"    {s.name:14} {s.default!s:14} {s.meaning}")
    return 0
