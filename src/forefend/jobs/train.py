"""Train a preprocessor or a classifier with one of the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .. import preprocessors, records
from ..data import Images, augmentation, sample
from ..defence import Card, Defence
from ..draw import Draw
from ..guides import Guide
from ..named import new_classifier, save_classifier, training_config
from ..recipe import Cast, Recipe
from ..recipes import RECIPES
from ..settings import Setting, build, settings_of
from ..train import fit
from .options import finder_of, images_of


def fields_of(name: str) -> list[Setting]:
    """The hyper-parameters of the recipe called `name`, as options."""
    return settings_of(RECIPES[name])


def run(name: str, options: Any) -> Path:
    """Train with the recipe called `name`; returns the run's folder.

    Raises:
        InputError: options that do not fit together.
        Interrupted: asked to stop; the same call goes on.
    """
    recipe = build(RECIPES[name], {s.name: options[s.name] for s in fields_of(name)})
    job = _train_classifier if options.trains == "classifier" else _train_preprocessor
    return job(name, recipe, options)


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
    finder = finder_of(options)
    found = [finder.find(spec) for spec in options.guides]
    preprocessor = new_preprocessor(options.preprocessor, images, options.seed)
    cast = Cast(preprocessor, [Guide(g.network, g.name) for g in found])
    recipe.players(cast)  # refuses a cast that does not fit before anything is written
    config = training_config(name, recipe, images, options.seed)
    config |= {"preprocessor": options.preprocessor, "guides": [g.config() for g in found]}
    run = records.start(_folder(name, options), config)
    _fit(recipe, images, cast, run, options)
    defence_of(name, recipe, images, cast, options.preprocessor).save(run.folder)
    return run.folder


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
    fit(recipe, images, cast, run=run, seed=options.seed, augment=augmentation(options.data), accelerator=accelerator)
