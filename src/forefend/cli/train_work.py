"""Train with one of the recipes: find the networks, fit, save what was trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from forefend.checks import InputError, choose
from forefend.cli.resolve_data import sample_images, split_loader
from forefend.cli.resolve_models import named_classifier
from forefend.data import ImageDataset, augmentation, sample
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models import classifiers, discriminators
from forefend.models.classifiers.model_card import NamedClassifier, save_classifier
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.models.initialization import initialized, new_classifier, new_preprocessor
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.hyperparameters import Hyperparameter, build, hyperparameters_of
from forefend.recipes.transfer import with_new_head
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_of
from forefend.runtime.threads import choose_threads
from forefend.training.artifacts import defense_of, training_config
from forefend.training.catastrophic_overfitting import ANSWERS, Monitor, stop
from forefend.training.config import TrainingConfig, takes_single_steps
from forefend.training.crafting import CRAFTING
from forefend.training.growing import SIZES
from forefend.training.inner_attacks import INNER_ATTACKS
from forefend.training.trainer import fit

# How the training is done, and what is done where nothing is said: what was begun before one of these existed goes on.
WAYS: dict[str, Any] = {
    "craft": "live",
    "precision": "fp32",
    "ema": None,
    "inner": "as-published",
    "on_collapse": "stop",
    "sizes": "as-published",
}


def fields_of(name: str) -> list[Hyperparameter]:
    """The hyper-parameters of the recipe called `name`, as options."""
    return hyperparameters_of(RECIPES[name])


def run(name: str, roles: tuple[str, ...], options: Any) -> Path:
    """Train with the recipe called `name`; returns the run's folder.

    Args:
        name: the recipe.
        roles: the networks that it needs: preprocessor, guides, classifier, source, discriminator.
        options: parsed options.

    Raises:
        InputError: options that do not fit together.
        Interrupted: asked to stop; the same call goes on.
    """
    accelerator = accelerator_of(options.device)
    choose_threads()
    recipe = build(RECIPES[name], {s.name: options[s.name] for s in fields_of(name)})
    recipe.check()
    config = ways_of(recipe, options)
    config.check(recipe)  # refused before guides are trained on demand
    images = sample_images(split_loader(options)("train"), options)
    nets = {role: options[role] for role in roles if role != "guides"}
    run_config = training_config(name, recipe, images, options.seed) | nets
    run_config |= {"data": options.data, "size": options.size}
    run_config |= {name: options[name] for name, plain in WAYS.items() if options[name] != plain}
    folder = Path(options.out) if options.out else Path(options.runs) / f"{name}-{images.name}-s{options.seed}"
    with accelerator.main_process_first():
        run_folder.check_free(folder, run_config, but=("guides", *_may_change(folder, options)))
    found = {role: _find(role, options) for role in roles if role in ("guides", "source", "classifier")}
    networks = _cast(roles, found, images, options)
    recipe.players(networks)  # refuses a cast that does not fit before anything is written
    run_config["guides"] = [guide.config() for guide in found.get("guides", [])]
    with accelerator.main_process_first():
        started = run_folder.start(folder, run_config, may_change=_may_change(folder, options))
    words = [f"{role} {network}" for role, network in nets.items()]
    words += [f"guide {guide.name}" for guide in found.get("guides", [])]
    print(f"{name} on {len(images)} images of {images.name}: {', '.join(words)} -> {folder}", flush=True)
    augment = augmentation(options.data)
    with _nothing_half_begun(started):
        fit(
            recipe,
            images,
            networks,
            run=started,
            seed=options.seed,
            augment=augment,
            accelerator=accelerator,
            config=config,
        )
    if accelerator.is_main_process:
        _save(recipe, images, networks, config, folder, options, found)
    return folder


def ways_of(recipe: Recipe, options: Any) -> TrainingConfig:
    """What the options say of how `fit` shall do it.

    Raises:
        InputError: a name that stands for nothing, or an answer to a collapse that nobody watches for.
    """
    inner = choose(options.inner, INNER_ATTACKS, "inner attack")
    answer = choose(options.on_collapse, ANSWERS, "answer to a collapse")
    if answer is not stop and not recipe.asks_inner:
        raise InputError(f"{type(recipe).__name__} runs its own attack, unwatched: leave --on-collapse away.")
    single = takes_single_steps(recipe, inner)
    if answer is not stop and not single:
        raise InputError("No step of this training is a single one, so that nobody watches: leave --on-collapse away.")
    return TrainingConfig(
        craft=choose(options.craft, CRAFTING, "way of crafting"),
        precision=options.precision,
        ema=options.ema,
        inner=inner,
        watch=Monitor(answer) if single else None,
        sizes=choose(options.sizes, SIZES, "course of sizes"),
    )


def _may_change(folder: Path, options: Any) -> tuple[str, ...]:
    """What may be said anew of a run that goes on: that it shall fall back, before it has come to its end."""
    ended = any((folder / card).exists() for card in ("defense.json", "classifier.json"))
    return ("on_collapse",) if options.on_collapse == "fall-back" and not ended else ()


@contextmanager
def _nothing_half_begun(run: run_folder.Run) -> Iterator[None]:
    """Take the new run's config back if training is refused before its first checkpoint: other options may follow."""
    try:
        yield
    except InputError:
        if not run.checkpoint.exists():
            (run.folder / "config.json").unlink(missing_ok=True)
            if not any(run.folder.iterdir()):
                run.folder.rmdir()
        raise


