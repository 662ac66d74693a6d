"""`forefend train RECIPE`: train a preprocessor, or a classifier, with one of the recipes."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from forefend.checks import choose
from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Train, save, and say what to try next."""
    from forefend.cli import train_work
    from forefend.recipes import RECIPES

    if not arguments or arguments[0].startswith("-"):
        print("usage: forefend train RECIPE [options]   (forefend train RECIPE --help shows a recipe's options)\n")
        print("\n".join(f"  {name:19} {recipe.purpose()}" for name, recipe in RECIPES.items()))
        return 0 if arguments else 2
    name = arguments[0]
    recipe = choose(name, RECIPES, "recipe")
    parser = _parser(name, recipe.purpose())
    _add_networks(parser, name, recipe)
    _add_training_options(parser)
    group = parser.add_argument_group("recipe")
    for s in train_work.fields_of(name):
        option: dict[str, Any] = {"type": s.kind, "default": s.default, "help": s.meaning}
        if get_origin(s.kind) is list:
            option |= {"type": get_args(s.kind)[0], "nargs": "*"}
        group.add_argument(f"--{s.name.replace('_', '-')}", **option)
    options = parser.parse_args(arguments[1:])
    folder = train_work.run(name, recipe.roles, options)
    print(f"next:\n  forefend evaluate {folder} --suite quick --images 500")
    return 0


def _parser(name: str, purpose: str) -> Parser:
    """What every recipe's training takes."""
    parser = Parser(f"train {name}", purpose)
    parser.add_data()
    parser.add_classifiers()
    parser.add_argument("--images", type=int | None, help="train on a stratified sample of this many images")
    parser.add_argument("--seed", type=int, default=0, help="of initialization, order, augmentation and attacks")
    parser.add_argument("--out", type=str | None, help="the run's folder (else runs/RECIPE-DATA-sSEED)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    return parser


def _add_training_options(parser: Parser) -> None:
    """Options that do not depend on the recipe; the defaults are those of the papers."""
    group = parser.add_argument_group("speed and averaging")
    group.add_argument(
        "--attack-copy",
        type=str,
        default="none",
        help="networks that attacks see: none (the networks themselves), or fp32 or bf16 (faster copies)",
    )
    group.add_argument("--precision", type=str, default="fp32", help="of the weights' step: fp32 or bf16")
    group.add_argument(
        "--inner-attack",
        type=str,
        default="as-published",
        help="as-published, gradual (few steps at "
        "first), n-fgsm (one step from wide noise) or atta (few steps from those of the previous epoch)",
    )
    group.add_argument(
        "--atta-steps", type=int, nargs="+", default=[1], help="steps of atta, in equal spans"
    )
    group.add_argument("--atta-noise", type=float, default=0.0, help="noise on the starts of atta, in radii")
    group.add_argument(
        "--on-overfitting",
        type=str,
        default="stop",
        help="if training on single steps no longer defends against several: stop or fall-back",
    )
    group.add_argument("--ema", type=float | None, help="save an average of the weights with this decay, such as 0.995")


def _add_networks(parser: Parser, name: str, recipe: Any) -> None:
    """One option for each network of the recipe."""
    group, roles = parser.add_argument_group("networks"), recipe.roles
    if "guides" in roles:
        guides = list(recipe.default_guides)
        group.add_argument("--guides", nargs="+", type=str, default=guides, help="frozen classifiers")
    if "preprocessor" in roles:
        network = recipe.default_preprocessor
        group.add_argument("--preprocessor", type=str, default=network, help="architecture of the preprocessor")
    if "discriminator" in roles:
        group.add_argument("--discriminator", type=str, default=name, help="architecture of the discriminator")
    if "classifier" in roles:
        group.add_argument(
            "--classifier", type=str, default="tinyresnet", help="architecture or classifier"
        )
    if "source" in roles:
        group.add_argument("--source", type=str, default="tinyresnet", help="classifier to retrain with a new head")
