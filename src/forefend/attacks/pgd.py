"""Projected gradient descent, and its one-step form FGSM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import State, run_attack
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, format_radius

Start = Callable[[ThreatModel, Tensor, KeyedRNG], Tensor]


@labeled("random_start")
def random_start(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin at a random allowed image, as Madry et al. do."""
    return threat.noise(x, rng)


@labeled("from_x")
def from_x(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin at the clean image itself."""
    return x


@labeled("small_noise")
def small_noise(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin beside the clean image, 0.001 times standard normal noise away, as TRADES and MART do."""
    return threat.project(x + 0.001 * rng.normal(x), x)


@labeled("noise_corner")
def noise_corner(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin at an image of standard normal noise, projected near x: in l∞ almost a corner of the ball, as NRP does."""
    return threat.project(rng.normal(x), x)


@dataclass(frozen=True, repr=False)
class PGD:
    """Steps along the gradient's sign (l∞) or direction (l2), each projected back into the threat model.

    Args:
        threat: where the attack must stay.
        steps: number of gradient steps, at least one.
        step_size: length of a step in the threat model's norm, [0, 1]-pixel units; inside recipes also `(B,)`.
        loss: what to maximize, `(prediction, target) -> (B,)`.
        start: where to begin, `(threat, x, draw) -> x_adv`: random_start, from_x, small_noise or noise_corner.

    Source: Madry et al., 1706.06083. The result is the last iterate, as in the papers.
    """

    threat: ThreatModel
    steps: int
    step_size: float | Tensor
    loss: Loss = ce
    start: Start = random_start

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"PGD with {self.steps} steps does nothing: give at least 1.")

    def __str__(self) -> str:
        return (
            f"PGD-{self.steps}({self.threat}, step={format_radius(self.step_size)}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images, the last iterate.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where the random start comes from.
        """
        return run_attack(self, f, x, target, rng)

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """The start."""
        return {"x_adv": self.start(self.threat, x, rng)}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """A step along the gradient, projected."""
        x_adv = state["x_adv"]
        gradient = input_gradient(f, x_adv, target, self.loss)
        return {"x_adv": self.threat.project(x_adv + self.threat.step(gradient, self.step_size), x)}

    def finish(self, state: State) -> Tensor:
        """The last iterate."""
        return state["x_adv"]


def fgsm(threat: ThreatModel, loss: Loss = ce) -> PGD:
    """The fast gradient sign method: one step of the full radius from x itself (Goodfellow et al., 1412.6572)."""
    return PGD(threat, steps=1, step_size=threat.radius, loss=loss, start=from_x)


def input_gradient(f: Callable[[Tensor], Any], x: Tensor, target: Any, loss: Loss) -> Tensor:
    """Gradient of each image's loss with respect to that image, shaped like `x`.

    The losses are summed, so that each image's gradient is its own and no other tensor collects one.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(f(x), target).sum()
    return torch.autograd.grad(total, x)[0]
