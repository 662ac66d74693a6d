"""Attacks that move mass between pixels: projected gradient and Frank-Wolfe, both on couplings.

No pixel may exceed 1. Both attacks keep a penalty for each pixel, which rises while the pixel is too full and makes
moves into it less attractive; the rest is moved back at the end. Where no pixel fills up, all penalties are zero and
the attacks are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import ThreatField, attacking, input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG, as_rng
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
Repair = Callable[[Tensor, Tensor], Tensor]

# A float32 image is rounded by up to 6e-8 of its mass, and the budget must cover the rounding.
_MARGIN = 1e-6


# How fast the penalty of a full pixel rises, relative to the step that would empty it (projected) or to a gradient of 1
# (Frank-Wolfe). Tuned on linear models whose optimum a linear program gives.
_PROJECTED_PACE = 3.0
_FRANK_WOLFE_PACE = 0.3
_HALVINGS = 16


@labeled("at_x")
def at_x(threat: Wasserstein, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start with the coupling that moves no mass."""
    return identity_coupling(x, threat.window)


@labeled("at_random")
def at_random(threat: Wasserstein, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start with every pixel sending the same share of its mass to a random place, up to the radius."""
    return scale_to_budget(random_moves(x, threat.window, rng), x, threat.budget(x))


@dataclass(frozen=True, repr=False)
class ProjectedWasserstein:
    """Steps along the coupling's gradient, each projected onto the couplings within the radius.

    Args:
        threat: Wasserstein threat model, by name or as an object.
        steps: number of gradient steps, at least one.
        step_size: change of the coupling at its largest gradient entry, in units of mass (a white pixel has 1);
            JATP uses 0.01 for CIFAR-10; on MNIST 0.1 is stronger.
        loss: loss to maximize, `(prediction, target) -> (B,)`.
        start: first coupling, `(threat, x, rng) -> coupling`: at_x or at_random.

    Source: Wong et al., 1902.07906, with the exact Euclidean projection by its dual of Wu et al., 2008.02883, whose
    images may exceed 1.
    """

    threat: ThreatField[Wasserstein] = ThreatField(Wasserstein)
    steps: int = 20
    step_size: float = 0.01
    loss: Loss = ce
    start: Start = at_x

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"ProjectedWasserstein has {self.steps} steps: give at least 1.")

    def __str__(self) -> str:
        return (
            f"ProjectedWasserstein-{self.steps}({self.threat}, step={self.step_size:g}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG | None = None) -> Tensor:
        """Attack a batch as `Iterative.__call__`; the images have the mass of the clean ones."""
        rng = as_rng(rng, x, str(self))
        coupling, budget = self.start(self.threat, x, rng), self.threat.budget(x)
        window, penalty = self.threat.window, torch.zeros_like(x)
        sources = apply_coupling(valid_offsets(x, window).to(x.dtype).expand_as(coupling), x)
        with attacking(f, x, target, self.loss) as (f, x, target):
            for _ in range(self.steps):
                direction = _scaled_gradient(self, f, coupling, x, target, rng)
                coupling = projected(coupling + self.step_size * direction - gather_windows(penalty, window), x, budget)
                penalty = (penalty + _PROJECTED_PACE * (apply_coupling(coupling, x) - 1) / sources).clamp_min(0)
        return _image(coupling, x, budget)


@dataclass(frozen=True, repr=False)
class FrankWolfeWasserstein:
    """Steps towards the coupling that maximizes a linear model of the loss with entropy regularization.

    Args:
        threat: Wasserstein threat model, by name or as an object.
        steps: number of gradient steps, at least one.
        entropy: weight of the entropy for a gradient whose largest entry is 1, above 0; 0.001 as published.
        loss: loss to maximize, `(prediction, target) -> (B,)`.
        start: first coupling, `(threat, x, rng) -> coupling`: at_x or at_random.

    Source: Wu et al., 2008.02883, whose images may exceed 1; step t has size 2 / (t + 2). Gradients are scaled to 1
    first, so that `entropy` means the same for every classifier.
    """

    threat: ThreatField[Wasserstein] = ThreatField(Wasserstein)
    steps: int = 20
    entropy: float = 1e-3
    loss: Loss = ce
    start: Start = at_x

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"FrankWolfeWasserstein has {self.steps} steps: give at least 1.")
        if not 0 < self.entropy < float("inf"):
            raise InputError(f"The entropy weight is {self.entropy}: give one above 0, such as 0.001.")

    def __str__(self) -> str:
        return (
            f"FrankWolfeWasserstein-{self.steps}({self.threat}, entropy={self.entropy:g}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG | None = None) -> Tensor:
        """Attack a batch as `Iterative.__call__`; the images have the mass of the clean ones."""
        rng = as_rng(rng, x, str(self))
        coupling, budget = self.start(self.threat, x, rng), self.threat.budget(x)
        penalty = torch.zeros_like(x)
        with attacking(f, x, target, self.loss) as (f, x, target):
            for t in range(self.steps):
                over = apply_coupling(coupling, x) - 1
                penalty = (penalty + _FRANK_WOLFE_PACE * over).clamp_min(0)
                price = gather_windows((penalty + over).clamp_min(0), self.threat.window)
                direction = _scaled_gradient(self, f, coupling, x, target, rng) - price
                best = maximizer(direction, x, budget, self.entropy)
                coupling = coupling + 2 / (t + 2) * (best - coupling)
        return _image(coupling, x, budget)


def unchanged(coupling: Tensor, x: Tensor) -> Tensor:
    """Return the coupling unchanged, so that pixels may exceed 1 as in the published attacks."""
    return coupling


def projected(
    coupling: Tensor, x: Tensor, budget: Tensor, *, repair: Repair = unchanged, halvings: int = _HALVINGS
) -> Tensor:
    """Return the nearest coupling in Euclidean distance with the mass of `x` and a cost of at most `budget`.

    For a given price of cost, each pixel's column is projected onto its own simplex; bisection finds the price.

    Args:
        coupling: any numbers, `(B, C, K, P)`; moves that leave the image are ignored.
        x: the clean images, `(B, C, H, W)`.
        budget: `(B,)`, mass times pixels.
        repair: applied to a coupling before its cost is computed, `(coupling, x) -> coupling`: unchanged, or
            project_to_box, whose result spends the budget but is not the nearest.
        halvings: number of bisection steps.

    Source: Wu et al., 2008.02883.
    """
    window, has = round(coupling.shape[2] ** 0.5), x.flatten(2).unsqueeze(2)
    length = offset_lengths(window, x)
    wanted = coupling.masked_fill(~valid_offsets(x, window), float("-inf"))
    stay = wanted[:, :, [window**2 // 2]]
    # From this price on, no mass moves.
    highest = ((has + wanted - stay) / length.clamp_min(1)).flatten(1).amax(1).clamp_min(0)

    def at(price: Tensor) -> Tensor:
        return repair(_on_simplex(wanted - price.view(-1, 1, 1, 1) * length, has), x)

    return solve_for_budget(at, budget, highest, halvings=halvings)


def maximizer(gradient: Tensor, x: Tensor, budget: Tensor, entropy: float, halvings: int = _HALVINGS) -> Tensor:
    """Return the coupling within `budget` of largest inner product with `gradient` plus entropy.

    Args:
        gradient: `(B, C, K, P)`.
        x: the clean images, `(B, C, H, W)`.
        budget: `(B,)`, mass times pixels.
        entropy: weight of the entropy, above 0.
        halvings: number of bisection steps.

    Source: Wu et al., 2008.02883: x · softmax((gradient − price · length) / entropy), at the price that spends
    the budget.
    """
    window, has = round(gradient.shape[2] ** 0.5), x.flatten(2).unsqueeze(2)
    length = offset_lengths(window, x)
    gain = gradient.masked_fill(~valid_offsets(x, window), float("-inf"))
    # No move gains more than this; adding 50 entropies leaves e⁻⁵⁰ of the mass moving.
    highest = 2 * gradient.abs().flatten(1).amax(1) + 50 * entropy

    def at(price: Tensor) -> Tensor:
        return has * ((gain - price.view(-1, 1, 1, 1) * length) / entropy).softmax(2)

    return solve_for_budget(at, budget, highest, halvings=halvings)


def _on_simplex(wanted: Tensor, has: Tensor) -> Tensor:
    """Return the nearest non-negative numbers to each column of `wanted` that sum to `has`, by Newton's method.

    `wanted` is lowered by θ and cut at zero. The sum is convex in θ, so steps from the left do not overshoot.
    """
    theta = wanted.amax(2, keepdim=True) - has
    for _ in range(wanted.shape[2]):
        left = (wanted - theta).clamp_min(0)
        step = (left.sum(2, keepdim=True) - has) / (left > 0).sum(2, keepdim=True).clamp_min(1)
        theta = theta + step.clamp_min(0)
        if not bool((step > 4 * torch.finfo(step.dtype).eps).any()):
            break
    return (wanted - theta).clamp_min(0)


def _scaled_gradient(
    attack: ProjectedWasserstein | FrankWolfeWasserstein,
    f: Callable[[Tensor], Any],
    coupling: Tensor,
    x: Tensor,
    target: Any,
    rng: KeyedRNG,
) -> Tensor:
    """Return the loss gradient of the coupling, divided by the largest entry of the image gradient."""
    x_adv = apply_coupling(coupling, x).clamp(0, 1)
    gradient = input_gradient(f, x_adv, target, attack.loss, attack=attack, index=rng.index)
    largest = gradient.abs().flatten(1).amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gather_windows(gradient / largest.view(-1, 1, 1, 1), round(coupling.shape[2] ** 0.5))


def _image(coupling: Tensor, x: Tensor, budget: Tensor) -> Tensor:
    """Return the image of a coupling, within budget and [0, 1] and of equal mass; float64 until the end."""
    boxed = projected(coupling, x, budget, repair=project_to_box).double()
    x64 = x.double()
    coupling = scale_to_budget(boxed, x64, budget.double() * (1 - _MARGIN))
    # The first project_to_box ran in float32; a clamp alone would lose the mass of its rounding.
    return apply_coupling(project_to_box(coupling, x64), x64).clamp(0, 1).to(x.dtype)
