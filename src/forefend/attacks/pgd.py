"""Projected gradient descent, and its one-step form FGSM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forefend.attacks.base import Iterative, State, StepSizeField, ThreatField, input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.formatting import format_radius
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_model

Start = Callable[[ThreatModel, Tensor, KeyedRNG], Tensor]


@labeled("random_start")
def random_start(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at a random image of the threat model, as Madry et al. do."""
    return threat.noise(x, rng)


@labeled("from_x")
def from_x(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at the clean image."""
    return x


@labeled("small_noise")
def small_noise(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at the clean image plus 0.001 times standard normal noise, as TRADES and MART do."""
    return threat.project(x + 0.001 * rng.normal(x), x)


@labeled("noise_corner")
def noise_corner(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at projected standard normal noise, in l∞ near a corner of the ball, as NRP does."""
    return threat.project(rng.normal(x), x)


@dataclass(frozen=True, repr=False)
class PGD(Iterative):
    """Projected gradient descent: steps along the gradient's sign (l∞) or direction (l2), each projected.

    Args:
        threat: threat model, by name or as an object.
        steps: number of gradient steps, at least one.
        step_size: length of a step in the threat model's norm, a number or `(B,)`; None means 2.5 radii / steps.
        loss: loss to maximize, `(prediction, target) -> (B,)`.
        start: first iterate, `(threat, x, rng) -> x_adv`: random_start, from_x, small_noise or noise_corner.

    Raises:
        InputError: the number of steps is below one.

    Source: Madry et al., 1706.06083. The result is the last iterate, as in the paper.

    Example:
        >>> import torch
        >>> from forefend.attacks import PGD
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
        >>> attack = PGD("Linf:8/255", steps=20)
        >>> x_adv = attack(model, x, y)
        >>> bool(attack.threat.allows(x_adv, x).all())
        True
    """

    threat: ThreatField[ThreatModel] = ThreatField()
    steps: int = 20
    step_size: StepSizeField = StepSizeField()
    loss: Loss = ce
    start: Start = random_start

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"PGD has {self.steps} steps: give at least 1.")

    def __str__(self) -> str:
        return (
            f"PGD-{self.steps}({self.threat}, step={format_radius(self.step_size)}, "
            f"loss={label_of(self.loss)}, start={label_of(self.start)})"
        )

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the start."""
        return {"x_adv": self.start(self.threat, x, rng)}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take a projected gradient step."""
        x_adv = state["x_adv"]
        gradient = input_gradient(f, x_adv, target, self.loss, attack=self, index=rng.index)
        return {"x_adv": self.threat.project(x_adv + self.threat.step(gradient, self.step_size), x)}


def fgsm(threat: ThreatModel | str, loss: Loss = ce) -> PGD:
    """Return the fast gradient sign method: one step of the full radius from the clean image.

    Source: Goodfellow et al., 1412.6572.

    Example:
        >>> import torch
        >>> from forefend.attacks import fgsm
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> x_adv = fgsm("Linf:0.1")(model, x, torch.tensor([1]))
        >>> (x_adv - x).abs().flatten()
        tensor([0.1000, 0.1000, 0.1000, 0.1000])
    """
    threat = as_threat_model(threat)
    return PGD(threat, steps=1, step_size=threat.radius, loss=loss, start=from_x)
