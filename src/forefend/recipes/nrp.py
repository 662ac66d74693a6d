"""NRP: the neural representation purifier (Naseer et al., arXiv 2006.04924)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, noise_corner
from forefend.checks import InputError
from forefend.losses import euclidean, mae, mse
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.defended import Knowledge, oblivious
from forefend.models.guide import check_guides, pipeline_features
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.schedules import constant
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class NRP(Recipe):
    """Train a purifier on self-supervised perturbations (Naseer et al., arXiv 2006.04924).

    Source: Naseer et al., arXiv 2006.04924; training after the published CIFAR-10 port, as its code was not released.

    Args:
        threat: threat model of the self-supervised perturbations; only l∞ (16/255).
        steps: gradient steps of the perturbation (100).
        relative_step: step size as a share of the radius (0.01 of 16/255).
        sees: target of the attack: oblivious, the feature network alone (as published), or full, the pipeline.
        feature_weight: weight of the feature loss (1).
        pixel_weight: weight of the pixel loss (1e-2).
        discriminator_weight: weight of the relativistic adversarial loss (5e-3).
        tap: dotted name of the feature network's map; empty takes its own third stage.
        epochs: passes over the training set (CIFAR-10 port: 70).
        batch_size: images a step (CIFAR-10 port: 300).
        lr: Adam's learning rate, of both (1e-4).
    """

    roles = ("preprocessor", "discriminator", "guides")
    loss_weights = ("feature_weight", "pixel_weight", "discriminator_weight")

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
        super().__post_init__()
        if self.threat.norm != "Linf":
            raise InputError(f"The threat model of NRP is {self.threat}, expected l∞: use Linf:RADIUS.")

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train purifier and discriminator, each with Adam; the guide is the feature network, frozen."""
        check_guides(networks.guides)
        if len(networks.guides) > 1:
            raise InputError(f"NRP was given {len(networks.guides)} guides, expected one.")
        roles = {"preprocessor": networks.preprocessor, "discriminator": networks.discriminator}
        return {
            role: Trainable({role: network}, torch.optim.Adam(weights_of(network, "NRP", role), self.lr), constant)
            for role, network in roles.items()
        }

    def inner_attack(self) -> PGD:
        """PGD away from the clean image's features, from a random corner of the ball."""
        size = self.relative_step * self.threat.radius
        return PGD(self.threat, self.steps, size, loss=mse, start=noise_corner)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Perturb and purify, then take the step of the discriminator and that of the purifier."""
        x, guide = batch.x, train.guides[0].classifier
        tap = self.tap or feature_layers_of(guide).third
        features = pipeline_features(nn.Identity(), guide, tap)
        with torch.no_grad():
            natural = features(x)
        seen = pipeline_features(self.sees(craft.preprocessor), guide, tap)
        with torch.no_grad():
            target = seen(x)
        x_adv = attack(seen, x, target, rng=batch.rng)
        z = train.preprocessor(x_adv)
        yield "discriminator", _relativistic(train.discriminator(x), train.discriminator(z.detach()))
        distance = self.feature_weight * mae(features(z), natural) + self.pixel_weight * euclidean(z, x)
        fooled = _relativistic(train.discriminator(z), train.discriminator(x))
        yield "preprocessor", distance.mean() + self.discriminator_weight * fooled


def _relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """Relativistic average loss: the logits `better` should exceed the mean of `worse`."""
    gap, back = better - worse.mean(), worse - better.mean()
    rising = F.binary_cross_entropy_with_logits(gap, torch.ones_like(gap))
    falling = F.binary_cross_entropy_with_logits(back, torch.zeros_like(back))
    return (rising + falling) / 2
