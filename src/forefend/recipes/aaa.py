"""AAA: adversarially trained autoencoders in front of classifiers (Vaishnavi et al., arXiv 1909.05921)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce, mse
from forefend.models.defense import pipelines
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, weights_of
from forefend.recipes.ensemble import Policy, sampled
from forefend.recipes.model_selection import plateau
from forefend.recipes.schedules import constant
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class AAA(Recipe):
    """Train an autoencoder in front of frozen classifiers (Vaishnavi et al., arXiv 1909.05921).

    Source: Vaishnavi et al., arXiv 1909.05921, with its MNIST attack; λ, the networks and the epochs are in a
    supplement that could not be had.

    Args:
        threat: the attacker's threat model (MNIST 0.3, Fashion-MNIST 0.2, CIFAR-10 8/255).
        steps: gradient steps of the inner attack (MNIST 40, CIFAR-10 10).
        relative_step: step size as a share of the radius (MNIST 0.01 of 0.3; CIFAR-10 2/255 of 8/255).
        ce_weight: weight of the cross-entropy L_xent; 0 leaves the reconstruction alone.
        mse_weight: λ, weight of the reconstruction L_mse (not stated; 10 balances the magnitudes); 0 removes it.
        policy: which guides serve a step (section 4: one drawn for each batch).
        patience: epochs without improvement that are waited for; at the next the learning rate falls (5).
        plateau_factor: what it falls by (not stated; 0.1).
        hold_out: share of the training set whose loss is watched (ours).
        epochs: passes over the training set (not stated; 30).
        batch_size: images a step (not stated; 128).
        lr: Adam's learning rate (1e-3).
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "guides")
    default_guides: ClassVar[tuple[str, ...]] = ("cnn", "tinyresnet")

    threat: ThreatModel = Linf(0.3)
    steps: int = 40
    relative_step: float = 1 / 30
    ce_weight: float = 1.0
    mse_weight: float = 10.0
    policy: Policy = sampled
    patience: int = 5
    plateau_factor: float = 0.1
    hold_out: float = 0.05
    epochs: int = 30
    batch_size: int = 128
    lr: float = 1e-3

    asks_inner: ClassVar[bool] = True

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The autoencoder alone; the classifiers are frozen."""
        check_guides(networks.guides)
        adam = torch.optim.Adam(weights_of(networks.preprocessor, "AAA", "preprocessor"), self.lr)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, adam, constant)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """One step; the drawn classifier serves the attack and the loss alike."""
        guides, seen = (self.policy(networks.guides, batch.rng) for networks in (train, craft))
        yield "preprocessor", self._loss(guides, seen, train.preprocessor, craft.preprocessor, batch)

    def validate(self, craft: Networks, batches: Iterable[Batch], memory: Memory) -> None:
        """Lower the learning rate when all guides' loss on held-out images, attacked, no longer falls."""
        guides, g = craft.guides, craft.preprocessor
        losses = [self._loss(guides, guides, g, g, batch).detach() for batch in batches]
        plateau(memory, float(torch.stack(losses).mean()), self.patience, self.plateau_factor)

    def _loss(
        self, guides: Sequence[Guide], seen: Sequence[Guide], train: nn.Module, craft: nn.Module, batch: Batch
    ) -> Tensor:
        attack = batch.inner(PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce)))
        f_g = pipelines(craft, seen)
        x_adv = attack(f_g, batch.x, batch.y, rng=batch.rng)  # always on the cross-entropy
        z = train(x_adv)
        xent = Mean(ce)([f(z) for f in guides], batch.y)
        return (self.ce_weight * xent + self.mse_weight * mse(z, batch.x)).mean()  # L_xent + λ L_mse, Eq. 3
