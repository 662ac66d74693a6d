"""Train with one of the recipes: find the networks, fit, save what was trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from forefend.checks import InputError, choose
from forefend.cli.resolve_data import sample_images, split_loader
from forefend.cli.resolve_models import named_classifier
from forefend.data import ImageDataset, augmentation, sample
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models import classifiers, discriminators
from forefend.models.classifiers.model_card import NamedClassifier, save_classifier
from forefend.models.defense import Defense
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
from forefend.training.artifacts import training_config
from forefend.training.catastrophic_overfitting import ON_DETECTION, Monitor, stop
from forefend.training.config import TrainingConfig, uses_single_steps
from forefend.training.crafting import ATTACK_COPIES
from forefend.training.inner_attacks import ATTA, INNER_ATTACKS
from forefend.training.trainer import fit

# Options of TrainingConfig with their defaults, which a run's configuration leaves out.
TRAINING_OPTIONS: dict[str, Any] = {
    "attack_copy": "none",
    "precision": "fp32",
    "ema": None,
    "inner_attack": "as-published",
    "atta_steps": [1],
    "atta_noise": 0.0,
    "on_overfitting": "stop",
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
    config = training_options(recipe, options)
    config.check(recipe)  # refused before guides are trained on demand
    images = sample_images(split_loader(options)("train"), options)
    nets = {role: options[role] for role in roles if role != "guides"}
    run_config = training_config(name, recipe, images, options.seed) | nets
    run_config |= {"data": options.data, "size": options.size}
    run_config |= {name: options[name] for name, plain in TRAINING_OPTIONS.items() if options[name] != plain}
    folder = Path(options.out) if options.out else Path(options.runs) / f"{name}-{images.name}-s{options.seed}"
    with accelerator.main_process_first():
        run_folder.check_free(folder, run_config, but=("guides", *_may_change(folder, options)))
    found = {role: _find(role, options) for role in roles if role in ("guides", "source", "classifier")}
    networks = _cast(roles, found, images, options)
    recipe.configure_optimizers(networks)  # refuses networks that do not fit before anything is written
    run_config["guides"] = [guide.config() for guide in found.get("guides", [])]
    with accelerator.main_process_first():
        started = run_folder.start(folder, run_config, may_change=_may_change(folder, options))
    words = [f"{role} {network}" for role, network in nets.items()]
    words += [f"guide {guide.name}" for guide in found.get("guides", [])]
    print(f"{name} on {len(images)} images of {images.name}: {', '.join(words)} -> {folder}", flush=True)
    augment = augmentation(options.data)
    with _nothing_half_begun(started):
        trained = fit(
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
        _save(trained, images, networks, folder, options, found)
    return folder


def training_options(recipe: Recipe, options: Any) -> TrainingConfig:
    """The options of `fit` that do not depend on the recipe.

    Raises:
        InputError: an unknown name, or an option that does not apply.
    """
    inner = choose(options.inner_attack, INNER_ATTACKS, "inner attack")
    if isinstance(inner, ATTA):
        inner = ATTA(steps=tuple(options.atta_steps), noise=options.atta_noise)
    elif options.atta_steps != [1] or options.atta_noise:
        raise InputError(f"--atta-steps and --atta-noise do not apply to --inner-attack {options.inner_attack}.")
    on_detection = choose(options.on_overfitting, ON_DETECTION, "reaction to overfitting")
    if on_detection is not stop and not uses_single_steps(recipe, inner):
        raise InputError("This training has no single steps that several could replace: leave out --on-overfitting.")
    return TrainingConfig(
        attack_copy=choose(options.attack_copy, ATTACK_COPIES, "attack copy"),
        precision=options.precision,
        ema=options.ema,
        inner_attack=inner,
        monitor=Monitor(on_detection),
    )


def _may_change(folder: Path, options: Any) -> tuple[str, ...]:
    """What may be said anew of a run that goes on: that it shall fall back, before it has come to its end."""
    ended = any((folder / card).exists() for card in ("defense.json", "classifier.json"))
    return ("on_overfitting",) if options.on_overfitting == "fall-back" and not ended else ()


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
    trained: nn.Module,
    images: ImageDataset,
    networks: Networks,
    folder: Path,
    options: Any,
    found: dict[str, list[NamedClassifier]],
) -> None:
    """Save the defense, the classifier, or both, then the classifier in a folder of its own."""
    if isinstance(trained, Defense):
        # The preprocessor was trained with this classifier as it was with its guides.
        origins = [{"name": c.name, "fingerprint": fingerprint(c.network)} for c in found.get("classifier", [])]
        Defense(trained.preprocessor, replace(trained.card, guides=trained.card.guides + origins)).save(folder)
    if "classifier" in options or "source" in options:
        origin = next((c for role in ("source", "classifier") for c in found.get(role, [])), None)
        architecture = origin.architecture if origin else options.classifier
        place = folder / "classifier" if isinstance(trained, Defense) else folder
        save_classifier(place, networks.classifier, architecture, images)
        print(f"classifier saved in {place}")
