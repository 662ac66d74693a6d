"""Attacks that move mass between pixels: projected gradient and Frank-Wolfe, both on couplings.

No pixel may hold more than 1. Both attacks keep a price of room for each pixel, which rises while the pixel is too full
and makes moves into it less attractive; what still is too much at the end goes back to where it came from. Where
no pixel fills up, all prices stay zero and the attacks are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.pgd import input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.transport import (
    apply_coupling,
    gather_windows,
    identity_coupling,
    offset_lengths,
    project_to_box,
    random_moves,
    scale_to_budget,
    solve_for_budget,
    valid_offsets,
)
from forefend.threat_models.wasserstein import Wasserstein

Start = Callable[[Wasserstein, Tensor, KeyedRNG], Tensor]
Mend = Callable[[Tensor, Tensor], Tensor]


# A float32 image is itself rounded, by up to 6e-8 of its mass, and the rounding must be afforded as well.
_MARGIN = 1e-6


# How fast a price of room rises: of the projected attack against the step that would empty the pixel at once, of
# Frank-Wolfe against a gradient of 1. Tried on linear models whose optimum a linear programme knows.
_PROJECTED_PACE = 3.0
_FRANK_WOLFE_PACE = 0.3
_HALVINGS = 16


@labeled("at_x")
def at_x(threat: Wasserstein, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin with the coupling that moves nothing."""
    return identity_coupling(x, threat.window)


