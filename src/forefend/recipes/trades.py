"""TRADES: trade-off between robustness and accuracy (Zhang et al., arXiv 1901.08573)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, Start, from_x, small_noise
from forefend.checks import InputError
from forefend.losses import ce, kl
from forefend.recipes.base import BEYOND, Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class TRADES(Recipe):
    """Trade off accuracy and robustness of a classifier (Zhang et al., arXiv 1901.08573).

    Source: Zhang et al., arXiv 1901.08573, Eq. 5, with the authors' CIFAR-10 script's values.

    Args:
        threat: the attacker's threat model (l∞, 0.031).
        steps: gradient steps of the inner attack (10).
        relative_step: step size as a share of the radius (0.007 of 0.031).
        beta: weight of the robustness term, 1/λ in the paper (6).
        epochs: passes over the training set (76).
        batch_size: images a step (128).
        lr: SGD's learning rate (0.1).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (2e-4).
        milestones: shares of training after which the learning rate falls (from the 75th epoch of 76 on).
        decay: factor on the learning rate at each milestone (0.1).
        start: first iterate of the attack: small_noise (code), or random_start, anywhere in the ball.
    """

    roles = ("classifier",)

    threat: ThreatModel = Linf(0.031)
    steps: int = 10
    relative_step: float = 0.007 / 0.031
    beta: float = 6.0
    epochs: int = 76
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (74 / 76,)
    decay: float = 0.1
    start: Start = field(default=small_noise, metadata=BEYOND)

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        return train_alone(self, networks.classifier, "classifier", step_decay(self.milestones, self.decay))

    def check(self) -> None:
        """Check the hyper-parameters.

        Raises:
            InputError: one is out of range, or the attack starts where its loss has no gradient.
        """
        super().check()
        if self.start is from_x:
            raise InputError("TRADES starts at the clean image, where its divergence is flat: use small_noise.")

    def inner_attack(self) -> PGD:
        """PGD on the divergence from the clean prediction, from near the clean image."""
        size = self.relative_step * self.threat.radius
        return PGD(self.threat, self.steps, size, loss=kl, start=self.start)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of Eq. 5; gradients flow through both arguments of the divergence."""
        x, y = batch.x, batch.y
        with torch.no_grad():
            clean = craft.classifier(x)
        x_adv = attack(craft.classifier, x, clean, rng=batch.rng)
        logits = train.classifier(x)
        yield "classifier", (ce(logits, y) + self.beta * kl(train.classifier(x_adv), logits)).mean()  # Eq. 5
