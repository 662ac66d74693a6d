"""The operations and the time of a training run, and the training that a number of operations allows."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from forefend.checks import InputError
from forefend.data import ImageDataset, split
from forefend.models.freezing import deep_copy
from forefend.recipes.base import Networks, Recipe
from forefend.runtime.profiling import count_compute
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit


def flops_per_image(recipe: Recipe, images: ImageDataset, networks: Networks) -> float:
    """Measure the operations of training on one image for one epoch, without validation.

    The result is the mean over as many steps as there are guides, as steps with different guides differ.

    Args:
        recipe: the training method.
        images: training images.
        networks: the networks; copies of them are trained.
    """
    batch = images.subset(torch.arange(min(recipe.batch_size, len(images))))
    steps = max(1, len(networks.guides))
    # The difference of two trainings, of one step and of 1 + steps, leaves out what both do once.
    first, both = (_flops(recipe, batch, networks, epochs) for epochs in (1, 1 + steps))
    return (both - first) / (steps * len(batch))


def training_flops(recipe: Recipe, images: ImageDataset, networks: Networks) -> float:
    """Measure the operations of all steps of a training run.

    Args:
        recipe: the training method, with its epochs.
        images: training images, with the held-out ones.
        networks: the networks; copies of them are trained.
    """
    trained = split(images, recipe.hold_out, seed=0)[0] if recipe.hold_out else images
    return flops_per_image(recipe, images, networks) * len(trained) * recipe.epochs


@dataclass(frozen=True)
class Allowance:
    """The training that a budget allows.

    Args:
        epochs: passes over the images.
        images: number of images.
        flops: operations of that training, at most the budget.
    """

    epochs: int
    images: int
    flops: float


def allowance(budget: float, per_image: float, images: int) -> Allowance:
    """Return the largest number of whole epochs within a budget, or one epoch on fewer images.

    Args:
        budget: operations.
        per_image: operations of one image in one epoch.
        images: number of images.

    Raises:
        InputError: the budget is smaller than one image.
    """
    affordable = int(budget / per_image)
    if affordable < 1:
        raise InputError(
            f"The budget is {budget:.3g} operations, and a training step takes {per_image:.3g} for one image: compare "
            "with a run that was trained for longer."
        )
    used = min(images, affordable)
    epochs = affordable // used
    return Allowance(epochs, used, epochs * used * per_image)


def training_seconds(recipe: Recipe, images: ImageDataset, networks: Networks, accelerator: Accelerator) -> float:
    """Estimate how long a training takes, from the time of two steps.

    Args:
        recipe: the training method, with its epochs.
        images: training images.
        networks: the networks; copies of them are trained.
        accelerator: device and processes of the training.
    """
    batch = images.subset(torch.arange(min(recipe.batch_size, len(images))))
    seconds = []
    for epochs in (1, 3):  # the difference leaves out what both do once
        train = _short_training(recipe, batch, networks, epochs, accelerator)
        start = time.perf_counter()
        train()
        seconds.append(time.perf_counter() - start)
    return max(0.0, seconds[1] - seconds[0]) / 2 * math.ceil(len(images) / len(batch)) * recipe.epochs


def _flops(recipe: Recipe, batch: ImageDataset, networks: Networks, epochs: int) -> int:
    """Operations of a training on one batch, with one step an epoch."""
    return count_compute(_short_training(recipe, batch, networks, epochs)).flops


def _short_training(
    recipe: Recipe, batch: ImageDataset, networks: Networks, epochs: int, accelerator: Accelerator | None = None
) -> Callable[[], object]:
    """Return a function that trains copies of the networks on one batch, silently, with one step an epoch."""
    changes = {"epochs": epochs} | ({"hold_out": 0.0} if recipe.hold_out else {})
    short: Recipe = replace(recipe, **changes)  # type: ignore[type-var]
    copies = {role: deep_copy(getattr(networks, role)) for role in ("preprocessor", "classifier", "discriminator")}
    twin = replace(networks, **copies)

    def train() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fit(short, batch, twin, accelerator=accelerator, config=TrainingConfig(monitor=None))

    return train
