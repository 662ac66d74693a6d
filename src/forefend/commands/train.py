"""`forefend train RECIPE`: train a preprocessor or a classifier with one of the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .. import preprocessors, records
from ..checks import choose
from ..data import Images, sample
from ..defence import Card, Defence
from ..draw import Draw
from ..guides import Guide
from ..named import Finder, Named, new_classifier, save_classifier, training_config
from ..recipe import Cast, Recipe
from ..recipes import RECIPES
from ..settings import build, purpose, settings_of
from ..train import Interrupted, fit
from .parser import Parser, augment_of, images_of

TRAINS_CLASSIFIER = ("adversarial", "natural")


def main(arguments: list[str]) -> int:
    """Train, save, and say what to try next."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: forefend train RECIPE [options]   (forefend train RECIPE --help shows a recipe's options)\n")
        for name, recipe in RECIPES.items():
            print(f"  {name:12} {purpose(recipe)}")
        return 0 if arguments else 2
    name, recipe_type = arguments[0], choose(arguments[0], RECIPES, "recipe")
    options = _parser(name, recipe_type).parse_args(arguments[1:])
    recipe = build(recipe_type, {s.name: options[s.name] for s in settings_of(recipe_type)})
    try:
        folder = (_train_classifier if name in TRAINS_CLASSIFIER else _train_preprocessor)(name, recipe, options)
    except Interrupted as stopped:
        print(f"\n{stopped}; the same command goes on from there.")
        return 130
    print(f"next:\n  forefend evaluate {folder} --suite quick --images 500")
    return 0


def _parser(name: str, recipe: type[Recipe]) -> Parser:
    parser = Parser(f"train {name}", purpose(recipe))
    group = parser.add_argument_group("recipe")
    for s in settings_of(recipe):
        group.add_argument(f"--{s.name.replace('_', '-')}", type=s.kind, default=s.default, help=s.meaning)
    parser.add_data()
    parser.add_classifier_options()
    parser.add_argument("--images", type=int | None, help="train on a stratified sample of this many images")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation, order, augmentation and attacks")
    parser.add_argument("--out", type=str | None, help="the run's folder (else runs/RECIPE-DATA-sSEED)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    if name in TRAINS_CLASSIFIER:
        parser.add_argument("--classifier", type=str, default="cnn", help="architecture to train")
    else:
        parser.add_argument("--guides", nargs="+", type=str, default=["cnn", "tinyresnet"], help="frozen classifiers")
        parser.add_argument("--preprocessor", type=str, default="narrow-unet", help="architecture of the preprocessor")
    return parser


def _train_classifier(name: str, recipe: Recipe, options: Any) -> Path:
    images = _training_images(options)
    network = new_classifier(options.classifier, images, options.seed)
    config = training_config(name, recipe, images, options.seed) | {"classifier": options.classifier}
    run = records.start(_folder(name, options), config)
    _fit(recipe, images, Cast(classifier=network), run, options)
    save_classifier(run.folder, network, options.classifier, images)
    return run.folder


def _train_preprocessor(name: str, recipe: Recipe, options: Any) -> Path:
    images = _training_images(options)
    found = find_all(options.guides, options)
    preprocessor = new_preprocessor(options.preprocessor, images, options.seed)
    cast = Cast(preprocessor, [Guide(g.network, g.name) for g in found])
    recipe.players(cast)  # refuses a cast that does not fit before anything is written
    config = training_config(name, recipe, images, options.seed)
    config |= {"preprocessor": options.preprocessor, "guides": [g.config() for g in found]}
    run = records.start(_folder(name, options), config)
    _fit(recipe, images, cast, run, options)
    defence_of(name, recipe, images, cast, options.preprocessor).save(run.folder)
    return run.folder


def find_all(specs: list[str], options: Any) -> list[Named]:
    """The classifiers that the options name, each measured."""
    finder = Finder(
        images_of(options),
        Path(options.runs),
        options.mean,
        options.std,
        options.allow_weak_classifier,
        options.seed,
        augment_of(options.data),
    )
    return [finder.find(spec) for spec in specs]


def new_preprocessor(architecture: str, images: Images, seed: int) -> torch.nn.Module:
    """An untrained preprocessor; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draw(torch.empty(0), seed, "initialise").number() % 2**31)
        return preprocessors.build(architecture, channels=images.shape[0])


def defence_of(name: str, recipe: Recipe, images: Images, cast: Cast, architecture: str) -> Defence:
    """The trained preprocessor with the card that says what it was trained for."""
    card = Card(
        architecture=architecture,
        settings=dict(cast.preprocessor.settings),  # type: ignore[arg-type]
        threat=str(recipe.settings().get("threat", "")),
        recipe=name,
        data=images.name,
        guides=[{"name": guide.name, "fingerprint": guide.fingerprint()} for guide in cast.guides],
    )
    return Defence(cast.preprocessor, card).eval()


def _training_images(options: Any) -> Images:
    images = images_of(options)("train")
    return images if options.images is None else sample(images, options.images, options.seed)


def _folder(name: str, options: Any) -> Path:
    data = Path(options.data).stem
    return Path(options.out) if options.out else Path(options.runs) / f"{name}-{data}-s{options.seed}"


def _fit(recipe: Recipe, images: Images, cast: Cast, run: records.Run, options: Any) -> None:
    accelerator = Accelerator(cpu=options.device == "cpu")
    fit(recipe, images, cast, run=run, seed=options.seed, augment=augment_of(options.data), accelerator=accelerator)
