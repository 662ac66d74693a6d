"""JATP: joint adversarial training based pre-processing (Zhou et al., arXiv 2106.05453), JATP' and JAT."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import Loss, boosted_ce, euclidean, mse
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.guide import check_guides, pipeline_features, read
from forefend.recipes.base import BEYOND, Batch, Networks, Recipe, Steps, Trainable, sgd, train_alone, weights_of
from forefend.recipes.ensemble import in_turn
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

Pair = tuple[nn.Module, nn.Module]  # preprocessor and classifier


@dataclass(frozen=True)
class JointTraining(Recipe):
    """The parts shared by JATP, JATP' and JAT: a feature-space attack on the pipeline, and three terms.

    Args:
        threat: the attacker's threat model (section 4.1: l∞, 8/255).
        steps: gradient steps of the inner attack (not stated; 40 as the paper's other attacks).
        relative_step: step size as a share of the radius (section 4.1: 0.01 of 8/255).
        tap: dotted name of the classifier's feature map t*; empty takes its own third stage (section 3.1).
        adversarial: the standard adversarial term (Eq. 7: boosted_ce).
        adversarial_weight: weight of that term; 0 removes it (the ablation of Figure 4b).
        alpha: weight of the feature similarity term (section 4.1: 5); 0 removes it.
        beta: weight of the pixel term (section 4.1: 3); 0 removes it.
        pixel: the pixel term (Eq. 6 as printed: euclidean; mse would be inert).
        epochs: passes over the training set (section 4.1: 30).
        batch_size: images a step (not stated; 128).
        lr: SGD's learning rate (section 4.1: 1e-2).
        momentum: SGD's momentum (section 4.1: 0.9).
        weight_decay: SGD's weight decay (section 4.1: 2e-4).
        milestones: shares of training after which the learning rate falls (section 4.1: epochs 15 and 25 of 30).
        decay: factor on the learning rate at each milestone (section 4.1: 0.1).
        similarity: the distance of features in Eq. 8: mse, or sse, the sum as printed.
    """

    loss_weights = ("adversarial_weight", "alpha", "beta")

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 40
    relative_step: float = 0.01 * 255 / 8
    tap: str = ""
    adversarial: Loss = boosted_ce
    adversarial_weight: float = 1.0
    alpha: float = 5.0
    beta: float = 3.0
    pixel: Loss = euclidean
    epochs: int = 30
    batch_size: int = 128
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (15 / 30, 25 / 30)
    decay: float = 0.1
    similarity: Loss = field(default=mse, metadata=BEYOND)

    def inner_attack(self) -> PGD:
        """Eq. 5: PGD away from the clean image's features; it starts at random, as the gradient at x is zero."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=mse)

    def joint_loss(self, train: Pair, craft: Pair, batch: Batch, attack: Attack) -> Tensor:
        """Compute the loss of Eq. 10 as in Algorithm 1.

        Args:
            train: preprocessor and classifier in training form.
            craft: the same two in crafting form.
            batch: this step's images.
            attack: the attack in feature space, which uses no label.
        """
        x, y, (p, target) = batch.x, batch.y, train
        tap = self.tap or feature_layers_of(target).third
        seen = pipeline_features(*craft, tap)
        with torch.no_grad():
            natural = seen(x)
        x_adv = attack(seen, x, natural, rng=batch.rng)  # Eq. 5
        z_adv, z = p(x_adv), p(x)
        logits_adv, features_adv = read(target, z_adv, [tap])
        logits, features = read(target, z, [tap])
        wrong = 1 - logits.softmax(1).gather(1, y[:, None]).squeeze(1)
        fsm = self.similarity(features_adv[tap], features[tap])  # Eq. 8
        adversarial = self.adversarial_weight * self.adversarial(logits_adv, y) + self.alpha * fsm * wrong  # Eqs. 7, 9
        return (adversarial + self.beta * self.pixel(z_adv, x)).mean()  # Eqs. 6 and 10


@dataclass(frozen=True)
class JATP(JointTraining):
    """Train a preprocessor in front of a robust classifier (Zhou et al., arXiv 2106.05453).

    Source: Zhou et al., arXiv 2106.05453.
    """

    roles = ("preprocessor", "guides")
    default_guides = ("tinyresnet@trades",)

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the preprocessor; the target model is frozen."""
        check_guides(networks.guides)
        return train_alone(self, networks.preprocessor, "preprocessor", step_decay(self.milestones, self.decay))

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Algorithm 1; each step uses the next guide."""
        f = in_turn(train.guides, batch.rng)[0].classifier
        yield "preprocessor", self.joint_loss((train.preprocessor, f), (craft.preprocessor, f), batch, attack)


@dataclass(frozen=True)
class PairTraining(JointTraining):
    """Algorithm 1, where the target model is trained too; JATP' and JAT differ in their use."""

    roles = ("preprocessor", "classifier")

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train preprocessor and classifier with one optimizer."""
        pair = {"preprocessor": networks.preprocessor, "classifier": networks.classifier}
        weights = [p for role, network in pair.items() for p in weights_of(network, type(self).__name__, role)]
        return {"pair": Trainable(pair, sgd(weights, self), step_decay(self.milestones, self.decay))}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Algorithm 1 with the classifier in training as the target model."""
        trained, seen = ((networks.preprocessor, networks.classifier) for networks in (train, craft))
        yield "pair", self.joint_loss(trained, seen, batch, attack)


@dataclass(frozen=True)
class JATPPrime(PairTraining):
    """Train preprocessor and classifier together with JATP's loss (Zhou et al., 2106.05453).

    Source: Zhou et al., arXiv 2106.05453, section 4.2, "cross-model defense": the preprocessor then serves others.
    """


@dataclass(frozen=True)
class JAT(PairTraining):
    """Train a U-Net and a new classifier together (joint baseline of RTFE, arXiv 2209.06931).

    Source: Cann et al., arXiv 2209.06931, section 4.1, after Zhou et al., arXiv 2106.05453.
    """
