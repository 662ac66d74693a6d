"""`forefend train RECIPE`: train a preprocessor, or a classifier, with one of the recipes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

from torch import nn

from forefend.checks import InputError, choose
from forefend.cli.parser import FORMS, Parser
from forefend.cli.recommended import parse
from forefend.cli.resolve_data import sample_images, split_loader
from forefend.cli.resolve_models import named_classifier
from forefend.data import ImageDataset, augmentation, sample
from forefend.data.augmentation import random_crop_flip
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models import classifiers, discriminators, preprocessors
from forefend.models.classifiers.model_card import NamedClassifier, check_trainable, save_classifier
from forefend.models.defense import Defense
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.models.initialization import initialized, new_classifier, new_preprocessor
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.hyperparameters import build, hyperparameters_of
from forefend.recipes.transfer import with_new_head
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_of
from forefend.runtime.files import folder_name
from forefend.runtime.folders import locked
from forefend.runtime.threads import choose_threads
from forefend.training import best_epoch
from forefend.training.artifacts import training_config
from forefend.training.batches import Augment
from forefend.training.catastrophic_overfitting import ON_DETECTION, Monitor, stop
from forefend.training.config import TrainingConfig, uses_single_steps
from forefend.training.crafting import ATTACK_COPIES
from forefend.training.inner_attacks import ATTA, INNER_ATTACKS
from forefend.training.run_guides import copy_guides, guide_entries
from forefend.training.trackers import TRACKERS, check_trackers
from forefend.training.trainer import fit

AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "crop-flip": random_crop_flip}
# Options of TrainingConfig and the augmentation with their defaults. The config of a run only holds those that differ.
TRAINING_OPTIONS: dict[str, Any] = {
    "augmentation": "auto",
    "attack_copy": "none",
    "precision": "fp32",
    "ema": None,
    "ema_statistics": None,
    "keep_best": None,
    "inner_attack": "as-published",
    "atta_steps": [1],
    "atta_noise": 0.0,
    "on_overfitting": "stop",
}
Found = dict[str, list[NamedClassifier]]  # classifiers by role


def main(arguments: list[str]) -> int:
    """Train, save the result and print a command to try next."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: forefend train RECIPE [options]   (forefend train RECIPE --help shows a recipe's options)\n")
        print("\n".join(f"  {name:19} {recipe.purpose()}" for name, recipe in RECIPES.items()))
        return 0 if arguments else 2
    name = arguments[0]
    parser = _parser(name, choose(name, RECIPES, "recipe"))
    folder = _run(name, parse(parser, arguments[1:], partial(_recipe, name)))
    print(f"next:\n  forefend evaluate {folder} --suite quick --images 500")
    return 0


def _recipe(name: str, options: Any) -> Recipe:
    return build(RECIPES[name], {s.name: options[s.name] for s in hyperparameters_of(RECIPES[name])})


