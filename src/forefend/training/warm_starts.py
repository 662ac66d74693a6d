"""Attacks in training that start from what they stored in earlier epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import attacking, input_gradient
from forefend.attacks.pgd import PGD, Start
from forefend.checks import InputError
from forefend.recipes.base import Batch
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel


@dataclass(frozen=True)
class WarmStarted:
    """An attack that starts at stored perturbations, and stores where it ends.

    Args:
        attack: the attack.
        batch: its images.
        stored: perturbations of the stored images in 127ths of the radius, `(N, C, H, W)` int8.
        reset: whether the attack starts as it does by itself.
        noise: half width of noise on the starts in radii.
    """

    attack: PGD
    batch: Batch
    stored: Tensor
    reset: bool
    noise: float

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Return images for training, `(B, C, H, W)`, inside the attack's threat model."""
        stored, augment = self.stored, self.batch.augment
        unit = float(self.attack.threat.radius) / 127
        rows = self.batch.rows.to(stored.device)
        old = stored[rows].to(x.device, x.dtype) * unit
        attack = self.attack if self.reset else replace(self.attack, start=_start_at(augment(old), self.noise))
        x_adv = attack(f, x, target, rng=rng)
        new = undo_augmentation(x_adv - x, old, augment)
        stored[rows] = (new / unit).round().clamp(-127, 127).to(stored)
        return x_adv


@dataclass(frozen=True)
class PriorGuided:
    """A step from the stored prior, which stores the next one, and keeps where it started and ended in `pairs`.

    Args:
        attack: threat model, loss and length of the step.
        batch: its images.
        stored: of the stored images, prior in radii and momentum, `(N, 2, C, H, W)`.
        reset: whether the step starts at a random corner, without momentum.
        decay: share of the momentum that is kept.
    """

    attack: PGD
    batch: Batch
    stored: Tensor
    reset: bool
    decay: float
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Return images for training, `(B, C, H, W)`, inside the attack's threat model."""
        attack, augment, threat = self.attack, self.batch.augment, self.attack.threat
        radius, rows = float(threat.radius), self.batch.rows.to(self.stored.device)
        prior, momentum = self.stored[rows].to(x.device, x.dtype).unbind(1)
        corner = threat.project(x + radius * (2 * rng.uniform(x) - 1).sign(), x)
        start = corner if self.reset else threat.project(x + radius * augment(prior), x)
        with attacking(f, x, target, attack.loss) as (f, x, target):
            gradient = input_gradient(f, start, target, attack.loss, attack=attack, index=rng.index)
        mean = gradient.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, 1, 1, 1)
        summed = gradient / mean + (0.0 if self.reset else self.decay) * augment(momentum)
        x_adv = threat.project(start + threat.step(gradient, attack.step_size), x)
        next_start = threat.project(start + threat.step(summed, attack.step_size), x)
        new = [
            undo_augmentation(value, old, augment)
            for value, old in (((next_start - x) / radius, prior), (summed, momentum))
        ]
        self.stored[rows] = torch.stack(new, 1).to(self.stored)
        self.pairs.append((start.detach(), x_adv.detach()))
        return x_adv


def _start_at(delta: Tensor, noise: float) -> Start:
    def start(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
        return threat.project(x + delta + noise * threat.radius * (2 * rng.uniform(x) - 1), x)

    return start


def undo_augmentation(delta: Tensor, old: Tensor, augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Move perturbations of augmented images to the stored images; pixels that are not visible keep `old`."""
    ones = torch.ones_like(old, requires_grad=True)
    with torch.enable_grad():
        seen = augment(ones)
    if not torch.equal(augment(-ones.detach()), -seen.detach()):
        raise InputError(
            "Reused perturbations require an augmentation that only moves pixels, and this one changes them: use none."
        )
    if not seen.requires_grad:
        raise InputError(
            "Reused perturbations require an augmentation that passes gradients, and this one stops them: use none."
        )
    # An augmentation that moves pixels is linear, and its transpose moves them back.
    back, weight = (torch.autograd.grad(seen, ones, g, retain_graph=True)[0] for g in (delta, torch.ones_like(delta)))
    return torch.where(weight > 0, back / weight.clamp_min(1e-12), old)
