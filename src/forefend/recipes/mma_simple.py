"""The simplified MMA of the JATP group: attacked images where the classifier is right, clean ones where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.losses import ce
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, sgd, weights_of
from forefend.recipes.schedules import step_decay
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class MMASimple(Recipe):
    """Attack only correctly classified images (the code of Zhou et al., arXiv 2106.05453).

    Source: what Zhou et al.'s published code calls MMA (beside arXiv 2106.05453); the method of that name is `mma`.

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

    roles: ClassVar[tuple[str, ...]] = ("classifier",)

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

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The classifier in training."""
        weights = weights_of(networks.classifier, "Simplified MMA", "classifier")
        schedule = step_decay(self.milestones, self.decay)
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd(weights, self), schedule)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """One step; who is right is decided by the classifier in crafting form."""
        x, y = batch.x, batch.y
        with torch.no_grad():
            right = craft.classifier(x).argmax(1) == y
        attack = PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=ce)
        x_adv = attack(craft.classifier, x, y, rng=batch.rng)
        yield "classifier", ce(train.classifier(torch.where(right.view(-1, 1, 1, 1), x_adv, x)), y).mean()
