"""The base class of threat models: the images that an attacker may submit, given a clean image.

A threat model projects, measures distances, draws random starts and scales steps. Attacks use only
these four methods. Images are float `(B, C, H, W)` in [0, 1]; radii are in the same units, and an
l2 radius is over the whole image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.formatting import format_radius

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG

# float32 rounds pixels in [0, 1] by up to 6e-8, so that x + δ − x differs from δ by twice that.
ROUNDING = 2e-7


class ThreatModel(ABC):
    """A set of allowed images around each clean image: a norm ball of `radius` within [0, 1].

    Inside an attack, `radius` may be a `(B,)` tensor, one radius for each image.
    """

    radius: float

    def __str__(self) -> str:
        """Return the name for records, such as `Linf:8/255`; `parse_threat_model` accepts it."""
        return f"{self.norm}:{format_radius(self.radius)}"

    @property
    def norm(self) -> str:
        """The name of the norm: `Linf`, `L2`."""
        return type(self).__name__

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return an allowed image near `x_adv`; allowed images are returned unchanged."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the distance of each image in this norm, `(B,)` float64."""

    @abstractmethod
    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Return a random allowed image, the random start of an attack."""

    @abstractmethod
    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Return the steepest increment along `gradient` of length `size`, a number or `(B,)`."""

    def excess(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return how far each image lies outside, `(B,)` float64: at most 0 inside, NaN for NaN."""
        radius = torch.as_tensor(self.radius, dtype=torch.float64, device=x.device)
        box = torch.maximum(-x_adv, x_adv - 1).double().flatten(1).amax(1)
        return torch.maximum(self.distance(x_adv, x) - radius, box)

    def allows(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return whether each image is allowed up to rounding, `(B,)` bool; NaN is not."""
        return self.excess(x_adv, x) <= ROUNDING * max(1.0, float(torch.as_tensor(self.radius).max()))


def parse_radius(radius: float | str | Tensor) -> float | Tensor:
    """Return the radius given as a number or text, such as `"8/255"`; a tensor is unchanged."""
    if isinstance(radius, Tensor):
        return radius
    try:
        above, slash, below = str(radius).partition("/")
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"{radius!r} is not a radius: write a number such as 0.3 or a fraction such as 8/255."
        ) from None
    if not 0 <= value < float("inf"):
        raise InputError(f"The radius {radius} is not a finite number of at least 0: write one such as 8/255.")
    return value


def radius_per_image(threat: ThreatModel, x: Tensor) -> Tensor:
    """Return the radius of each image, `(B,)`."""
    return torch.as_tensor(threat.radius, dtype=x.dtype, device=x.device).expand(len(x))


def broadcast_per_image(values: Tensor) -> Tensor:
    """Return one value for each image, `(B,)`, in a shape that broadcasts over its pixels."""
    return values.view(-1, 1, 1, 1)


def per_image(value: float | Tensor, x: Tensor) -> float | Tensor:
    """Return a number unchanged, or values `(B,)` in a shape that broadcasts over `x`."""
    return value.view(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) else value
