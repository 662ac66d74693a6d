"""Carlini and Wagner's l2 attack: the nearest misclassified image, by Adam and a search over the loss weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from forefend.attacks.base import ThreatField, attacking, loss_and_gradient
from forefend.checks import InputError
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image
from forefend.threat_models.lp import L2

# Keeps tanh away from ±1, where its inverse is infinite, by the authors' factor.
_INSIDE = 1 - 1e-6


@dataclass(frozen=True, repr=False)
class CarliniWagner:
    """Minimize ‖δ‖² + c · max(0, κ − margin) over images written as tanh, with a separate c for each image.

    A minimum-norm attack without randomness: it returns the nearest adversarial image found, or x where that image is
    outside the threat model or none was found. The margin targets the class of highest logit, so among several classes
    the result can be some percent farther than the nearest adversarial image, even for a linear classifier.

    Args:
        threat: `L2` threat model, by name or as an object.
        searches: number of values of c: times ten until an image is adversarial, then by bisection.
        iterations: steps of Adam for each c, always from x.
        lr: learning rate of Adam, in tanh space.
        weight: first value of c.
        confidence: κ, the margin in logits that an adversarial image must exceed.
        checks: number of times in each run that an image is checked for progress; it stops where its loss fell by less
            than one part in ten thousand. The authors check the sum over the batch. 0 disables the check.

    Raises:
        InputError: another threat model, or a setting out of range.

    Source: Carlini and Wagner, 1608.04644, sections V and VI, with f6 and the change of variable of section V-B.
    """

    threat: ThreatField[L2] = ThreatField(L2)
    searches: int = 9
    iterations: int = 1000
    lr: float = 0.01
    weight: float = 1e-2
    confidence: float = 0.0
    checks: int = 0

    def __post_init__(self) -> None:
        if min(self.searches, self.iterations) < 1:
            raise InputError(
                f"CarliniWagner has {self.searches} searches of {self.iterations} iterations: give at least 1 of each."
            )
        if not (self.lr > 0 and self.weight > 0):
            raise InputError(f"CarliniWagner has lr {self.lr:g} and weight {self.weight:g}: give both above 0.")

    def __str__(self) -> str:
        return (
            f"CW-{self.searches}x{self.iterations}({self.threat}, lr={self.lr!r}, c={self.weight!r}, "
            f"confidence={self.confidence!r}, checks={self.checks})"
        )

    @property
    def steps(self) -> int:
        """Maximum number of gradient evaluations for an image."""
        return self.searches * self.iterations

    def __call__(
        self, f: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, *, rng: KeyedRNG | None = None
    ) -> Tensor:
        """Attack a batch as `Iterative.__call__`, for logits and labels; without adversarial image, x is returned."""
        best = _Best(x)
        c = _Bisection(torch.full_like(best.distance, self.weight))
        index = rng.index if rng else None
        with attacking(f, x, target, margin) as (f, x, target):
            for _ in range(self.searches):
                c.update(self._descend(f, x, target, c.weight, best, index))
        return torch.where(broadcast_per_image(self.threat.allows(best.x_adv, x)), best.x_adv, x)

    def _descend(
        self, f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, c: Tensor, best: _Best, index: Tensor | None
    ) -> Tensor:
        """Run Adam once and return which images became adversarial, `(B,)` bool."""
        w = ((2 * x - 1) * _INSIDE).atanh()
        start = w.tanh()
        adam = torch.optim.Adam([w], lr=self.lr)
        progress = _Progress(c, self.iterations // self.checks if self.checks else 0)
        found = torch.zeros_like(c, dtype=torch.bool)
        for iteration in range(self.iterations):
            t = w.tanh()
            x_adv = (x + (t - start) / 2).clamp(0, 1)  # an unchanged pixel is exactly that of x
            logits, hinge, gradient = loss_and_gradient(f, x_adv, y, self._hinge, attack=self, index=index)
            gap = margin(logits.detach(), y)
            distance = (x_adv - x).square().flatten(1).sum(1)
            is_adv = (gap > self.confidence) & progress.running
            best.update(x_adv, distance, is_adv)
            found |= is_adv
            if progress.all_stopped(iteration, distance + c * hinge):
                break
            w.grad = (2 * (x_adv - x) + broadcast_per_image(c) * gradient) * (1 - t.square()) / 2
            adam.step()
        return found

    def _hinge(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return max(0, κ − margin), `(B,)`."""
        return (self.confidence - margin(logits, y)).clamp_min(0)


def carlini_wagner(threat: ThreatModel | str) -> CarliniWagner:
    """Return the attack with the authors' settings: nine values of c, a thousand steps each."""
    return CarliniWagner(threat)


def cw_single_c100(threat: ThreatModel | str) -> CarliniWagner:
    """Return one reading of AAA's attack: c is 100 and is not searched, with 100 steps of 10 in tanh space.

    The steps overshoot, so a natural classifier keeps almost all images, where the paper prints 0 %.

    Source: AAA, 1909.05921, section 5, "c = 100 as Defense-GAN", whose code sets these values in cleverhans.
    """
    return CarliniWagner(threat, searches=1, iterations=100, lr=10.0, weight=100.0, checks=10)


def cw_search_c100(threat: ThreatModel | str) -> CarliniWagner:
    """Return another reading of AAA's attack: c starts at 100 and is searched nine times, 100 steps of 0.1 each.

    A natural classifier keeps no image, as the paper prints; number and size of the steps are ours.
    """
    return CarliniWagner(threat, searches=9, iterations=100, lr=0.1, weight=100.0)


@final
class _Best:
    """The nearest adversarial image found so far, for each image."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.distance = torch.full_like(x[:, 0, 0, 0], float("inf"))  # squared

    def update(self, x_adv: Tensor, distance: Tensor, is_adv: Tensor) -> None:
        """Keep those of `x_adv` that are adversarial and nearer."""
        nearer = is_adv & (distance < self.distance)
        self.distance = torch.where(nearer, distance, self.distance)
        self.x_adv = torch.where(broadcast_per_image(nearer), x_adv, self.x_adv)


@final
class _Bisection:
    """The weight c of each image, `(B,)`, between the largest failure and the smallest success."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.lower, self.upper = torch.zeros_like(weight), torch.full_like(weight, float("inf"))

    def update(self, is_adv: Tensor) -> None:
        """Choose the next weights from the success of the current ones."""
        self.upper = torch.where(is_adv, self.weight, self.upper)
        self.lower = torch.where(is_adv, self.lower, self.weight)
        middle = (self.lower + self.upper) / 2
        self.weight = torch.where(self.upper.isinf(), 10 * self.weight, middle)


@final
class _Progress:
    """Which images' loss still falls, `(B,)` bool, checked each `every` iterations (0: not checked)."""

    def __init__(self, like: Tensor, every: int) -> None:
        self.running = torch.ones_like(like, dtype=torch.bool)
        self.before = torch.full_like(like, float("inf"))
        self.every = every

    def all_stopped(self, iteration: int, loss: Tensor) -> bool:
        """Return whether no image makes progress."""
        if self.every and iteration % self.every == 0:
            self.running &= loss <= 0.9999 * self.before
            self.before = loss
        return not bool(self.running.any())
