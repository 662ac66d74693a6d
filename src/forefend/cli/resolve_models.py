"""Classifiers and defenses that the options of a command name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forefend import data
from forefend.checks import InputError
from forefend.cli.resolve_data import data_options, is_other_data, run_config, split_loader
from forefend.data import ImageDataset
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.evaluated_model import EvaluatedModel, with_and_without
from forefend.evaluation.given_images import images_for
from forefend.evaluation.model_checks import check_defense, check_model
from forefend.models.classifiers.model_card import NamedClassifier
from forefend.models.defended import Defended
from forefend.models.defense import Defense, load
from forefend.runtime.distributed import check_device
from forefend.runtime.files import folder_name
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import parse_threat_model
from forefend.training.resolve_classifiers import resolve_classifier
from forefend.training.run_guides import guides_of_run


def named_classifier(options: Any, spec: str, mean: Any = None, std: Any = None) -> NamedClassifier:
    """Resolve the text `spec`; `mean` and `std` take precedence over the options.

    Raises:
        InputError: an unknown device, or a text that names no classifier.
    """
    check_device(options.device)
    return resolve_classifier(
        spec,
        split_loader(options),
        mean=mean or options.mean,
        std=std or options.std,
        runs=options.runs,
        augment=data.augmentation(options.data),
        device=options.device,
        download=options.download,
        outputs=options.outputs,
        train_missing=options.train_missing,
        data=data_options(options),
    )


def evaluated_models(options: Any, images: ImageDataset) -> tuple[list[EvaluatedModel], str]:
    """Classifiers with and without the run's defense, and the threat model of its training.

    On images of another data set than the run's, the classifiers of `--classifiers` are those of that set, and the
    run's own are left out.

    Raises:
        InputError: nothing was named, or the images do not fit the defense.
    """
    defense = load(options.run) if options.run and not _is_classifier(options.run) else None
    if defense:
        check_defense(defense, images)
    named = [named_classifier(options, spec) for spec in options.classifiers]
    if not options.run:
        if not named:
            raise InputError("Nothing to evaluate: name a run, or a classifier with --classifier architecture:weights.")
        return [EvaluatedModel(c.name, c.network) for c in _distinct(named)], "Linf:8/255"
    folder, config = Path(options.run), run_config(options)
    if defense is None:
        own = named_classifier(options, str(folder))
        models = [EvaluatedModel(c.name, c.network) for c in _distinct([own, *named])]
        return models, config["settings"].get("threat", "Linf:8/255")
    other = bool(named) and is_other_data(options, config)
    guides = [] if other else _guides(options, folder, images, named)
    if is_other_data(options, config):
        _check_guides(guides, images)
    pairs = [model for c in _distinct([*guides, *named]) for model in with_and_without(defense, c.name, c.network)]
    models = pairs if other else _joint_classifier(options, defense) + pairs
    if not models:
        raise InputError(f"{folder} has no classifier to defend: name one with --classifiers.")
    return models, defense.card.threat


def _guides(
    options: Any, folder: Path, images: ImageDataset, named: Sequence[NamedClassifier]
) -> Sequence[NamedClassifier]:
    try:
        return guides_of_run(folder, split_loader(options), runs=options.runs, given=named)
    except InputError as error:  # weights of another number of classes do not even load
        if not is_other_data(options, run_config(options)):
            raise
        raise InputError(
            f"No guide of this run can be used on the images of {images.name}, another data set than that of its "
            f"training: name classifiers of that data set with --classifiers, which are then judged alone."
        ) from error


def _check_guides(guides: Sequence[NamedClassifier], images: ImageDataset) -> None:
    for guide in guides:
        try:
            check_model(guide.network, images, guide.name)
        except InputError as error:
            raise InputError(
                f"The guide {guide.name} of this run does not classify the images of {images.name}: name classifiers "
                "of that data set with --classifiers, which are then judged alone."
            ) from error


def _is_classifier(run: str) -> bool:
    return Path(run, "classifier.json").exists()


def _joint_classifier(options: Any, defense: Defense) -> list[EvaluatedModel]:
    """The classifier that was trained with the preprocessor, if any; it is only used defended."""
    folder = Path(options.run, "classifier")
    if not (folder / "classifier.json").exists():
        return []
    network = Defended(defense, named_classifier(options, str(folder)).network)
    return [EvaluatedModel(f"{Path(options.run).name}'s own", network, defended=True, seen=True)]


def _distinct(named: Sequence[NamedClassifier]) -> list[NamedClassifier]:
    """Remove duplicates, and add the fingerprint to equal names of different classifiers."""
    different = {c.config()["fingerprint"]: c for c in named}
    names = [c.name for c in different.values()]
    return [
        replace(c, name=f"{c.name} {print_[:4]}") if names.count(c.name) > 1 else c for print_, c in different.items()
    ]


def surrogate_classifiers(options: Any) -> dict[str, nn.Module]:
    """The classifiers of `--surrogates` by name."""
    return {c.name: c.network for c in _distinct([named_classifier(options, spec) for spec in options.surrogates])}


def bare_classifiers(models: Sequence[EvaluatedModel]) -> dict[str, nn.Module]:
    """The classifiers of evaluated models by name, without the defense."""
    inside = {model.name: model.network.classifier for model in models if isinstance(model.network, Defended)}
    return inside | {model.name: model.network for model in models if not model.defended}


def given_threats(given: Sequence[str] | None, trained: str) -> list[ThreatModel]:
    """The threat models of `--threat`, each once; by default the one of the run's training.

    Raises:
        InputError: the run was trained without a threat model, and none was given.
    """
    if not (given or trained):
        raise InputError("The run was trained without a threat model: give one with --threat, such as Linf:8/255.")
    return list(dict.fromkeys(parse_threat_model(text) for text in given or [trained]))


def check_accuracy(models: Sequence[EvaluatedModel], options: Any) -> None:
    """Refuse undefended classifiers that are near chance on 500 test images."""
    if options.allow_weak_classifier:
        return
    images = images_for(models, data.sample(split_loader(options)("test"), 500, seed=0))
    for model in models:
        if not model.defended:
            clean_accuracy(model.name, model.network, images)


def move_to_device(networks: Iterable[nn.Module], device: str | None) -> None:
    """Move networks to the device; None is the fastest one available.

    Raises:
        InputError: an unknown device, or CUDA where torch finds none.
    """
    check_device(device)
    where = "cpu" if device == "cpu" or not torch.cuda.is_available() else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    for network in networks:
        network.to(where)


def output_folder(options: Any, kind: str, *parts: str) -> Path:
    """The folder of `--out`, else one named after all options that change the results."""
    if options.out:
        return Path(options.out)
    return Path(options.run or options.runs) / kind / "-".join([Path(options.data).stem, *parts])


def joined_names(models: Sequence[EvaluatedModel]) -> str:
    """The names of the models as a part of a folder's name."""
    return "-".join(dict.fromkeys(folder_name(model.name) for model in models))[:80]