@labeled("at_random")
def at_random(threat: Wasserstein, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin with every pixel sending the same share of its mass to a random place, as much as the radius allows."""
    return scale_to_budget(random_moves(x, threat.window, rng), x, threat.budget(x))


@dataclass(frozen=True, repr=False)
class ProjectedWasserstein:
    """Steps along the coupling's gradient, each projected onto the couplings that the radius affords.

    Args:
        threat: how far mass may go.
        steps: number of gradient steps, at least one.
        step_size: how far the coupling's largest gradient entry moves, in units of mass (a white pixel has 1);
            JATP writes 0.01 for CIFAR-10, and on MNIST 0.1 is the stronger.
        loss: what to maximize, `(prediction, target) -> (B,)`.
        start: the first coupling, `(threat, x, draw) -> coupling`: at_x or at_random.

    Source: the idea is Wong et al.'s, 1902.07906; the projection is the exact Euclidean one by its dual, Wu et al.'s,
    2008.02883, whose images may exceed 1.
    """

    threat: Wasserstein
    steps: int
    step_size: float
    loss: Loss = ce
    start: Start = at_x

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"ProjectedWasserstein with {self.steps} steps does nothing: give at least 1.")

    def __str__(self) -> str:
        return (
            f"ProjectedWasserstein-{self.steps}({self.threat}, step={self.step_size:g}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images, the last iterate, in [0, 1] and of the clean images' mass.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where a random start comes from.
        """
        coupling, budget = self.start(self.threat, x, rng), self.threat.budget(x)
        window, room = self.threat.window, torch.zeros_like(x)
        sources = apply_coupling(valid_offsets(x, window).to(x.dtype).expand_as(coupling), x)
        with eval_and_no_grad(f):
            for _ in range(self.steps):
                uphill = _uphill(f, coupling, x, target, self.loss)
                coupling = projected(coupling + self.step_size * uphill - gather_windows(room, window), x, budget)
                room = (room + _PROJECTED_PACE * (apply_coupling(coupling, x) - 1) / sources).clamp_min(0)
        return _image(coupling, x, budget)


@dataclass(frozen=True, repr=False)
class FrankWolfeWasserstein:
    """Steps towards the coupling that a linear model of the loss likes best, softened by entropy.

    Args:
        threat: how far mass may go.
        steps: number of gradient steps, at least one.
        entropy: weight of the entropy beside a gradient whose largest entry is 1; above 0, and 0.001 as published.
        loss: what to maximize, `(prediction, target) -> (B,)`.
        start: the first coupling, `(threat, x, draw) -> coupling`: at_x or at_random.

    Source: Wu et al., 2008.02883, whose images may exceed 1; the step after t others is 2 / (t + 2). Here gradients are
    scaled to 1 first, so that `entropy` means the same for every classifier.
    """

    threat: Wasserstein
    steps: int
    entropy: float = 1e-3
    loss: Loss = ce
    start: Start = at_x

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"FrankWolfeWasserstein with {self.steps} steps does nothing: give at least 1.")
        if not 0 < self.entropy < float("inf"):
            raise InputError(f"An entropy weight of {self.entropy} cannot soften: give one above 0, such as 0.001.")

    def __str__(self) -> str:
        return (
            f"FrankWolfeWasserstein-{self.steps}({self.threat}, entropy={self.entropy:g}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images, the last iterate, in [0, 1] and of the clean images' mass.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where a random start comes from.
        """
        coupling, budget = self.start(self.threat, x, rng), self.threat.budget(x)
        room = torch.zeros_like(x)
        with eval_and_no_grad(f):
            for t in range(self.steps):
                over = apply_coupling(coupling, x) - 1
                room = (room + _FRANK_WOLFE_PACE * over).clamp_min(0)
                price = gather_windows((room + over).clamp_min(0), self.threat.window)
                uphill = _uphill(f, coupling, x, target, self.loss) - price
                best = favored(uphill, x, budget, self.entropy)
                coupling = coupling + 2 / (t + 2) * (best - coupling)
        return _image(coupling, x, budget)


def as_moved(coupling: Tensor, x: Tensor) -> Tensor:
    """Let pixels exceed 1, as the published attacks do."""
    return coupling


def projected(
    coupling: Tensor, x: Tensor, budget: Tensor, *, mend: Mend = as_moved, halvings: int = _HALVINGS
) -> Tensor:
    """The nearest coupling of `x`'s mass whose work is at most `budget`, in Euclidean distance.

    For a price of work, each pixel's column is projected onto its own simplex; the price is found by bisection.

    Args:
        coupling: any numbers, `(B, C, K, P)`; those of moves that leave the image are ignored.
        x: the clean images, `(B, C, H, W)`.
        budget: `(B,)`, mass times pixels.
        mend: what is done to a coupling before its work is counted, `(coupling, x) -> coupling`: as_moved, or
            into_box, with which the result is no longer the nearest, but spends the budget.
        halvings: how often the interval of prices is halved.

    Source: Wu et al., 2008.02883, whose bisection this is.
    """
    window, has = round(coupling.shape[2] ** 0.5), x.flatten(2).unsqueeze(2)
    length = offset_lengths(window, x)
    wanted = coupling.masked_fill(~valid_offsets(x, window), float("-inf"))
    stay = wanted[:, :, [window**2 // 2]]
    # From this price on, staying beats every move by all of the pixel's mass.
    highest = ((has + wanted - stay) / length.clamp_min(1)).flatten(1).amax(1).clamp_min(0)

    def at(price: Tensor) -> Tensor:
        return mend(_on_simplex(wanted - price.view(-1, 1, 1, 1) * length, has), x)

    return solve_for_budget(at, budget, highest, halvings=halvings)


def favored(uphill: Tensor, x: Tensor, budget: Tensor, entropy: float, halvings: int = _HALVINGS) -> Tensor:
    """The coupling with the largest inner product with `uphill`, plus `entropy` times its entropy, within `budget`.

    Args:
        uphill: `(B, C, K, P)`.
        x: the clean images, `(B, C, H, W)`.
        budget: `(B,)`, mass times pixels.
        entropy: its weight, above 0.
        halvings: how often the interval of prices is halved.

    Source: Wu et al., 2008.02883: x · softmax((uphill − price · length) / entropy), at the price that spends
    the budget.
    """
    window, has = round(uphill.shape[2] ** 0.5), x.flatten(2).unsqueeze(2)
    length = offset_lengths(window, x)
    gain = uphill.masked_fill(~valid_offsets(x, window), float("-inf"))
    # No move of one pixel or more gains more than this; 50 entropies on top leave e⁻⁵⁰ of the mass moving.
    highest = 2 * uphill.abs().flatten(1).amax(1) + 50 * entropy

    def at(price: Tensor) -> Tensor:
        return has * ((gain - price.view(-1, 1, 1, 1) * length) / entropy).softmax(2)

    return solve_for_budget(at, budget, highest, halvings=halvings)


def _on_simplex(wanted: Tensor, has: Tensor) -> Tensor:
    """The nearest non-negative numbers to each column of `wanted` that sum to `has`: Newton's method, which is finite.

    All of `wanted` is lowered by θ and cut at zero. The sum is convex in θ: steps from the left never overshoot.
    """
    theta = wanted.amax(2, keepdim=True) - has
    for _ in range(wanted.shape[2]):
        left = (wanted - theta).clamp_min(0)
        step = (left.sum(2, keepdim=True) - has) / (left > 0).sum(2, keepdim=True).clamp_min(1)
        theta = theta + step.clamp_min(0)
        if not bool((step > 4 * torch.finfo(step.dtype).eps).any()):
            break
    return (wanted - theta).clamp_min(0)


def _uphill(f: Callable[[Tensor], Any], coupling: Tensor, x: Tensor, target: Any, loss: Loss) -> Tensor:
    """Gradient of the loss with respect to the coupling, over the image gradient's largest entry."""
    gradient = input_gradient(f, apply_coupling(coupling, x).clamp(0, 1), target, loss)
    largest = gradient.abs().flatten(1).amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gather_windows(gradient / largest.view(-1, 1, 1, 1), round(coupling.shape[2] ** 0.5))


def _image(coupling: Tensor, x: Tensor, budget: Tensor) -> Tensor:
    """The image that a coupling makes: within budget and box, mass conserved, in float64 until the very end."""
    boxed = projected(coupling, x, budget, mend=project_to_box).double()
    x64 = x.double()
    coupling = scale_to_budget(boxed, x64, budget.double() * (1 - _MARGIN))
    # Boxed already, but in float32: a clamp alone would lose the mass of its rounding.
    return apply_coupling(project_to_box(coupling, x64), x64).clamp(0, 1).to(x.dtype)