def _find(role: str, options: Any) -> list[NamedClassifier]:
    """The classifiers that the options name for a role; a bare architecture, to be trained anew, is none."""
    specs = options.guides if role == "guides" else [options[role]]
    if role == "classifier" and specs[0] in classifiers.ARCHITECTURES:
        return []
    found = [named_classifier(options, spec) for spec in specs]
    if role != "source" and not options.allow_weak_classifier:  # a source may have other classes
        images = sample(split_loader(options)("train"), 500, seed=0)
        for named in found:
            clean_accuracy(named.name, named.network, images)
    return found


def _cast(
    roles: tuple[str, ...], found: dict[str, list[NamedClassifier]], images: ImageDataset, options: Any
) -> Networks:
    """The networks by role. What is trained is new or a copy: no classifier that was found is touched."""
    seed, nets = options.seed, dict[str, Any]()
    nets["guides"] = [Guide(guide.network, guide.name) for guide in found.get("guides", [])]
    if "preprocessor" in roles:
        nets["preprocessor"] = new_preprocessor(options.preprocessor, images, seed)
    if "discriminator" in roles:
        channels, size, _ = images.shape
        nets["discriminator"] = initialized(
            partial(discriminators.build, options.discriminator, channels=channels, size=size), seed
        )
    if "classifier" in roles:
        nets["classifier"] = (
            copy.deepcopy(found["classifier"][0].network)
            if found["classifier"]
            else new_classifier(options.classifier, images, seed)
        )
    if "source" in roles:
        source = found["source"][0].network
        nets["classifier"] = initialized(partial(with_new_head, source, len(images.classes)), seed)
    return Networks(**nets)


def _save(
    recipe: Recipe,
    images: ImageDataset,
    networks: Networks,
    config: TrainingConfig,
    folder: Path,
    options: Any,
    found: dict[str, list[NamedClassifier]],
) -> None:
    """Whatever was trained: a defense, a classifier, or both, the classifier then in a folder of its own."""
    defended = "preprocessor" in options
    if defended:
        # A classifier that was gone on from is known to the preprocessor as much as one that it learned from.
        origins = [(c.name, fingerprint(c.network)) for c in found.get("classifier", [])]
        defense_of(recipe, images, networks, config=config, origins=origins).save(folder)
    if "classifier" in options or "source" in options:
        origin = next((c for role in ("source", "classifier") for c in found.get(role, [])), None)
        architecture = origin.architecture if origin else options.classifier
        place = folder / "classifier" if defended else folder
        save_classifier(place, networks.classifier, architecture, images)
        print(f"classifier saved in {place}")
