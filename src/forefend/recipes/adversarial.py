"""Adversarial training of a classifier (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass, field

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import ce
from forefend.recipes.base import BEYOND, Batch, Networks, Optimizer, Recipe, Steps, Trainable, sgd, train_alone
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class Adversarial(Recipe):
    """Train a classifier on adversarial examples (Madry et al., arXiv 1706.06083).

    Source: Madry et al., arXiv 1706.06083, Eq. 2.1, with their CIFAR-10 hyper-parameters.

    Args:
        threat: the attacker's threat model (8/255 in l∞).
        steps: gradient steps of the inner attack (paper: 7; their code: 10).
        relative_step: step size as a share of the radius (2/255 of 8/255).
        epochs: passes over the training set (80,000 steps of 128 images are 205).
        batch_size: images a step (128).
        lr: SGD's learning rate (0.1).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (2e-4).
        milestones: shares of training after which the learning rate falls (half and three quarters).
        decay: factor on the learning rate at each milestone (0.1).
        optimizer: sgd, or adam (their MNIST network: at 1e-4), without momentum and weight decay.
    """

    roles = ("classifier",)
    inner_attack_replaceable = True

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 7
    relative_step: float = 0.25
    epochs: int = 205
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    optimizer: Optimizer = field(default=sgd, metadata=BEYOND)

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        schedule = step_decay(self.milestones, self.decay)
        return train_alone(self, networks.classifier, "classifier", schedule, self.optimizer)

    def inner_attack(self) -> PGD:
        """PGD on the cross-entropy."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=ce)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of the saddle-point problem, Eq. 2.1."""
        x_adv = attack(craft.classifier, batch.x, batch.y, rng=batch.rng)
        yield "classifier", ce(train.classifier(x_adv), batch.y).mean()  # Eq. 2.1
