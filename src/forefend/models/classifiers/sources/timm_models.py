"""Classifiers of timm: `timm:NAME`, `timm:NAME:WEIGHTS` and `timm:NAME@random`."""

from __future__ import annotations

from typing import Any

from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.sources.adapted import Adapted
from forefend.models.classifiers.sources.hub import folder_of_repository
from forefend.models.classifiers.sources.preprocessing import Preprocessing, check_agreement, of_torchvision
from forefend.models.classifiers.sources.vision_import import import_vision
from forefend.models.classifiers.sources.wanted import Wanted, with_weights
from forefend.runtime.rng import initialized


def timm_classifier(name: str, weights: str, wanted: Wanted) -> nn.Module:
    """Return a classifier of timm.

    A name with a tag, such as `resnet18.a1_in1k`, is that of published weights: normalization, size, interpolation and
    crop are those of its `pretrained_cfg`, also for the same weights in a file. Without a tag a file or random weights
    are taken to be made for images of the data's size, and the normalization must be given.

    Args:
        name: the name in timm; `@random` behind it leaves it untrained.
        weights: a file of weights; empty for the published ones.
        wanted: the images that it is for.

    Raises:
        InputError: timm is missing, has no such model, or its weights are not there or are others.
    """
    spec = f"timm:{name}"
    timm = import_vision("timm", spec)
    bare, _, suffix = name.partition("@")
    _check_name(timm, bare, suffix)
    if "." not in bare and (weights or suffix):
        channels, size, _ = wanted.shape(spec)
        options = {"in_chans": channels, "img_size": size}
        return wanted.preprocessing().before(
            Adapted(_network(timm, bare, weights, wanted, options), (channels, size, size))
        )
    config = timm.get_pretrained_cfg(bare)
    if config is None or not config.has_weights:
        raise InputError(f"timm publishes no weights of {bare}: give timm:{bare}:WEIGHTS, or timm:{bare}@random.")
    wanted.check_channels(config.input_size[0], spec)
    if not (weights or suffix):
        wanted.check_classes(config.num_classes, spec)
        weights = _published(config, wanted)
    found = _preprocessing(timm, config, wanted, spec)
    network = _network(timm, bare, weights, wanted, {})
    return wanted.preprocessing(found).before(Adapted(network, config.input_size))


def _check_name(timm: Any, name: str, suffix: str) -> None:
    bare, _, tag = name.partition(".")
    if bare not in timm.list_models():
        raise unknown_name(bare, timm.list_models(), "model of timm")
    if tag and name not in timm.list_pretrained():
        raise unknown_name(name, timm.list_pretrained(f"{bare}.*"), "set of weights of timm")
    if suffix not in ("", "random"):
        raise unknown_name(suffix, ["random"], f"state of timm:{name} after the @")


def _network(timm: Any, name: str, weights: str, wanted: Wanted, options: dict[str, Any]) -> nn.Module:
    def build(classes: int) -> nn.Module:
        try:
            network: nn.Module = timm.create_model(name, num_classes=classes, **options)
        except TypeError:  # a convolutional network takes no size
            rest = {key: value for key, value in options.items() if key != "img_size"}
            network = timm.create_model(name, num_classes=classes, **rest)
        return network

    if weights:
        return with_weights(build, weights, f"timm:{name}", wanted.classes)
    if wanted.classes is None:
        raise InputError(f"timm:{name}@random has no number of classes: give classes.")
    return initialized(lambda: build(wanted.classes or 0), 0)


def _published(config: Any, wanted: Wanted) -> str:
    if not config.hf_hub_id:
        raise InputError(f"The weights of timm:{config.architecture} are not on the hub: give a file of them.")
    file = config.hf_hub_filename or "model.safetensors"
    return str(folder_of_repository(config.hf_hub_id, [file], wanted.download) / file)


def _preprocessing(timm: Any, config: Any, wanted: Wanted, spec: str) -> Preprocessing:
    settings = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    theirs = timm.data.create_transform(**settings, is_training=False)
    found = of_torchvision(theirs.transforms, spec)
    check_agreement(found, theirs, wanted.size or 256, spec)
    return found
