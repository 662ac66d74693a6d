"""Budget: the operations that a training run takes, and how long another may train on as many."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass, replace

import torch

from forefend.checks import InputError
from forefend.data import ImageDataset, split
from forefend.recipes.base import Networks, Recipe
from forefend.runtime.profiling import count_compute
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit


def flops_per_image(recipe: Recipe, images: ImageDataset, networks: Networks) -> float:
    """Operations that training takes for one image in one epoch, measured on a few steps of one batch.

    Operations are those of `compute.Compute`. Looking at held-out images is not counted. Where steps differ, as with
    one guide at a time, they are averaged over as many steps as there are guides.

    Args:
        recipe: what to do at each step.
        images: training images.
        networks: the networks; copies of them are trained, and thrown away.
    """
    batch = images.subset(torch.arange(min(recipe.batch_size, len(images))))
    steps = max(1, len(networks.guides))
    # Two trainings, one step and 1 + steps of them: whatever is done once in each is no part of a step.
    first, all_ = (_flops(recipe, batch, networks, epochs) for epochs in (1, 1 + steps))
    return (all_ - first) / (steps * len(batch))


def training_flops(recipe: Recipe, images: ImageDataset, networks: Networks) -> float:
    """Operations of a whole training run: those of its steps.

    Args:
        recipe: with its epochs.
        images: training images, held-out ones among them.
        networks: the networks.
    """
    trained = split(images, recipe.hold_out, seed=0)[0] if recipe.hold_out else images
    return flops_per_image(recipe, images, networks) * len(trained) * recipe.epochs


@dataclass(frozen=True)
class Allowance:
    """How long a recipe may train.

    Args:
        epochs: passes over the images.
        images: how many images.
        flops: what that takes, never above the budget.
    """

    epochs: int
    images: int
    flops: float


def allowance(budget: float, per_image: float, images: int) -> Allowance:
    """As many whole epochs as a budget pays; where it pays not even one, an epoch of as many images as it does.

    Args:
        budget: operations.
        per_image: operations of one image in one epoch.
        images: how many there are.

    Raises:
        InputError: the budget does not pay a single image.
    """
    paid = int(budget / per_image)
    if paid < 1:
        raise InputError(
            f"The run's {budget:.3g} operations do not pay one image of a training step ({per_image:.3g}): compare "
            "with a run that was trained for longer."
        )
    shown = min(images, paid)
    epochs = paid // shown
    return Allowance(epochs, shown, epochs * shown * per_image)


def _flops(recipe: Recipe, batch: ImageDataset, networks: Networks, epochs: int) -> int:
    """Operations of that many steps on one batch, and of what stands before and after them."""
    changes = {"epochs": epochs} | ({"hold_out": 0.0} if recipe.hold_out else {})
    short: Recipe = replace(recipe, **changes)  # type: ignore[type-var]
    copies = {role: copy.deepcopy(getattr(networks, role)) for role in ("preprocessor", "classifier", "discriminator")}
    twin = replace(networks, **copies)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return count_compute(lambda: fit(short, batch, twin, config=TrainingConfig(watch=None))).flops
