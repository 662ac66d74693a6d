"""MART: misclassification aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, Start, small_noise
from forefend.losses import boosted_ce, ce
from forefend.recipes.base import BEYOND, Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class MART(Recipe):
    """Train a classifier with misclassification-aware weights (Wang et al., ICLR 2020).

    Source: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020,
    Eq. 11, with the values of the authors' ResNet-18 script.

    Args:
        threat: the attacker's threat model (l∞, 0.031).
        steps: gradient steps of the inner attack (10).
        relative_step: step size as a share of the radius (0.007 of 0.031).
        beta: weight of the stability term, λ in the paper (script: 5; the JATP paper: 6).
        epochs: passes over the training set (120).
        batch_size: images a step (128).
        lr: SGD's learning rate (0.01).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (3.5e-3).
        milestones: shares of training after which the learning rate falls (from epochs 75, 90 and 100 of 120 on).
        decay: factor on the learning rate at each milestone (0.1).
        start: first iterate of the attack: small_noise (code), or random_start, anywhere in the ball.
    """

    roles = ("classifier",)

    threat: ThreatModel = Linf(0.031)
    steps: int = 10
    relative_step: float = 0.007 / 0.031
    beta: float = 5.0
    epochs: int = 120
    batch_size: int = 128
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 3.5e-3
    milestones: tuple[float, ...] = (74 / 120, 89 / 120, 99 / 120)
    decay: float = 0.1
    start: Start = field(default=small_noise, metadata=BEYOND)

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        return train_alone(self, networks.classifier, "classifier", step_decay(self.milestones, self.decay))

    def inner_attack(self) -> PGD:
        """PGD on the cross-entropy, from near the clean image."""
        size = self.relative_step * self.threat.radius
        return PGD(self.threat, self.steps, size, loss=ce, start=self.start)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of Eq. 11: boosted cross-entropy, and the divergence weighted by 1 − p_y(x)."""
        x, y = batch.x, batch.y
        x_adv = attack(craft.classifier, x, y, rng=batch.rng)
        clean, attacked = train.classifier(x), train.classifier(x_adv)
        right = clean.softmax(1).gather(1, y[:, None]).squeeze(1)
        stability = divergence(attacked, clean) * (1.0000001 - right)
        yield "classifier", (boosted_ce(attacked, y) + self.beta * stability).mean()


def divergence(attacked: Tensor, clean: Tensor) -> Tensor:
    """Return the Kullback–Leibler divergence of two predictions, `(B,)`, from their logits.

    The 1e-12 of the authors' code ends the gradient of classes that the attack made impossible.
    """
    return (clean.softmax(1) * (clean.log_softmax(1) - (attacked.softmax(1) + 1e-12).log())).sum(1)
