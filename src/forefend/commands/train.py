"""`forefend train RECIPE`: train a preprocessor, or a classifier, with one of the recipes."""

from __future__ import annotations

from ..checks import choose
from .parser import Parser

# recipe: (what it trains, its purpose), so that help need not import torch; a test holds it against the recipes.
RECIPES: dict[str, tuple[str, str]] = {
    "adversarial": ("classifier", "train a classifier itself on attacked images (Madry et al.)"),
    "natural": ("classifier", "train a classifier on clean images: what guides are made of"),
    "rtfe": ("preprocessor", "train a preprocessor so that guides answer on attacked images as on clean ones"),
}


def main(arguments: list[str]) -> int:
    """Train, save, and say what to try next."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: forefend train RECIPE [options]   (forefend train RECIPE --help shows a recipe's options)\n")
        print("\n".join(f"  {name:12} {purpose}" for name, (_, purpose) in RECIPES.items()))
        return 0 if arguments else 2
    name = arguments[0]
    trains, purpose = choose(name, RECIPES, "recipe")
    from ..jobs import train

    parser = _parser(name, trains, purpose)
    group = parser.add_argument_group("recipe")
    for s in train.fields_of(name):
        group.add_argument(f"--{s.name.replace('_', '-')}", type=s.kind, default=s.default, help=s.meaning)
    options = parser.parse_args(arguments[1:])
    options.trains = trains
    folder = train.run(name, options)
    print(f"next:\n  forefend evaluate {folder} --suite quick --images 500")
    return 0


def _parser(name: str, trains: str, purpose: str) -> Parser:
    """What every recipe's training takes."""
    parser = Parser(f"train {name}", purpose)
    parser.add_data()
    parser.add_classifiers()
    parser.add_argument("--images", type=int | None, help="train on a stratified sample of this many images")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation, order, augmentation and attacks")
    parser.add_argument("--out", type=str | None, help="the run's folder (else runs/RECIPE-DATA-sSEED)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    if trains == "classifier":
        parser.add_argument("--classifier", type=str, default="cnn", help="architecture to train")
    else:
        parser.add_argument("--guides", nargs="+", type=str, default=["cnn", "tinyresnet"], help="frozen classifiers")
        parser.add_argument("--preprocessor", type=str, default="narrow-unet", help="architecture of the preprocessor")
    return parser
