"""Who is judged, and on which images: a run's guides and further classifiers, alone and behind its defense."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from forefend.checks import InputError
from forefend.cli.resolve_data import finder_of, images_of, sampled
from forefend.data import ImageDataset, sample
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.models.classifiers.model_card import NamedClassifier
from forefend.models.defense import Defended, Defense, load
from forefend.runtime import run_folder
from forefend.runtime.distributed import check_device


def measure_alone(models: Sequence[EvaluatedModel], options: Any) -> None:
    """Refuse an undefended classifier that is near chance on 500 test images, before anything is written."""
    images = sample(images_of(options)("test"), 500, seed=0)
    for model in models:
        if not model.defended:
            clean_accuracy(model.name, model.network, images)


def placed(networks: Iterable[nn.Module], device: str | None) -> None:
    """Move what will be judged, or attacked, to the device that was asked for, or to the best there is.

    Raises:
        InputError: an unknown device, or CUDA where torch finds none.
    """
    check_device(device)
    where = "cpu" if device == "cpu" or not torch.cuda.is_available() else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    for network in networks:
        network.to(where)


def _config(run: run_folder.Run) -> Mapping[str, Any]:
    """What the run was started with; a defense that was saved from Python knows nothing of it."""
    folder = run.folder
    return {} if (folder / "defense.json").exists() and not (folder / "config.json").exists() else run.config


def surrogates_of(options: Any) -> dict[str, nn.Module]:
    """The other classifiers whose examples may transfer, by name."""
    return {c.name: c.network for c in _distinct([finder_of(options).look_up(spec) for spec in options.surrogates])}


def images_for(options: Any, run: run_folder.Run | None) -> ImageDataset:
    """The test images that the options name, or the run's own; a sample of them where one was asked for."""
    config = _config(run) if run else {}
    options.data = options.data or config.get("data")
    options.size = options.size or config.get("size")
    if options.data is None:
        raise InputError("No images were named: give --data, or a run, whose test images are then used.")
    return sampled(images_of(options)("test"), options)


def subjects_of(options: Any, run: run_folder.Run | None) -> tuple[list[EvaluatedModel], str]:
    """Everything to be judged, and the threat model that the run was trained for."""
    named = [finder_of(options).look_up(spec) for spec in options.classifiers]
    if run is None:
        if not named:
            raise InputError("Nothing to evaluate: name a run, or a classifier with --classifier architecture:weights.")
        return [EvaluatedModel(c.name, c.network) for c in _distinct(named)], "Linf:8/255"
    if (run.folder / "classifier.json").exists():
        own = finder_of(options).look_up(str(run.folder))
        return [EvaluatedModel(c.name, c.network) for c in _distinct([own, *named])], run.config["settings"].get(
            "threat", "Linf:8/255"
        )
    defense = load(run.folder)
    guides = [_guide(options, guide) for guide in _config(run).get("guides", [])]
    pairs = [s for c in _distinct([*guides, *named]) for s in _pair(defense, c)]
    return _trained_along(options, run, defense) + pairs, defense.card.threat


def _trained_along(options: Any, run: run_folder.Run, defense: Defense) -> list[EvaluatedModel]:
    """The classifier that was trained with the preprocessor, if any, behind it: alone it was never meant to stand."""
    folder = run.folder / "classifier"
    if not (folder / "classifier.json").exists():
        return []
    named = finder_of(options).look_up(str(folder))
    return [EvaluatedModel(f"{run.folder.name}'s own", Defended(defense, named.network), defended=True, seen=True)]


def _guide(options: Any, guide: dict[str, Any]) -> NamedClassifier:
    """A run's guide, found again by the word that it was named with."""
    found = finder_of(options, guide["mean"], guide["std"]).look_up(guide["spec"])
    wanted = guide.get("fingerprint")
    if wanted not in (None, found.config()["fingerprint"]):
        raise InputError(
            f"The guide {guide['spec']} is no longer the classifier that this run learned from (its fingerprint was "
            f"{wanted}): restore it, or evaluate with --classifiers on a defense copied away from its run."
        )
    return found


def _distinct(named: Sequence[NamedClassifier]) -> list[NamedClassifier]:
    """One of each: a classifier named twice is judged once, and two of one name are told apart by fingerprint."""
    different = {c.config()["fingerprint"]: c for c in named}
    names = [c.name for c in different.values()]
    return [
        replace(c, name=f"{c.name} {print_[:4]}") if names.count(c.name) > 1 else c for print_, c in different.items()
    ]


def _pair(defense: Defense, named: NamedClassifier) -> list[EvaluatedModel]:
    """A classifier alone and behind the defense."""
    seen = defense.has_seen(named.network)
    return [
        EvaluatedModel(named.name, named.network, seen=seen),
        EvaluatedModel(named.name, Defended(defense, named.network), defended=True, seen=seen),
    ]
