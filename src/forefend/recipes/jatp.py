"""JATP: joint adversarial training based pre-processing (Zhou et al., arXiv 2106.05453), its variant JATP', and JAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.losses import Loss, boosted_ce, euclidean, mse
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.guide import check_guides, read
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, sgd, weights_of
from forefend.recipes.ensemble import in_turn
from forefend.recipes.schedules import step_decay
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class JointTraining(Recipe):
    """What JATP, JATP' and JAT share: a feature-space attack on the full pipeline, and three terms.

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
    """

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

    def step(self, train: tuple[nn.Module, nn.Module], craft: tuple[nn.Module, nn.Module], batch: Batch) -> Tensor:
        """Algorithm 1 for one batch: the loss of Eq. 10.

        Args:
            train: preprocessor and classifier in training form.
            craft: the same two in crafting form.
            batch: this step's images.
        """
        x, y = batch.x, batch.y
        x_adv = self._craft(*craft, x, batch)
        p, target = train
        z_adv, z = p(x_adv), p(x)
        tap = self.tap or feature_layers_of(target).third
        logits_adv, features_adv = read(target, z_adv, [tap])
        logits, features = read(target, z, [tap])
        wrong = 1 - logits.softmax(1).gather(1, y[:, None]).squeeze(1)
        fsm = mse(features_adv[tap], features[tap])  # Eq. 8
        adversarial = self.adversarial_weight * self.adversarial(logits_adv, y) + self.alpha * fsm * wrong  # Eqs. 7, 9
        return (adversarial + self.beta * self.pixel(z_adv, x)).mean()  # Eqs. 6 and 10

    def _craft(self, p: nn.Module, target: nn.Module, x: Tensor, batch: Batch) -> Tensor:
        """Eq. 5: push the pipeline's features away from those of the clean image; labels are not used.

        The start is random: at x itself the distance is zero, and so is its gradient.
        """
        features = _features(p, target, self.tap or feature_layers_of(target).third)
        with torch.no_grad():
            natural = features(x)
        attack = PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=mse)
        return attack(features, x, natural, rng=batch.rng)


@dataclass(frozen=True)
class JATP(JointTraining):
    """Train a preprocessor in front of a robust classifier (Zhou et al., arXiv 2106.05453).

    Source: Zhou et al., arXiv 2106.05453.
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "guides")
    default_guides: ClassVar[tuple[str, ...]] = ("tinyresnet@trades",)

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The preprocessor alone; the target model is frozen."""
        check_guides(networks.guides)
        weights = weights_of(networks.preprocessor, "JATP", "preprocessor")
        schedule = step_decay(self.milestones, self.decay)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, sgd(weights, self), schedule)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Algorithm 1; several guides take turns."""
        (guide,) = in_turn(train.guides, batch.rng)
        yield (
            "preprocessor",
            self.step((train.preprocessor, guide.classifier), (craft.preprocessor, guide.classifier), batch),
        )


@dataclass(frozen=True)
class JATPPrime(JointTraining):
    """Train preprocessor and classifier together with JATP's loss (Zhou et al., 2106.05453).

    Source: Zhou et al., arXiv 2106.05453, section 4.2, "cross-model defense".
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "classifier")

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """Preprocessor and classifier, one optimizer."""
        return _joint_player(self, networks)

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Algorithm 1 with the target model in training."""
        yield "pair", self.step((train.preprocessor, train.classifier), (craft.preprocessor, craft.classifier), batch)


@dataclass(frozen=True)
class JAT(JointTraining):
    """Train a U-Net and a new classifier together (joint baseline of RTFE, arXiv 2209.06931).

    Source: Cann et al., arXiv 2209.06931, section 4.1, after Zhou et al., arXiv 2106.05453.
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "classifier")

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """Preprocessor and classifier, one optimizer."""
        return _joint_player(self, networks)

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Algorithm 1 with the target model in training."""
        yield "pair", self.step((train.preprocessor, train.classifier), (craft.preprocessor, craft.classifier), batch)


def _joint_player(recipe: JointTraining, networks: Networks) -> dict[str, Trainable]:
    name = type(recipe).__name__
    weights = weights_of(networks.preprocessor, name, "preprocessor") + weights_of(
        networks.classifier, name, "classifier"
    )
    pair = {"preprocessor": networks.preprocessor, "classifier": networks.classifier}
    return {"pair": Trainable(pair, sgd(weights, recipe), step_decay(recipe.milestones, recipe.decay))}


def _features(p: nn.Module, target: nn.Module, tap: str) -> Callable[[Tensor], Tensor]:
    """The full pipeline's feature map: t*(p(x))."""

    def f(x: Tensor) -> Tensor:
        return read(target, p(x), [tap])[1][tap]

    return f
