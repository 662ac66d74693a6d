"""Noise that is independent for each pixel and channel.

Source: Hendrycks and Dietterich, 1903.12261.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forefend.data.corruptions.severity import Scale
from forefend.runtime.rng import KeyedRNG

GAUSSIAN = Scale((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
SHOT = Scale((500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
IMPULSE = Scale((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
SPECKLE = Scale((0.06, 0.10, 0.12, 0.16, 0.20), (0.15, 0.20, 0.35, 0.45, 0.60))


def gaussian_noise(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Add normal noise of one standard deviation."""
    return (x + GAUSSIAN.at(severity, x) * rng.normal(x)).clamp(0, 1)


def shot_noise(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Replace each pixel by a Poisson count whose mean is its value."""
    light = SHOT.at(severity, x)
    return (poisson_quantile(x * light, rng.uniform(x.double())).to(x.dtype) / light).clamp(0, 1)


def impulse_noise(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Set a share of the values to 0 or 1 with equal probability."""
    share, u = IMPULSE.at(severity, x), rng.uniform(x)
    return torch.where(u < share, (u < share / 2).to(x.dtype), x)


def speckle_noise(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Add normal noise in proportion to the value of each pixel."""
    return (x + SPECKLE.at(severity, x) * x * rng.normal(x)).clamp(0, 1)


def poisson_quantile(mean: Tensor, u: Tensor) -> Tensor:
    """Return Poisson counts by inversion: the least k with P(K ≤ k) ≥ u, where u is in [0, 1)."""
    mean, u = mean.double(), u + 2**-25  # the middle of the interval that u represents, never 0
    # The Cornish-Fisher expansion differs by at most 1, or is 5 too high where the mean is near 0.
    z = torch.special.ndtri(u)
    guess = (mean + mean.sqrt() * z + (z * z - 1) / 6).round()
    low: Tensor = (guess - 6).clamp_min(-1)
    high: Tensor = guess.clamp_min(0) + 1  # P(K ≤ low) < u ≤ P(K ≤ high)
    for _ in range(3):  # the bracket is at most 7 wide
        middle = ((low + high) / 2).floor()
        reached = (middle >= 0) & (torch.special.gammaincc(middle.clamp_min(0) + 1, mean) >= u)
        high, low = torch.where(reached, middle, high), torch.where(reached, low, middle)
    return high
