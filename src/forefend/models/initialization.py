"""Untrained networks, initialized from a seed."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from forefend.data import ImageDataset, sample
from forefend.models import classifiers, preprocessors
from forefend.models.classifiers import Normalized
from forefend.runtime.rng import initialized as initialized


def new_preprocessor(architecture: str, images: ImageDataset, seed: int) -> nn.Module:
    """Return an untrained preprocessor; the same seed gives the same weights."""
    return initialized(partial(preprocessors.build, architecture, channels=images.shape[0]), seed)


def new_classifier(architecture: str, images: ImageDataset, seed: int) -> Normalized:
    """Return an untrained classifier that normalizes by the data's mean and standard deviation.

    Raises:
        InputError: an unknown architecture, or one that does not accept images of this size.
    """
    channels, size, _ = images.shape
    mean, std = moments(images)
    build = partial(classifiers.build, architecture, channels=channels, classes=len(images.classes), size=size)
    return Normalized(initialized(build, seed), mean, std)


def moments(images: ImageDataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, over at most 5,000 images, in [0, 1]-pixel units."""
    x, _, _ = sample(images, 5000, seed=0).batch(torch.arange(min(5000, len(images))))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    return [round(float(m), 4) for m in mean], [round(max(float(s), 1e-3), 4) for s in std]
