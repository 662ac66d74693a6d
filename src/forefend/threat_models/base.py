"""Threat models: which images an attacker may hand in, given a clean one.

A threat model projects, judges, draws random starts and scales steps; attacks are written in these four verbs alone.
Images are float `(B, C, H, W)` in [0, 1]; radii are in the same units, and an l2 radius is over the whole image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forefend.checks import InputError

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG


# float32 holds pixels in [0, 1] to 6e-8, so that x + δ − x may miss δ by about twice that.
ROUNDING = 2e-7


class ThreatModel(ABC):
    """A set of allowed images around each clean one: a norm ball of `radius`, cut by the pixel box [0, 1].

    Inside an attack `radius` may be a `(B,)` tensor, one radius for each image.
    """

    radius: float

    def __str__(self) -> str:
        """The identity written into records, e.g. `Linf:8/255`; `parse` reads it back."""
        return f"{self.norm}:{format_radius(self.radius)}"

    @property
    def norm(self) -> str:
        """The norm's name as the field writes it: `Linf`, `L2`."""
        return type(self).__name__

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The allowed image near `x_adv`; an allowed image comes back as it is."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """How far each image moved, in this norm: `(B,)` float64."""

    @abstractmethod
    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """A random allowed image, where a randomly started attack begins."""

    @abstractmethod
    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """The steepest increment of length `size`, one or `(B,)` of them, along `gradient`, in this norm."""

    def excess(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """By how much each image lies outside, `(B,)` float64: zero or less inside, NaN where a pixel is NaN."""
        radius = torch.as_tensor(self.radius, dtype=torch.float64, device=x.device)
        box = torch.maximum(-x_adv, x_adv - 1).double().flatten(1).amax(1)
        return torch.maximum(self.distance(x_adv, x) - radius, box)

    def allows(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each image lies inside, up to the rounding of float32: `(B,)` bool. NaN is never allowed."""
        return self.excess(x_adv, x) <= ROUNDING * max(1.0, float(torch.as_tensor(self.radius).max()))


def parse_radius(radius: float | str | Tensor) -> float | Tensor:
    """A radius from a number or text: `"8/255"`, `"0.3"`, `0.3`; a tensor of radii is handed through.

    Raises:
        InputError: not a finite number of at least zero.
    """
    if isinstance(radius, Tensor):
        return radius
    try:
        above, slash, below = str(radius).partition("/")
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{radius!r} is no radius: write a number such as 0.3 or a fraction such as 8/255.") from None
    if not 0 <= value < float("inf"):
        raise InputError(f"The radius {radius} is not a finite number of at least 0: write one such as 8/255.")
    return value


def format_radius(radius: float | Tensor) -> str:
    """The shortest exact spelling of a radius: `0.3`, `8/255`; a tensor of radii is `per image`."""
    if isinstance(radius, Tensor):
        return "per image"
    plain = f"{radius:g}"
    if float(plain) == radius:
        return plain
    levels = round(radius * 255)
    return f"{levels}/255" if levels / 255 == radius else repr(radius)


def radius_per_image(threat: ThreatModel, x: Tensor) -> Tensor:
    """The radius of each image, `(B,)`."""
    return torch.as_tensor(threat.radius, dtype=x.dtype, device=x.device).expand(len(x))


def broadcast_per_image(values: Tensor) -> Tensor:
    """One value an image, `(B,)`, shaped to broadcast over its pixels."""
    return values.view(-1, 1, 1, 1)


def per_image(radius: float | Tensor, x: Tensor) -> float | Tensor:
    return radius.view(-1, *[1] * (x.ndim - 1)) if isinstance(radius, Tensor) else radius
