"""`forefend recipes`: list the training methods with their hyper-parameters."""

from __future__ import annotations

import json
from typing import Any

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Print all recipes, or those that are named, as text or as JSON."""
    parser = Parser("recipes", "List the training methods with their hyper-parameters.")
    parser.add_argument("names", nargs="*", type=str, help="recipes to print (else all)")
    parser.add_argument("--json", action="store_true", help="print JSON: {name: {purpose, source, needs, settings}}")
    options = parser.parse_args(arguments)
    from forefend.checks import choose
    from forefend.recipes import RECIPES
    from forefend.recipes.hyperparameters import hyperparameters_of

    listing: dict[str, dict[str, Any]] = {
        name: {
            "purpose": recipe.purpose(),
            "source": recipe.source(),
            "needs": list(recipe.roles),
            "settings": {s.name: {"default": s.default, "meaning": s.meaning} for s in hyperparameters_of(recipe)},
        }
        for name, recipe in ((name, choose(name, RECIPES, "recipe")) for name in options.names or RECIPES)
    }
    if options.json:
        print(json.dumps(listing, indent=1, ensure_ascii=False))
        return 0
    for name, one in listing.items():
        print(f"{name}: {one['purpose']}\n    {one['source']}\n    networks: {', '.join(one['needs'])}")
        for setting, s in one["settings"].items():
            print(f"    {setting:14} {s['default']!s:14} {s['meaning']}")
    return 0
