"""Threat models: which images an attacker may hand in, given a clean one.

A threat model projects, judges, draws random starts and scales steps; attacks are written in these four verbs alone.
Images are float `(B, C, H, W)` in [0, 1]; radii are in the same units, and an l2 radius is over the whole image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .checks import InputError, unknown

if TYPE_CHECKING:
    from .draw import Draw

# float32 holds pixels in [0, 1] to 6e-8, so that x + δ − x may miss δ by about twice that.
ROUNDING = 2e-7


class ThreatModel(ABC):
    """A set of allowed images around each clean one: a norm ball of `radius`, cut by the pixel box [0, 1].

    Inside an attack `radius` may be a `(B,)` tensor, one radius for each image.
    """

    radius: float

    def __str__(self) -> str:
        """The identity written into records, e.g. `Linf:8/255`; `parse` reads it back."""
        return f"{self.norm}:{write_radius(self.radius)}"

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
    def noise(self, x: Tensor, draw: Draw) -> Tensor:
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


@dataclass(frozen=True, init=False, repr=False)
class Linf(ThreatModel):
    """Every pixel may move by up to `radius`: `Linf("8/255")`.

    Args:
        radius: in [0, 1]-pixel units, a number or text such as `"8/255"`.

    Raises:
        InputError: negative, or above 1.
    """

    radius: float

    def __init__(self, radius: float | str | Tensor) -> None:
        object.__setattr__(self, "radius", read_radius(radius))
        if isinstance(self.radius, float) and self.radius > 1:
            raise InputError(
                f"An l∞ radius of {radius} is above 1, and pixels are in [0, 1]: did you mean {self.radius:g}/255?"
            )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip to x ± radius and to [0, 1]."""
        radius = _per_image(self.radius, x)
        return torch.minimum(torch.maximum(x_adv, x - radius), x + radius).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The largest pixel difference of each image."""
        return (x_adv.double() - x.double()).abs().flatten(1).amax(1)

    def noise(self, x: Tensor, draw: Draw) -> Tensor:
        """Uniform in the box of ± radius, as Madry et al. start (1706.06083)."""
        return self.project(x + _per_image(self.radius, x) * (2 * draw.uniform(x) - 1), x)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """`size` times the sign of the gradient."""
        return _per_image(size, gradient) * gradient.sign()


@dataclass(frozen=True, init=False, repr=False)
class L2(ThreatModel):
    """Each image may move by up to `radius` in Euclidean distance over all its pixels: `L2(0.5)`.

    Args:
        radius: in [0, 1]-pixel units, a number or text such as `"128/255"`.

    Raises:
        InputError: negative.
    """

    radius: float

    def __init__(self, radius: float | str | Tensor) -> None:
        object.__setattr__(self, "radius", read_radius(radius))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Shorten the perturbation to `radius`, then clip to [0, 1]; clipping only brings it nearer to x."""
        delta = x_adv - x
        norm = _length(delta)
        radius = _per_image(self.radius, x)
        return (x + delta * (radius / norm.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The Euclidean length of each image's perturbation."""
        return (x_adv.double() - x.double()).flatten(1).norm(dim=1)

    def noise(self, x: Tensor, draw: Draw) -> Tensor:
        """A random direction of length `radius`, then clipped to [0, 1]."""
        direction = draw.normal(x)
        return self.project(x + _per_image(self.radius, x) * direction / _length(direction).clamp_min(1e-12), x)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """`size` times the gradient's direction; an image whose gradient is zero stays."""
        # The squares of a confident network's gradients (1e-25) are zero in float32: scale before measuring.
        tiny = torch.finfo(gradient.dtype).tiny
        largest = gradient.abs().flatten(1).amax(1).clamp_min(tiny)
        direction = gradient / _per_image(largest, gradient)
        return _per_image(size, gradient) * direction / _length(direction).clamp_min(tiny)


def parse(text: str) -> ThreatModel:
    """A threat model from its identity: `Linf:8/255`, `L2:0.5`.

    Raises:
        InputError: not `NORM:RADIUS`, an unknown norm, or a radius that the norm does not take.
    """
    norm, colon, radius = text.partition(":")
    if not colon:
        raise InputError(f"{text!r} is no threat model: write NORM:RADIUS, such as Linf:8/255 or L2:0.5.")
    if norm.lower() == "linf":
        return Linf(radius)
    if norm.lower() == "l2":
        return L2(radius)
    raise unknown(norm, ("Linf", "L2"), "norm")


def models(given: ThreatModel | Iterable[ThreatModel]) -> list[ThreatModel]:
    """Threat models as a list, one alone too.

    Raises:
        InputError: something among them is none, such as its name.
    """
    found = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for threat in found:
        if not isinstance(threat, ThreatModel):
            raise InputError(f"{threat!r} is no threat model: give one such as forefend.Linf('8/255').")
    return found


def read_radius(radius: float | str | Tensor) -> float | Tensor:
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


def write_radius(radius: float | Tensor) -> str:
    """The shortest exact spelling of a radius: `0.3`, `8/255`; a tensor of radii is `per image`."""
    if isinstance(radius, Tensor):
        return "per image"
    plain = f"{radius:g}"
    if float(plain) == radius:
        return plain
    levels = round(radius * 255)
    return f"{levels}/255" if levels / 255 == radius else repr(radius)


def each_radius(threat: ThreatModel, x: Tensor) -> Tensor:
    """The radius of each image, `(B,)`."""
    return torch.as_tensor(threat.radius, dtype=x.dtype, device=x.device).expand(len(x))


def over_images(values: Tensor) -> Tensor:
    """One value an image, `(B,)`, shaped to broadcast over its pixels."""
    return values.view(-1, 1, 1, 1)


def _per_image(radius: float | Tensor, x: Tensor) -> float | Tensor:
    return radius.view(-1, *[1] * (x.ndim - 1)) if isinstance(radius, Tensor) else radius


def _length(delta: Tensor) -> Tensor:
    """Euclidean length of each image, shaped to broadcast over it."""
    return delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.ndim - 1))
