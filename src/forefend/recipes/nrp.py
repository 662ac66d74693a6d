"""NRP: a self-supervised approach for adversarial robustness, the neural representation purifier (arXiv 2006.04924)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, noise_corner
from forefend.checks import InputError
from forefend.losses import euclidean, mae, mse
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.defense import Knowledge, oblivious
from forefend.models.guide import check_guides, read
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, weights_of
from forefend.recipes.schedules import constant
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class NRP(Recipe):
    """Train a purifier on self-supervised perturbations (Naseer et al., arXiv 2006.04924).

    Source: Naseer et al., arXiv 2006.04924; training after the published CIFAR-10 port, as its code was not released.

    Args:
        threat: where the self-supervised perturbations lie; l∞ alone (16/255).
        steps: gradient steps of the perturbation (100).
        relative_step: step size as a share of the radius (0.01 of 16/255).
        sees: what is perturbed: oblivious, the feature network alone (as published), or full, the pipeline.
        feature_weight: weight of the feature loss (1).
        pixel_weight: weight of the pixel loss (1e-2).
        discriminator_weight: weight of the relativistic adversarial loss (5e-3).
        tap: dotted name of the feature network's map; empty takes its own third stage.
        epochs: passes over the training set (CIFAR-10 port: 70).
        batch_size: images a step (CIFAR-10 port: 300).
        lr: Adam's learning rate, of both (1e-4).
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "discriminator", "guides")

    threat: ThreatModel = Linf(16 / 255)
    steps: int = 100
    relative_step: float = 0.01 * 255 / 16
    sees: Knowledge = oblivious
    feature_weight: float = 1.0
    pixel_weight: float = 1e-2
    discriminator_weight: float = 5e-3
    tap: str = ""
    epochs: int = 70
    batch_size: int = 300
    lr: float = 1e-4

    def __post_init__(self) -> None:
        if self.threat.norm != "Linf":
            raise InputError(
                f"NRP's perturbation is an l∞ one, and the threat model is {self.threat}: use Linf:RADIUS."
            )

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """Purifier and discriminator, each with its Adam; the feature network is the guide, frozen."""
        check_guides(networks.guides)
        if len(networks.guides) > 1:
            raise InputError(f"NRP reads the features of one guide, and {len(networks.guides)} were given: name one.")
        roles = {"preprocessor": networks.preprocessor, "discriminator": networks.discriminator}
        return {
            role: Trainable({role: network}, torch.optim.Adam(weights_of(network, "NRP", role), self.lr), constant)
            for role, network in roles.items()
        }

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Perturb, purify; then the discriminator's step and the purifier's."""
        x, guide = batch.x, train.guides[0].classifier
        tap = self.tap or feature_layers_of(guide).third
        features = _features(nn.Identity(), guide, tap)
        with torch.no_grad():
            natural = features(x)
        x_adv = self._perturb(_features(self.sees(craft.preprocessor), guide, tap), batch)
        z = train.preprocessor(x_adv)
        yield "discriminator", _relativistic(train.discriminator(x), train.discriminator(z.detach()))
        distance = self.feature_weight * mae(features(z), natural) + self.pixel_weight * euclidean(z, x)
        fooled = _relativistic(train.discriminator(z), train.discriminator(x))
        yield "preprocessor", distance.mean() + self.discriminator_weight * fooled

    def _perturb(self, features: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The self-supervised perturbation: from a random corner of the ball, away from the clean image's features."""
        with torch.no_grad():
            natural = features(batch.x)
        size = self.relative_step * self.threat.radius
        attack = PGD(self.threat, self.steps, size, loss=mse, start=noise_corner)
        return attack(features, batch.x, natural, rng=batch.rng)


def _features(p: nn.Module, classifier: nn.Module, tap: str) -> Callable[[Tensor], Tensor]:
    def f(x: Tensor) -> Tensor:
        return read(classifier, p(x), [tap])[1][tap]

    return f


def _relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """Relativistic average loss of the discriminator's logits: `better` should look more real than the mean of `worse`."""
    gap, back = better - worse.mean(), worse - better.mean()
    rising = F.binary_cross_entropy_with_logits(gap, torch.ones_like(gap))
    falling = F.binary_cross_entropy_with_logits(back, torch.zeros_like(back))
    return (rising + falling) / 2
