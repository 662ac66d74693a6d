"""A classifier with its normalization inside, so that images are in [0, 1] everywhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.feature_layers import FeatureLayers, feature_layers_of


@final
class Normalized(nn.Module):
    """`network((x - mean) / std)`: a network that was trained on normalized images.

    Args:
        network: normalized images `(B, C, H, W)` to logits `(B, K)`.
        mean: one number in [0, 1], or one for each channel; 0 for none.
        std: one number above 0, or one for each channel; 1 for none.

    Raises:
        InputError: a mean or std that is missing, empty, not finite or in 8-bit units, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: float | Sequence[float] | None, std: float | Sequence[float] | None):
        super().__init__()
        means, stds = _numbers(mean, "mean"), _numbers(std, "std")
        if min(stds) <= 0:
            raise InputError(f"The std is {std}: give numbers above 0.")
        if min(means) < 0 or max(means) > 1:
            raise InputError(f"The mean is {mean}: give numbers in [0, 1], divided by 255.")
        if len(means) > 1 and len(stds) > 1 and len(means) != len(stds):
            raise InputError(f"There are {len(means)} means and {len(stds)} stds: give one of each for each channel.")
        self.network = network
        self.register_buffer("mean", torch.tensor(means).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(stds).view(1, -1, 1, 1))

    @property
    def is_identity(self) -> bool:
        """Whether mean is 0 and std is 1."""
        return bool((self.mean == 0).all() and (self.std == 1).all())

    @property
    def feature_layers(self) -> FeatureLayers:
        """The network's feature layers, by their names in this module.

        Raises:
            InputError: the network does not name them.
        """
        return feature_layers_of(self.network).inside("network")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of images `(B, C, H, W)` in [0, 1].

        Raises:
            InputError: images of another number of channels than the mean or std is for.
        """
        for what, numbers in (("means", self.mean), ("stds", self.std)):
            # Broadcasting could accept it, or blame the size. A tracer's stand-in has no shape to check.
            if isinstance(x, Tensor) and numbers.shape[1] not in (1, x.shape[1]):
                raise InputError(
                    f"There are {numbers.shape[1]} {what} for {x.shape[1]} channels: give one, or one for each channel."
                )
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def _numbers(given: float | Sequence[float] | None, what: str) -> list[float]:
    if given is None:
        raise InputError(
            f"The {what} of the classifier's normalization is missing: give those of its training, "
            "or mean=0 and std=1 for none."
        )
    try:
        numbers = [float(number) for number in (given if isinstance(given, Sequence) else [given])]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"The {what} is {given!r}, expected one finite number, or one for each channel.")
    return numbers
