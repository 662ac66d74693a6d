"""The simplified MMA in the published code of Zhou et al. (beside arXiv 2106.05453)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import predictions
from forefend.losses import ce
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class MMASimple(Recipe):
    """Attack only correctly classified images (the code of Zhou et al., arXiv 2106.05453).

    Misclassified images are trained on clean, the others attacked at one radius.

    Source: "MMA" in the published code of Zhou et al. (beside arXiv 2106.05453); the method of that name is `mma`.

    Args:
        threat: the attacker's threat model (l∞, 8/255).
        steps: gradient steps of the inner attack (10).
        relative_step: step size as a share of the radius (0.007 of 8/255).
        epochs: passes over the training set (90).
        batch_size: images a step (500).
        lr: SGD's learning rate (0.1).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (2e-4).
        milestones: shares of training after which the learning rate falls (from the 75th epoch of 90 on).
        decay: factor on the learning rate at each milestone (0.1).
    """

    roles = ("classifier",)

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 10
    relative_step: float = 0.007 * 255 / 8
    epochs: int = 90
    batch_size: int = 500
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (74 / 90,)
    decay: float = 0.1

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        return train_alone(self, networks.classifier, "classifier", step_decay(self.milestones, self.decay))

    def inner_attack(self) -> PGD:
        """PGD on the cross-entropy."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=ce)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Attack the images that the classifier in crafting form classifies correctly."""
        x, y = batch.x, batch.y
        with torch.no_grad():
            right = predictions(craft.classifier(x), batch.index) == y
        x_adv = attack(craft.classifier, x, y, rng=batch.rng)
        yield "classifier", ce(train.classifier(torch.where(right.view(-1, 1, 1, 1), x_adv, x)), y).mean()
