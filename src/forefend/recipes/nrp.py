"""NRP: a self-supervised approach for adversarial robustness, the neural representation purifier (arXiv 2006.04924)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks.pgd import PGD, noise_corner
from ..checks import InputError
from ..classifiers.taps import taps_of
from ..defence import Knowledge, oblivious
from ..guides import check_guides, read
from ..losses import euclidean, mae, mse
from ..recipe import Batch, Cast, Memory, Player, Recipe, constant, weights_of
from ..threat import Linf, ThreatModel


@dataclass(frozen=True)
class NRP(Recipe):
    """Train a purifier on self-supervised perturbations, which distort features and need no label.

    Source: Naseer et al., arXiv 2006.04924; training after the published CIFAR-10 port, as its code was not released.

    Args:
        threat: where the self-supervised perturbations lie; l∞ alone (16/255).
        steps: gradient steps of the perturbation (100).
        relative_step: step size as a share of the radius (0.01 of 16/255).
        sees: what is perturbed: oblivious, the feature network alone (as published), or full, the pipeline.
        feature_weight: weight of the feature loss (1).
        pixel_weight: weight of the pixel loss (1e-2).
        critic_weight: weight of the relativistic adversarial loss (5e-3).
        tap: dotted name of the feature network's map; empty takes its own third stage.
        epochs: passes over the training set (CIFAR-10 port: 70).
        batch_size: images a step (CIFAR-10 port: 300).
        lr: Adam's learning rate, of both (1e-4).
    """

    threat: ThreatModel = Linf(16 / 255)
    steps: int = 100
    relative_step: float = 0.01 * 255 / 16
    sees: Knowledge = oblivious
    feature_weight: float = 1.0
    pixel_weight: float = 1e-2
    critic_weight: float = 5e-3
    tap: str = ""
    epochs: int = 70
    batch_size: int = 300
    lr: float = 1e-4

    def __post_init__(self) -> None:
        if self.threat.norm != "Linf":
            raise InputError(
                f"NRP's perturbation is an l∞ one, and the threat model is {self.threat}: use Linf:RADIUS."
            )

    def players(self, cast: Cast) -> dict[str, Player]:
        """Purifier and critic, each with its Adam; the feature network is the guide, frozen."""
        check_guides(cast.guides)
        if len(cast.guides) > 1:
            raise InputError(f"NRP reads the features of one guide, and {len(cast.guides)} were given: name one.")
        roles = {"preprocessor": cast.preprocessor, "critic": cast.critic}
        return {
            role: Player({role: network}, torch.optim.Adam(weights_of(network, "NRP", role), self.lr), constant)
            for role, network in roles.items()
        }

    def updates(self, train: Cast, craft: Cast, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Perturb, purify; then the critic's step and the purifier's."""
        x, guide = batch.x, train.guides[0].classifier
        tap = self.tap or taps_of(guide).third
        features = _features(nn.Identity(), guide, tap)
        with torch.no_grad():
            natural = features(x)
        x_adv = self._perturb(_features(self.sees(craft.preprocessor), guide, tap), batch)
        z = train.preprocessor(x_adv)
        yield "critic", _relativistic(train.critic(x), train.critic(z.detach()))
        distance = self.feature_weight * mae(features(z), natural) + self.pixel_weight * euclidean(z, x)
        fooled = _relativistic(train.critic(z), train.critic(x))
        yield "preprocessor", distance.mean() + self.critic_weight * fooled

    def _perturb(self, features: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The self-supervised perturbation: from a random corner of the ball, away from the clean image's features."""
        with torch.no_grad():
            natural = features(batch.x)
        size = self.relative_step * self.threat.radius
        attack = PGD(self.threat, self.steps, size, loss=mse, start=noise_corner)
        return attack(features, batch.x, natural, draw=batch.draw)


def _features(p: nn.Module, classifier: nn.Module, tap: str) -> Callable[[Tensor], Tensor]:
    def f(x: Tensor) -> Tensor:
        return read(classifier, p(x), [tap])[1][tap]

    return f


def _relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """Relativistic average loss of the critic's logits: `better` should look more real than the mean of `worse`."""
    gap, back = better - worse.mean(), worse - better.mean()
    rising = F.binary_cross_entropy_with_logits(gap, torch.ones_like(gap))
    falling = F.binary_cross_entropy_with_logits(back, torch.zeros_like(back))
    return (rising + falling) / 2
