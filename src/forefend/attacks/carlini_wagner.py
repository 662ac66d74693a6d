"""Carlini and Wagner's l2 attack: the nearest misclassified image, by Adam and a search for the weight of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.losses import margin
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2

# The original keeps tanh this far from ±1, where its inverse is infinite.
_INSIDE = 1 - 1e-6


@dataclass(frozen=True, repr=False)
class CarliniWagner:
    """Minimize ‖δ‖² + c · max(0, κ − margin) over images written as tanh, each image with a c of its own.

    A minimum-norm attack: it returns the nearest lost image it met, and x itself where that lies outside the threat
    model or none was met. Nothing is drawn. The margin pursues the class that leads in logits, so that among several
    classes the one found need not be the nearest, by some percent even on a linear classifier.

    Args:
        threat: the l2 radius at which it is judged.
        searches: how often c is chosen: tenfold until an image is lost, then by bisection.
        iterations: Adam's steps for each c, always from x.
        lr: Adam's learning rate, in tanh space.
        weight: the first c.
        confidence: κ, the margin in logits that a lost image must exceed.
        checks: how often in each run an image is asked whether its loss still falls, by one part in ten thousand;
            where it does not, that image's run is over. The original asks this of the batch's sum. 0 never asks.

    Source: Carlini and Wagner, 1608.04644, sections V and VI, with f6 and the change of variable of section V-B.
    """

    threat: ThreatModel
    searches: int = 9
    iterations: int = 1000
    lr: float = 0.01
    weight: float = 1e-2
    confidence: float = 0.0
    checks: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.threat, L2):
            raise InputError(f"Carlini and Wagner's attack is in l2 and cannot be judged in {self.threat}: give an L2.")
        if min(self.searches, self.iterations) < 1:
            raise InputError(
                f"Carlini and Wagner's attack with {self.searches} searches of {self.iterations} iterations does "
                "nothing: give at least 1 of each."
            )
        if not (self.lr > 0 and self.weight > 0):
            raise InputError(
                f"Carlini and Wagner's attack with lr {self.lr:g} and weight {self.weight:g} finds nothing: "
                "give both above 0."
            )

    def __str__(self) -> str:
        return (
            f"CW-{self.searches}x{self.iterations}({self.threat}, lr={self.lr!r}, c={self.weight!r}, "
            f"confidence={self.confidence!r}, checks={self.checks})"
        )

    @property
    def steps(self) -> int:
        """Gradient evaluations an image costs at most."""
        return self.searches * self.iterations

    def __call__(self, f: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        """The nearest lost images that the threat model allows, else x.

        Args:
            f: what the attacker sees, images to logits; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: labels, `(B,)`.
            rng: not used.
        """
        best = _Best(x)
        c = _Bisection(torch.full_like(best.distance, self.weight))
        with eval_and_no_grad(f):
            for _ in range(self.searches):
                c.learn(self._descend(f, x, target, c.weight, best))
        return torch.where(_over(self.threat.allows(best.x_adv, x), x), best.x_adv, x)

    def _descend(self, f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, c: Tensor, best: _Best) -> Tensor:
        """One run of Adam for one c an image; which images were lost on the way, `(B,)` bool."""
        w = ((2 * x - 1) * _INSIDE).atanh()
        start = w.tanh()
        adam = torch.optim.Adam([w], lr=self.lr)
        progress = _Progress(c, self.iterations // self.checks if self.checks else 0)
        lost = torch.zeros_like(c, dtype=torch.bool)
        for iteration in range(self.iterations):
            t = w.tanh()
            x_adv = (x + (t - start) / 2).clamp(0, 1)  # a pixel that did not move is exactly x's
            hinge, gap, gradient = self._hinge(f, x_adv, y)
            distance = (x_adv - x).square().flatten(1).sum(1)
            fallen = (gap > self.confidence) & progress.running
            best.keep(x_adv, distance, fallen)
            lost |= fallen
            if progress.over(iteration, distance + c * hinge):
                break
            w.grad = (2 * (x_adv - x) + _over(c, x) * gradient) * (1 - t.square()) / 2
            adam.step()
        return lost

    def _hinge(self, f: Callable[[Tensor], Tensor], x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """max(0, κ − margin) and the margin, `(B,)` each, and the first one's gradient with respect to the image."""
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            gap = margin(f(x_adv), y)
            hinge = (self.confidence - gap).clamp_min(0)
            gradient = torch.autograd.grad(hinge.sum(), x_adv)[0]
        return hinge.detach(), gap.detach(), gradient


def carlini_wagner(threat: ThreatModel) -> CarliniWagner:
    """The attack as strong as its authors mean it: nine values of c, a thousand small steps for each."""
    return CarliniWagner(threat)


def weak_carlini_wagner(threat: ThreatModel) -> CarliniWagner:
    """The attack as AAA ran it, weak: one c of 100, and a hundred steps of 10 in tanh space, which overshoot.

    Its few successes are no evidence of robustness; it is here to compare with that paper's tables. There an image
    counts as lost within `L2(3)`.

    Source: AAA, 1909.05921, section 5, "c = 100 as Defense-GAN", whose code takes cleverhans' other defaults.
    """
    return CarliniWagner(threat, searches=1, iterations=100, lr=10.0, weight=100.0, checks=10)


@final
class _Best:
    """The nearest lost image met so far, for each image."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.distance = torch.full_like(x[:, 0, 0, 0], float("inf"))  # squared

    def keep(self, x_adv: Tensor, distance: Tensor, lost: Tensor) -> None:
        """Take those of `x_adv` that are lost and nearer."""
        nearer = lost & (distance < self.distance)
        self.distance = torch.where(nearer, distance, self.distance)
        self.x_adv = torch.where(_over(nearer, x_adv), x_adv, self.x_adv)


@final
class _Bisection:
    """The weight c of each image, `(B,)`, between the largest that failed and the smallest that succeeded."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.lower, self.upper = torch.zeros_like(weight), torch.full_like(weight, float("inf"))

    def learn(self, lost: Tensor) -> None:
        """Choose the next weights, given which images the last ones lost."""
        self.upper = torch.where(lost, self.weight, self.upper)
        self.lower = torch.where(lost, self.lower, self.weight)
        middle = (self.lower + self.upper) / 2
        self.weight = torch.where(self.upper.isinf(), 10 * self.weight, middle)


@final
class _Progress:
    """Which images' loss still falls, `(B,)` bool; asked each `every` iterations, never if that is 0."""

    def __init__(self, like: Tensor, every: int) -> None:
        self.running = torch.ones_like(like, dtype=torch.bool)
        self.before = torch.full_like(like, float("inf"))
        self.every = every

    def over(self, iteration: int, loss: Tensor) -> bool:
        """Whether no image runs any more."""
        if self.every and iteration % self.every == 0:
            self.running &= loss <= 0.9999 * self.before
            self.before = loss
        return not bool(self.running.any())


def _over(values: Tensor, x: Tensor) -> Tensor:
    """One value an image, shaped to broadcast over the images."""
    return values.view(-1, *[1] * (x.ndim - 1))