def _parser(name: str, recipe: type[Recipe]) -> Parser:
    config = "YAML file of options, or recommended: those that we would take, as defaults"
    parser = Parser(f"train {name}", recipe.purpose(), config)
    parser.add_data()
    parser.add_classifiers()
    parser.add_argument("--images", type=int | None, help="size of a stratified sample of the training images")
    parser.add_argument("--seed", type=int, default=0, help="seed of initialization, order, augmentation and attacks")
    parser.add_argument("--out", type=str | None, help="folder of the run (else runs/RECIPE-DATA-sSEED)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    _add_networks(parser, name, recipe)
    _add_training_options(parser)
    group = parser.add_argument_group("recipe")
    for s in hyperparameters_of(recipe):
        option: dict[str, Any] = {"type": s.kind, "default": s.default, "help": s.meaning}
        if get_origin(s.kind) is list:
            option |= {"type": get_args(s.kind)[0], "nargs": "*"}
        group.add_argument(f"--{s.name.replace('_', '-')}", **option)
    return parser


def _add_networks(parser: Parser, name: str, recipe: type[Recipe]) -> None:
    group = parser.add_argument_group("networks")
    defaults = {
        "guides": (list(recipe.default_guides), f"frozen classifiers: {FORMS}"),
        "preprocessor": (recipe.default_preprocessor, "architecture of the preprocessor"),
        "discriminator": (name, "architecture of the discriminator"),
        "classifier": ("tinyresnet", "architecture to train, or classifier to continue from"),
        "source": ("tinyresnet", "classifier to retrain with a new head"),
    }
    for role, (default, meaning) in defaults.items():
        if role in recipe.roles:
            several: dict[str, Any] = {"nargs": "+"} if role == "guides" else {}
            group.add_argument(f"--{role}", type=str, default=default, help=meaning, **several)


def _add_training_options(parser: Parser) -> None:
    group, default = parser.add_argument_group("training"), TRAINING_OPTIONS
    choices = {
        "augmentation": "auto (crop-flip for photographs, none for digits and clothes), crop-flip or none",
        "attack_copy": "networks that attacks see: none (the networks themselves), or copies in fp32 or bf16",
        "precision": "precision of the training step: fp32 or bf16",
        "inner_attack": "as-published, gradual (fewer steps at first), n-fgsm, atta or fgsm-pgi (reused perturbations)",
        "on_overfitting": "on catastrophic overfitting: stop or fall-back (continue with several steps)",
    }
    for name, meaning in choices.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=str, default=default[name], help=meaning)
    group.add_argument("--atta-steps", nargs="+", type=int, default=[1], help="steps of atta, in equal spans")
    group.add_argument("--atta-noise", type=float, default=0.0, help="noise on the starts of atta, in radii")
    group.add_argument("--ema", type=float | None, help="decay of an average of the weights, such as 0.995")
    group.add_argument("--ema-statistics", type=int | None, help="batches that estimate BatchNorm for that average")
    trackers = f"trackers that follow the training: {', '.join(TRACKERS)}"
    group.add_argument("--track", nargs="+", type=str, default=[], help=trackers)
    share = "share of the training images, held out to choose the epoch that resists PGD best (else the last)"
    group.add_argument("--keep-best", type=float | None, help=share)


def _run(name: str, options: Any) -> Path:
    """Train with the recipe called `name`; return the folder of the run."""
    accelerator = accelerator_of(options.device)
    choose_threads()
    check_trackers(options.track, name)
    load = split_loader(options)
    recipe = _recipe(name, options)
    config = training_options(recipe, options)
    chosen_augmentation(options)
    config.check(recipe)  # before guides are trained on demand
    images = sample_images(load("train"), options)
    if config.keep_best:
        best_epoch.hold_out(images, config.keep_best, options.seed)  # refuses a share that leaves nothing
    given = {role: options[role] for role in recipe.roles if role != "guides"}
    _check_architectures(given)
    manifest = training_config(recipe, images, options.seed) | given
    manifest |= {"data": options.data, "size": options.size, "channels": options.channels}
    manifest |= {name: options[name] for name, default in TRAINING_OPTIONS.items() if options[name] != default}
    folder = (
        Path(options.out) if options.out else Path(options.runs) / folder_name(f"{name}-{images.name}-s{options.seed}")
    )
    may_change = _may_change(folder, options)
    with accelerator.main_process_first():
        run_folder.check_free(folder, manifest, but=("guides", *may_change))
    found: Found = {role: _find(role, options) for role in recipe.roles if role in ("guides", "source", "classifier")}
    networks = _networks(recipe.roles, found, images, options)
    recipe.configure_optimizers(networks)  # refuses wrong networks before anything is written
    manifest["guides"] = guide_entries(found.get("guides", []), folder)
    with accelerator.main_process_first():
        run = run_folder.start(folder, manifest, may_change=may_change)
    words = [f"{role} {network}" for role, network in given.items()]
    words += [f"guide {guide.name}" for guide in found.get("guides", [])]
    print(f"{name} on {len(images)} images of {images.name}: {', '.join(words)} -> {folder}", flush=True)
    augment = chosen_augmentation(options)
    lock = locked(run.folder) if accelerator.is_main_process else nullcontext()
    with lock, run_folder.removed_if_refused(run):
        trained = fit(
            recipe,
            images,
            networks,
            run=run,
            seed=options.seed,
            augment=augment,
            accelerator=accelerator,
            config=config,
            track=options.track,
        )
        if accelerator.is_main_process:
            _save(trained, networks.classifier, images, folder, options, found)
    return folder


