"""A classifier that takes pixels: normalization lives inside it, so that images stay in [0, 1] everywhere outside."""

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
    """`network((x - mean) / std)`: the network as its publisher trained it, behind its own normalization.

    Args:
        network: takes normalized images `(B, C, H, W)`, returns logits `(B, K)`.
        mean: subtracted from every pixel, in [0, 1] units: one number, or one for each channel; 0 for none.
        std: divides what is left, above 0: one number, or one for each channel; 1 for none.

    Raises:
        InputError: a mean or std that is missing, empty, not finite, in 8-bit units, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: float | Sequence[float] | None, std: float | Sequence[float] | None):
        super().__init__()
        means, stds = _numbers(mean, "mean"), _numbers(std, "std")
        if min(stds) <= 0:
            raise InputError(f"The std is {std}, expected numbers above 0: each channel is divided by its own.")
        if min(means) < 0 or max(means) > 1:
            raise InputError(f"The mean is {mean}, expected numbers in [0, 1] as the pixels are: divide it by 255.")
        if len(means) > 1 and len(stds) > 1 and len(means) != len(stds):
            raise InputError(f"There are {len(means)} means and {len(stds)} stds: give one of each for each channel.")
        self.network = network
        self.register_buffer("mean", torch.tensor(means).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(stds).view(1, -1, 1, 1))

    @property
    def idle(self) -> bool:
        """Whether it normalizes nothing."""
        return bool((self.mean == 0).all() and (self.std == 1).all())

    @property
    def taps(self) -> FeatureLayers:
        """The network's taps, by their names in here.

        Raises:
            InputError: the network says nothing of its taps.
        """
        return feature_layers_of(self.network).inside("network")

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of images `(B, C, H, W)` in [0, 1]."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def _numbers(given: float | Sequence[float] | None, what: str) -> list[float]:
    if given is None:
        raise InputError(
            f"The classifier's {what} is not known and is never guessed: give the --mean and --std that its images "
            "were normalized with (--mean 0 --std 1 means none)."
        )
    try:
        numbers = [float(number) for number in (given if isinstance(given, Sequence) else [given])]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"The {what} is {given!r}, expected one finite number, or one for each channel.")
    return numbers
