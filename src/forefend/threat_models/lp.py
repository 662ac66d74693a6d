"""The l∞ and l2 threat models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.threat_models.base import ThreatModel, parse_radius, per_image

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG


@dataclass(frozen=True, init=False, repr=False)
class Linf(ThreatModel):
    """Images whose every pixel differs from the clean one by at most `radius`.

    Args:
        radius: in [0, 1]-pixel units, a number or text such as `"8/255"`.

    Raises:
        InputError: the radius is negative or above 1.

    >>> threat = Linf("8/255")
    >>> print(threat, threat.radius == 8 / 255)
    Linf:8/255 True
    >>> threat.project(torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 2), 0.5)).mul(255).tolist()
    [[[[135.5, 135.5]]]]
    """

    radius: float

    def __init__(self, radius: float | str | Tensor) -> None:
        object.__setattr__(self, "radius", parse_radius(radius))
        if isinstance(self.radius, float) and self.radius > 1:
            raise InputError(
                f"An l∞ radius of {radius} is above 1, and pixels are in [0, 1]: did you mean {self.radius:g}/255?"
            )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip to x ± radius and to [0, 1]."""
        radius = per_image(self.radius, x)
        return torch.minimum(torch.maximum(x_adv, x - radius), x + radius).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the largest pixel difference of each image."""
        return (x_adv.double() - x.double()).abs().flatten(1).amax(1)

    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Return a uniform point of the box of ± radius, as in Madry et al. (1706.06083)."""
        return self.project(x + per_image(self.radius, x) * (2 * rng.uniform(x) - 1), x)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Return `size` times the sign of the gradient."""
        return per_image(size, gradient) * gradient.sign()


@dataclass(frozen=True, init=False, repr=False)
class L2(ThreatModel):
    """Images whose Euclidean distance from the clean one, over all pixels, is at most `radius`.

    Args:
        radius: in [0, 1]-pixel units, a number or text such as `"128/255"`.

    Raises:
        InputError: the radius is negative.
    """

    radius: float

    def __init__(self, radius: float | str | Tensor) -> None:
        object.__setattr__(self, "radius", parse_radius(radius))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Scale the perturbation to length `radius`, then clip to [0, 1]."""
        delta = x_adv - x
        norm = _length(delta)
        radius = per_image(self.radius, x)
        return (x + delta * (radius / norm.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the Euclidean length of the perturbation of each image."""
        return (x_adv.double() - x.double()).flatten(1).norm(dim=1)

    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Return a random direction of length `radius`, clipped to [0, 1]."""
        direction = rng.normal(x)
        return self.project(x + per_image(self.radius, x) * direction / _length(direction).clamp_min(1e-12), x)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Return `size` times the direction of the gradient, zero where the gradient is zero."""
        # Squares of small gradients (1e-25) underflow in float32: scale before taking the norm.
        tiny = torch.finfo(gradient.dtype).tiny
        largest = gradient.abs().flatten(1).amax(1).clamp_min(tiny)
        direction = gradient / per_image(largest, gradient)
        return per_image(size, gradient) * direction / _length(direction).clamp_min(tiny)


def _length(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each image, in a shape that broadcasts over it."""
    return delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.ndim - 1))