def _check_architectures(given: Mapping[str, str]) -> None:
    """Refuse an unknown architecture by its own name, before a folder is compared with it."""
    known = {
        "preprocessor": preprocessors.ARCHITECTURES | preprocessors.TRANSFORMS,
        "discriminator": discriminators.ARCHITECTURES,
    }
    for role, name in given.items():
        if role in known:
            choose(name, known[role], f"{role} architecture")
        elif ":" not in name and not Path(name).exists():  # neither weights, nor a run or card
            choose(name.partition("@")[0], classifiers.ARCHITECTURES, "run, JSON card or architecture")


def training_options(recipe: Recipe, options: Any) -> TrainingConfig:
    """The training options that do not depend on the recipe.

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
        raise InputError("This training has no single steps that several could replace: remove --on-overfitting.")
    return TrainingConfig(
        attack_copy=choose(options.attack_copy, ATTACK_COPIES, "attack copy"),
        precision=options.precision,
        ema=options.ema,
        ema_statistics=options.ema_statistics,
        keep_best=options.keep_best,
        inner_attack=inner,
        monitor=Monitor(on_detection),
    )


def chosen_augmentation(options: Any) -> Augment | None:
    """The augmentation of `--augmentation`, by default that of the data set.

    Raises:
        InputError: an unknown name.
    """
    name = options.augmentation
    return augmentation(options.data) if name == "auto" else choose(name, AUGMENTATIONS, "augmentation")


def _may_change(folder: Path, options: Any) -> tuple[str, ...]:
    """The options that may change when an unfinished run resumes."""
    ended = any((folder / card).exists() for card in ("defense.json", "classifier.json"))
    return ("on_overfitting",) if options.on_overfitting == "fall-back" and not ended else ()


def _find(role: str, options: Any) -> list[NamedClassifier]:
    """The classifiers of a role; none for an architecture that is trained from scratch."""
    specs = options.guides if role == "guides" else [options[role]]
    if role == "classifier" and specs[0] in classifiers.ARCHITECTURES:
        return []
    found = [named_classifier(options, spec) for spec in specs]
    if role != "guides":
        check_trainable(found[0])
    if role != "source" and not options.allow_weak_classifier:  # a source may have other classes
        images = sample(split_loader(options)("train"), 500, seed=0)
        for named in found:
            clean_accuracy(named.name, named.network, images)
    return found


def _networks(roles: tuple[str, ...], found: Found, images: ImageDataset, options: Any) -> Networks:
    """The networks by role; those that are trained are new, or copies."""
    seed, networks = options.seed, dict[str, Any]()
    networks["guides"] = [Guide(guide.network, guide.name) for guide in found.get("guides", [])]
    if "preprocessor" in roles:
        networks["preprocessor"] = new_preprocessor(options.preprocessor, images, seed)
    if "discriminator" in roles:
        channels, size, _ = images.shape
        make = partial(discriminators.build, options.discriminator, channels=channels, size=size)
        networks["discriminator"] = initialized(make, seed)
    if found.get("classifier"):
        networks["classifier"] = copy.deepcopy(found["classifier"][0].network)
    elif "classifier" in roles:
        networks["classifier"] = new_classifier(options.classifier, images, seed)
    if "source" in roles:
        source = found["source"][0].network
        networks["classifier"] = initialized(partial(with_new_head, source, len(images.classes)), seed)
    return Networks(**networks)


def _save(
    trained: nn.Module, classifier: nn.Module, images: ImageDataset, folder: Path, options: Any, found: Found
) -> None:
    """Save the defense, the classifier, or both: then the classifier in a folder of its own."""
    start = found.get("source", []) + found.get("classifier", [])
    if isinstance(trained, Defense):  # it has also seen the classifier that its training started from
        seen = [{"name": named.name, "fingerprint": fingerprint(named.network)} for named in start]
        Defense(trained.preprocessor, replace(trained.card, guides=trained.card.guides + seen)).save(folder)
        copy_guides(found.get("guides", []), folder, images)
    if "classifier" in options or "source" in options:
        architecture = start[0].architecture if start else options.classifier
        place = folder / "classifier" if isinstance(trained, Defense) else folder
        save_classifier(place, classifier, architecture, images)
        print(f"classifier saved in {place}")
