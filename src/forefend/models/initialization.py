from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from forefend.data import ImageDataset, sample
from forefend.models import classifiers, preprocessors
from forefend.models.classifiers import Normalized
from forefend.runtime.rng import KeyedRNG


def new_preprocessor(architecture: str, images: ImageDataset, seed: int) -> nn.Module:
    """An untrained preprocessor; the same seed gives the same weights."""
    return initialized(partial(preprocessors.build, architecture, channels=images.shape[0]), seed)


def new_classifier(architecture: str, images: ImageDataset, seed: int) -> Normalized:
    """An untrained classifier for a data set, normalizing by that set's own mean and deviation.

    Raises:
        InputError: no such architecture, or one that does not take images of this size.
    """
    channels, size, _ = images.shape
    mean, std = moments(images)
    build = partial(classifiers.build, architecture, channels=channels, classes=len(images.classes), size=size)
    return Normalized(initialized(build, seed), mean, std)


def initialized(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose weights are drawn with the seed; torch's generator is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KeyedRNG(torch.empty(0), seed, "initialise").integer() % 2**31)
        return build()


def moments(images: ImageDataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over (a sample of) the training images, in [0, 1]-pixel units."""
    x, _, _ = sample(images, 5000, seed=0).batch(torch.arange(min(5000, len(images))))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    return [round(float(m), 4) for m in mean], [round(max(float(s), 1e-3), 4) for s in std]
