"""MMA: max-margin adversarial training (Ding et al., arXiv 1812.02637)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.losses import ce, soft_margin
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, sgd, weights_of
from forefend.recipes.schedules import stepwise
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class MMA(Recipe):
    """Train a classifier to maximize each image's margin (Ding et al., arXiv 1812.02637).

    Source: Ding et al., arXiv 1812.02637, with the authors' code's values.

    Args:
        threat: its radius is the hinge d_max, above which a margin is no longer widened; l∞ alone (12/255).
        steps: gradient steps of the search for the boundary (10).
        relative_step: step size as a share of each image's radius (2.5 over the steps).
        bisections: bisection steps towards the boundary (10).
        least_radius: where each image's radius starts, and the least radius searched (0.005).
        clean_weight: weight of the clean cross-entropy; the rest is the margin's (1/3).
        epochs: passes over the training set (50,000 steps of 128 images are 128).
        batch_size: images a step (128).
        lr: SGD's learning rate (0.3).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (2e-4).
        milestones: shares of training after which the learning rate falls (20, 30 and 40 of 50 thousand steps).
        factors: what the learning rate is multiplied by after each (0.3, 0.1 and 0.03).
    """

    roles: ClassVar[tuple[str, ...]] = ("classifier",)

    threat: ThreatModel = Linf(12 / 255)
    steps: int = 10
    relative_step: float = 0.25
    bisections: int = 10
    least_radius: float = 0.005
    clean_weight: float = 1 / 3
    epochs: int = 128
    batch_size: int = 128
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (0.4, 0.6, 0.8)
    factors: tuple[float, ...] = (0.3, 0.1, 0.03)

    def __post_init__(self) -> None:
        if self.threat.norm != "Linf":
            raise InputError(f"MMA here searches l∞ margins, and the threat model is {self.threat}: use Linf:RADIUS.")

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The classifier in training."""
        weights = weights_of(networks.classifier, "MMA", "classifier")
        schedule = stepwise(self.milestones, self.factors)
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd(weights, self), schedule)}

    def remember(self, data: ImageDataset) -> Memory:
        """Each image's radius, kept from epoch to epoch."""
        return {"radius": torch.full((int(data.index.max()) + 1,), self.least_radius)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Algorithm 1: find each right image's margin, widen those below the hinge, mend the wrong ones."""
        x, y = batch.x, batch.y
        with torch.no_grad():
            right = soft_margin(craft.classifier(x), y) < 0
        margin, x_adv = self._margins(craft.classifier, batch, memory["radius"].to(x.device)[batch.index])
        place = batch.index[right].to(memory["radius"].device)
        memory["radius"][place] = margin[right].to(memory["radius"].device)
        wide = right & (margin >= self.threat.radius)
        seen = torch.where(right.view(-1, 1, 1, 1), x_adv, x)
        widened = (ce(train.classifier(seen), y) * ~wide).mean()
        clean = ce(train.classifier(x), y).mean()
        yield "classifier", (1 - self.clean_weight) * widened + self.clean_weight * clean

    def _margins(self, classifier: nn.Module, batch: Batch, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's distance to the soft boundary along its attack's direction, `(B,)`, and the image there."""
        x, y = batch.x, batch.y
        radius = radius.clamp_min(self.least_radius)
        attack = PGD(Linf(radius), self.steps, self.relative_step * radius, loss=soft_margin)
        delta = attack(classifier, x, y, rng=batch.rng) - x
        direction = delta / delta.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        low, high = torch.zeros_like(radius), torch.full_like(radius, 1.05 * self.threat.radius)

        def at(distance: Tensor) -> Tensor:
            return (x + distance.view(-1, 1, 1, 1) * direction).clamp(0, 1)

        with torch.no_grad():
            for _ in range(self.bisections):
                middle = (low + high) / 2
                inside = soft_margin(classifier(at(middle)), y) < 0
                low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return high, at(high)
