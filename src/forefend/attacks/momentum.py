"""Momentum attacks made to transfer: MI-FGSM, with diverse inputs (DI) or smoothed gradients (TI)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.attacks.base import State, run_attack
from forefend.attacks.pgd import from_x, input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, format_radius

Shown = Callable[[Tensor, KeyedRNG], Tensor]
Filter = Callable[[Tensor], Tensor]


@labeled("as_it_is")
def as_it_is(x: Tensor, rng: KeyedRNG) -> Tensor:
    """Show the classifier the image itself."""
    return x


@labeled("unfiltered")
def unfiltered(gradient: Tensor) -> Tensor:
    """Follow the gradient itself."""
    return gradient


@dataclass(frozen=True)
class Diverse:
    """Show some images shrunk at random and put at random onto black, differentiably.

    Args:
        chance: for each image and step to be shrunk, in [0, 1].
        least: the smallest size, as a share of the image's, in (0, 1]; all sizes from there to below full are equally
            likely.

    Source: Xie et al., 1803.06978. The paper enlarges from 299 to 330 pixels; shrinking keeps the size that a
    classifier expects, as in later implementations.
    """

    chance: float = 0.5
    least: float = 0.9

    def __post_init__(self) -> None:
        if not (0 <= self.chance <= 1 and 0 < self.least <= 1):
            raise InputError(
                f"Diverse(chance={self.chance:g}, least={self.least:g}): the chance must be in [0, 1], "
                "the least size a share in (0, 1]."
            )

    def __str__(self) -> str:
        return f"diverse {self.chance:g} from {self.least:g}"

    def __call__(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Images of the same size, `(B, C, H, W)`."""
        u = rng.uniform(torch.empty(len(x), 4, device=x.device))
        rows, columns = (_shrinking(n, self.least, u[:, 1], u[:, 2 + i]) for i, n in enumerate(x.shape[2:]))
        shrunk = rows[:, None].to(x.dtype) @ x @ columns[:, None].mT.to(x.dtype)
        return torch.where((u[:, 0] < self.chance)[:, None, None, None], shrunk, x)


@dataclass(frozen=True)
class Smoothed:
    """Blur the gradient with a Gaussian, which makes up for attacking shifted copies of the image.

    Args:
        size: pixels along a side of the kernel, odd.
        reach: standard deviations from its middle to its edge.

    Source: Dong et al., 1904.02884, Eq. 7; zeros outside the image.
    """

    size: int = 15
    reach: float = 3

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0 or not 0 < self.reach < float("inf"):
            raise InputError(
                f"Smoothed(size={self.size}, reach={self.reach:g}): the size must be odd, the reach a number above 0."
            )

    def __str__(self) -> str:
        return f"Gaussian {self.size} to {self.reach:g}"

    def __call__(self, gradient: Tensor) -> Tensor:
        """The blurred gradient, `(B, C, H, W)`."""
        # A Gaussian square is a column times a row: 30 products a pixel and not 225.
        places = torch.linspace(-self.reach, self.reach, self.size, dtype=torch.float64, device=gradient.device)
        weights = (-places.square() / 2).softmax(0).to(gradient.dtype)
        planes = gradient.flatten(0, 1)[:, None]
        for kernel in (weights.view(1, 1, -1, 1), weights.view(1, 1, 1, -1)):
            planes = F.conv2d(planes, kernel, padding="same")
        return planes.reshape(gradient.shape)


@dataclass(frozen=True, repr=False)
class Momentum:
    """Steps along a running sum of gradients, each scaled to a mean absolute value of one; starts at x itself.

    Args:
        threat: where the attack must stay.
        steps: number of gradient steps, at least one.
        step_size: length of a step in the threat model's norm, [0, 1]-pixel units; inside recipes also `(B,)`.
        decay: what is kept of the sum at each step, at least 0; 0 is no momentum.
        loss: what to maximize, `(prediction, target) -> (B,)`.
        shown: what the classifier sees of the image, `(x_adv, draw) -> x`: as_it_is or Diverse(…).
        smooth: what becomes of the gradient before it is scaled: unfiltered or Smoothed(…).

    Source: Dong et al., 1710.06081, Algorithm 1.
    """

    threat: ThreatModel
    steps: int
    step_size: float | Tensor
    decay: float = 1.0
    loss: Loss = ce
    shown: Shown = as_it_is
    smooth: Filter = unfiltered

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.decay < float("inf"):
            raise InputError(f"Momentum with {self.steps} steps, decay {self.decay:g}: give at least 1 and at least 0.")

    def __str__(self) -> str:
        names = ", ".join(f"{field}={label_of(getattr(self, field))}" for field in ("loss", "shown", "smooth"))
        size = format_radius(self.step_size)
        return f"Momentum-{self.steps}({self.threat}, step={size}, decay={self.decay:g}, {names})"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images, the last iterate.

        Args:
            f: what the attacker sees, for transfer a surrogate; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where diverse inputs come from.
        """
        return run_attack(self, f, x, target, rng)

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """The clean image, and no gradient yet."""
        return {"x_adv": from_x(self.threat, x, rng), "sum": torch.zeros_like(x)}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """A gradient into the sum, a step along the sum."""
        x_adv = state["x_adv"]
        gradient = self.smooth(input_gradient(lambda seen: f(self.shown(seen, rng)), x_adv, target, self.loss))
        scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        total = self.decay * state["sum"] + gradient / scale
        return {"x_adv": self.threat.project(x_adv + self.threat.step(total, self.step_size), x), "sum": total}

    def finish(self, state: State) -> Tensor:
        """The last iterate."""
        return state["x_adv"]


def mi_fgsm(threat: ThreatModel, steps: int, step_size: float, decay: float = 1.0) -> Momentum:
    """The momentum iterative method (Dong et al., 1710.06081)."""
    return Momentum(threat, steps, step_size, decay)


def di_fgsm(threat: ThreatModel, steps: int, step_size: float, decay: float = 0.0) -> Momentum:
    """The diverse inputs method (Xie et al., 1803.06978); with decay 1 it is their M-DI²-FGSM."""
    return Momentum(threat, steps, step_size, decay, shown=Diverse())


def ti_bim(threat: ThreatModel, steps: int = 40, step_size: float = 0.007) -> Momentum:
    """The translation-invariant basic iterative method (Dong et al., 1904.02884), set as JATP's code sets it.

    No momentum, no diverse inputs, a 15 × 15 Gaussian kernel that reaches to three standard deviations.
    """
    return Momentum(threat, steps, step_size, decay=0.0, smooth=Smoothed())


def _shrinking(pixels: int, least: float, size: Tensor, offset: Tensor) -> Tensor:
    """Bilinear shrinking of a line of pixels onto a black line of the same length, `(B, pixels, pixels)` float64.

    As a matrix, because images of one batch shrink to different sizes, and its gradient is the same each time on a GPU.

    Args:
        pixels: length of the line.
        least: the smallest size, as a share.
        size: which size, `(B,)` in [0, 1).
        offset: which place, `(B,)` in [0, 1).
    """
    smallest = max(int(least * pixels), 1)
    kept = (smallest + (size.double() * (pixels - smallest)).floor())[:, None]
    first = (offset.double()[:, None] * (pixels - kept + 1)).floor()
    place = torch.arange(pixels, dtype=torch.float64, device=size.device)
    source = (place - first + 0.5) * pixels / kept - 0.5
    inside = (place >= first) & (place < first + kept)
    weights = 1 - (source.clamp(0, pixels - 1)[:, :, None] - place).abs()
    return weights.clamp_min(0) * inside[:, :, None]
