"""Classifiers of torchvision: `torchvision:NAME[@WEIGHTS][:FILE]` and `torchvision:NAME@random`."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.sources.adapted import Adapted
from forefend.models.classifiers.sources.hub import file_of_url
from forefend.models.classifiers.sources.preprocessing import Preprocessing, as_pair, as_size, check_agreement
from forefend.models.classifiers.sources.vision_import import import_vision
from forefend.models.classifiers.sources.wanted import Wanted, with_weights
from forefend.runtime.rng import initialized


def torchvision_classifier(name: str, weights: str, wanted: Wanted) -> nn.Module:
    """Return a classifier of torchvision.

    With the name of published weights, such as `resnet50@IMAGENET1K_V1`, normalization, size, interpolation and crop
    are those of their `transforms()`, also for the same weights in a file. Without it a file or random weights are
    taken to be made for images of the data's size, and the normalization must be given.

    Args:
        name: the name in torchvision, with the name of weights, or `random`, after an @.
        weights: a file of weights; empty for the published ones.
        wanted: the images that it is for.

    Raises:
        InputError: torchvision is missing, has no such model, or its weights are not there or are others.
    """
    spec = f"torchvision:{name}"
    models = import_vision("torchvision.models", spec)
    bare, _, entry = name.partition("@")
    if bare not in models.list_models(module=models):
        raise unknown_name(bare, models.list_models(module=models), "classifier of torchvision")
    wanted.check_channels(3, spec)
    if entry == "random" or (weights and not entry):
        shape = wanted.shape(spec)
        return wanted.preprocessing().before(Adapted(_network(models, bare, weights, wanted, shape[1]), shape))
    published = _weights_called(models, bare, entry)
    if not weights:
        wanted.check_classes(len(published.meta["categories"]), spec)
        weights = str(file_of_url(published.url, wanted.download))
    theirs = published.transforms()
    found = _preprocessing(theirs)
    check_agreement(found, theirs, wanted.size or 256, spec)
    network = _network(models, bare, weights, wanted)
    return wanted.preprocessing(found).before(Adapted(network, (3, *(found.crop or (224, 224)))))


def _weights_called(models: Any, name: str, entry: str) -> Any:
    known = models.get_model_weights(name).__members__
    if (entry or "DEFAULT") not in known:
        raise unknown_name(entry or "DEFAULT", [*known, "random"], f"set of weights of torchvision's {name}")
    return known[entry or "DEFAULT"]


def _network(models: Any, name: str, weights: str, wanted: Wanted, size: int | None = None) -> nn.Module:
    options = {"image_size": size} if size and name.startswith("vit_") else {}

    def build(classes: int) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the start of GoogLeNet takes long
            network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
        return network

    if weights:
        return with_weights(build, weights, f"torchvision:{name}", wanted.classes)
    if wanted.classes is None:
        raise InputError(f"torchvision:{name}@random has no number of classes: give classes.")
    return initialized(lambda: build(wanted.classes or 0), 0)


def _preprocessing(theirs: Any) -> Preprocessing:
    return Preprocessing(
        mean=list(theirs.mean),
        std=list(theirs.std),
        resize=as_size(theirs.resize_size),
        crop=as_pair(theirs.crop_size),
        interpolation=theirs.interpolation.value,
    )
