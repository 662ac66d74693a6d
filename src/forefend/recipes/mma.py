"""MMA: max-margin adversarial training (Ding et al., arXiv 1812.02637)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.losses import ce, soft_margin
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.schedules import stepwise
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class MMA(Recipe):
    """Train a classifier to maximize each image's margin (Ding et al., arXiv 1812.02637).

    Source: Ding et al., arXiv 1812.02637, with the authors' code's values.

    Args:
        threat: its radius is the hinge d_max, the largest margin that is widened; only l∞ (12/255).
        steps: gradient steps of the boundary search (10).
        relative_step: step size as a share of each image's radius (2.5 over the steps).
        bisections: bisection steps towards the boundary (10).
        least_radius: first radius of each image, and smallest radius of the search (0.005).
        clean_weight: weight of the clean cross-entropy; the margin term has the rest (1/3).
        epochs: passes over the training set (50,000 steps of 128 images are 128).
        batch_size: images a step (128).
        lr: SGD's learning rate (0.3).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (2e-4).
        milestones: shares of training after which the learning rate falls (20, 30 and 40 of 50 thousand steps).
        factors: factor on the learning rate after each (0.3, 0.1 and 0.03).
    """

    roles = ("classifier",)

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
        super().__post_init__()
        if self.threat.norm != "Linf":
            raise InputError(f"The threat model of MMA is {self.threat}, expected l∞: use Linf:RADIUS.")

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        return train_alone(self, networks.classifier, "classifier", stepwise(self.milestones, self.factors))

    def init_state(self, data: ImageDataset) -> dict[str, Tensor]:
        """Each image's radius."""
        return {"radius": torch.full((int(data.index.max()) + 1,), self.least_radius)}

    def inner_attack(self) -> PGD:
        """PGD on the soft margin; a step gives each image its own radius."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=soft_margin)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Algorithm 1: widen margins below the hinge; train on clean images that are misclassified."""
        x, y = batch.x, batch.y
        with torch.no_grad():
            right = soft_margin(craft.classifier(x), y) < 0
        margin, x_adv = self._margins(craft.classifier, batch, state.per_image["radius"].to(x.device)[batch.index])
        radii = state.per_image["radius"]
        radii[batch.index[right].to(radii.device)] = margin[right].to(radii.device)
        wide = right & (margin >= self.threat.radius)
        seen = torch.where(right.view(-1, 1, 1, 1), x_adv, x)
        widened = (ce(train.classifier(seen), y) * ~wide).mean()
        clean = ce(train.classifier(x), y).mean()
        yield "classifier", (1 - self.clean_weight) * widened + self.clean_weight * clean

    def _margins(self, classifier: nn.Module, batch: Batch, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of each image to the soft boundary along the attack's direction, `(B,)`, and the image there."""
        x, y = batch.x, batch.y
        radius = radius.clamp_min(self.least_radius)
        attack = replace(self.inner_attack(), threat=Linf(radius), step_size=self.relative_step * radius)
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
