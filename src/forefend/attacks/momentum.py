"""Momentum attacks for transfer: MI-FGSM, with diverse inputs (DI) or translation-invariant gradients (TI)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.attacks.base import Iterative, State, StepSizeField, ThreatField, input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.formatting import format_radius
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

InputTransform = Callable[[Tensor, KeyedRNG], Tensor]
GradientFilter = Callable[[Tensor], Tensor]


@labeled("as_it_is")
def unchanged_input(x: Tensor, rng: KeyedRNG) -> Tensor:
    """Return the image unchanged."""
    return x


@labeled("unfiltered")
def unchanged_gradient(gradient: Tensor) -> Tensor:
    """Return the gradient unchanged."""
    return gradient


@dataclass(frozen=True)
class DiverseInput:
    """Shrink some images at random and pad them with zeros at random, differentiably.

    Args:
        chance: probability that an image is shrunk, in [0, 1].
        least: smallest size as a share of the image's, in (0, 1]; sizes are uniform from there to below full.

    Source: Xie et al., 1803.06978. The paper enlarges from 299 to 330 pixels; shrinking keeps the size that a
    classifier expects, as in later implementations.
    """

    chance: float = 0.5
    least: float = 0.9

    def __post_init__(self) -> None:
        if not (0 <= self.chance <= 1 and 0 < self.least <= 1):
            raise InputError(
                f"DiverseInput has chance {self.chance:g} and least {self.least:g}: "
                "give a chance in [0, 1] and a size in (0, 1]."
            )

    def __str__(self) -> str:
        return f"diverse {self.chance:g} from {self.least:g}"

    def __call__(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Return images of the same size, `(B, C, H, W)`."""
        u = rng.uniform(torch.empty(len(x), 4, device=x.device))
        rows, columns = (_shrinking(n, self.least, u[:, 1], u[:, 2 + i]) for i, n in enumerate(x.shape[2:]))
        shrunk = rows[:, None].to(x.dtype) @ x @ columns[:, None].mT.to(x.dtype)
        return torch.where((u[:, 0] < self.chance)[:, None, None, None], shrunk, x)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur the gradient with a Gaussian kernel, which approximates attacking shifted copies of the image.

    Args:
        size: width of the kernel in pixels, odd.
        reach: standard deviations from the middle of the kernel to its edge.

    Source: Dong et al., 1904.02884, Eq. 7, padded with zeros.
    """

    size: int = 15
    reach: float = 3

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0 or not 0 < self.reach < float("inf"):
            raise InputError(
                f"GaussianBlur has size {self.size} and reach {self.reach:g}: give an odd size and a reach above 0."
            )

    def __str__(self) -> str:
        return f"Gaussian {self.size} to {self.reach:g}"

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the blurred gradient, `(B, C, H, W)`."""
        # A Gaussian kernel is separable: 30 products a pixel instead of 225.
        places = torch.linspace(-self.reach, self.reach, self.size, dtype=torch.float64, device=gradient.device)
        weights = (-places.square() / 2).softmax(0).to(gradient.dtype)
        planes = gradient.flatten(0, 1)[:, None]
        for kernel in (weights.view(1, 1, -1, 1), weights.view(1, 1, 1, -1)):
            planes = F.conv2d(planes, kernel, padding="same")
        return planes.reshape(gradient.shape)


@dataclass(frozen=True, repr=False)
class Momentum(Iterative):
    """Steps along a running sum of gradients, each scaled to a mean absolute value of one, from the clean image.

    Args:
        threat: threat model, by name or as an object.
        steps: number of gradient steps, at least one.
        step_size: length of a step in the threat model's norm, a number or `(B,)`; None means 2.5 radii / steps.
        decay: factor of the sum at each step, at least 0.
        loss: loss to maximize, `(prediction, target) -> (B,)`.
        input_transform: `(x_adv, rng) -> x`, applied before the classifier: unchanged_input or DiverseInput(…).
        gradient_filter: applied to the gradient before scaling: unchanged_gradient or GaussianBlur(…).

    Raises:
        InputError: the number of steps is below one or the decay below zero.

    Source: Dong et al., 1710.06081, Algorithm 1.
    """

    threat: ThreatField[ThreatModel] = ThreatField()
    steps: int = 20
    step_size: StepSizeField = StepSizeField()
    decay: float = 1.0
    loss: Loss = ce
    input_transform: InputTransform = unchanged_input
    gradient_filter: GradientFilter = unchanged_gradient

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.decay < float("inf"):
            raise InputError(
                f"Momentum has {self.steps} steps and decay {self.decay:g}: give at least 1 and at least 0."
            )

    def __str__(self) -> str:
        names = (
            f"loss={label_of(self.loss)}, shown={label_of(self.input_transform)}, "
            f"smooth={label_of(self.gradient_filter)}"
        )
        size = format_radius(self.step_size)
        return f"Momentum-{self.steps}({self.threat}, step={size}, decay={self.decay:g}, {names})"

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the clean image and an empty sum."""
        return {"x_adv": x, "sum": torch.zeros_like(x)}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take a step along the sum of gradients."""
        x_adv = state["x_adv"]

        def shown(images: Tensor) -> Any:
            return f(self.input_transform(images, rng))

        gradient = input_gradient(shown, x_adv, target, self.loss, attack=self, index=rng.index)
        gradient = self.gradient_filter(gradient)
        scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        total = self.decay * state["sum"] + gradient / scale
        return {"x_adv": self.threat.project(x_adv + self.threat.step(total, self.step_size), x), "sum": total}


def mi_fgsm(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None, decay: float = 1.0) -> Momentum:
    """Return the momentum iterative method (Dong et al., 1710.06081)."""
    return Momentum(threat, steps, step_size, decay)


def di_fgsm(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None, decay: float = 0.0) -> Momentum:
    """Return the diverse inputs method (Xie et al., 1803.06978); with decay 1 it is their M-DI²-FGSM."""
    return Momentum(threat, steps, step_size, decay, input_transform=DiverseInput())


def ti_bim(threat: ThreatModel | str, steps: int = 40, step_size: float | None = 0.007) -> Momentum:
    """Return the translation-invariant basic iterative method (Dong et al., 1904.02884) with JATP's settings.

    No momentum, no diverse inputs, and a 15 × 15 Gaussian kernel of three standard deviations.
    """
    return Momentum(threat, steps, step_size, decay=0.0, gradient_filter=GaussianBlur())


def _shrinking(pixels: int, least: float, size: Tensor, offset: Tensor) -> Tensor:
    """Return matrices that shrink a line of pixels bilinearly and pad it with zeros, `(B, pixels, pixels)` float64.

    Matrices allow a different size for each image, and their gradient is deterministic on a GPU.
    `size` and `offset` are uniform in [0, 1), `(B,)`.
    """
    smallest = max(int(least * pixels), 1)
    kept = (smallest + (size.double() * (pixels - smallest)).floor())[:, None]
    first = (offset.double()[:, None] * (pixels - kept + 1)).floor()
    place = torch.arange(pixels, dtype=torch.float64, device=size.device)
    source = (place - first + 0.5) * pixels / kept - 0.5
    inside = (place >= first) & (place < first + kept)
    weights = 1 - (source.clamp(0, pixels - 1)[:, :, None] - place).abs()
    return weights.clamp_min(0) * inside[:, :, None]
