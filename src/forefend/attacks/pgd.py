"""Projected gradient descent, and its one-step form FGSM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import InputError
from ..draw import Draw
from ..losses import Loss, ce, name_of
from ..modes import borrowed
from ..threat import ThreatModel, write_radius


@dataclass(frozen=True, repr=False)
class PGD:
    """Steps along the gradient's sign (l∞) or direction (l2), each projected back into the threat model.

    Args:
        threat: where the attack must stay.
        steps: number of gradient steps, at least one.
        step_size: length of a step in the threat model's norm, [0, 1]-pixel units.
        loss: what to maximise, `(prediction, target) -> (B,)`.
        random_start: begin at a random allowed image rather than at x.

    Source: Madry et al., 1706.06083. The result is the last iterate, as in the papers.
    """

    threat: ThreatModel
    steps: int
    step_size: float
    loss: Loss = ce
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"PGD with {self.steps} steps does nothing: give at least 1.")

    def __str__(self) -> str:
        start = "random" if self.random_start else "x"
        return (
            f"PGD-{self.steps}({self.threat}, step={write_radius(self.step_size)}, "
            f"loss={name_of(self.loss)}, start={start})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, draw: Draw) -> Tensor:
        """Adversarial images, the last iterate.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            draw: where the random start comes from.
        """
        x_adv = self.threat.noise(x, draw) if self.random_start else x
        with borrowed(f):
            for _ in range(self.steps):
                gradient = input_gradient(f, x_adv, target, self.loss)
                x_adv = self.threat.project(x_adv + self.threat.step(gradient, self.step_size), x)
        return x_adv.detach()


def fgsm(threat: ThreatModel, loss: Loss = ce) -> PGD:
    """The fast gradient sign method: one step of the full radius from x itself (Goodfellow et al., 1412.6572)."""
    return PGD(threat, steps=1, step_size=threat.radius, loss=loss, random_start=False)


def input_gradient(f: Callable[[Tensor], Any], x: Tensor, target: Any, loss: Loss) -> Tensor:
    """Gradient of each image's loss with respect to that image, shaped like `x`.

    The losses are summed, so that each image's gradient is its own and no other tensor collects one.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(f(x), target).sum()
    return torch.autograd.grad(total, x)[0]
