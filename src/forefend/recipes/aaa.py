"""AAA: adversarially trained autoencoders (Vaishnavi et al., arXiv 1909.05921)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce, mse
from forefend.models.defended import pipelines
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.ensemble import Policy, sampled
from forefend.recipes.model_selection import reduce_lr_on_plateau
from forefend.recipes.schedules import constant
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class AAA(Recipe):
    """Train an autoencoder in front of frozen classifiers (Vaishnavi et al., arXiv 1909.05921).

    Source: Vaishnavi et al., arXiv 1909.05921, with its MNIST attack; λ, the networks and the epochs are in a
    supplement that is not available.

    Args:
        threat: the attacker's threat model (MNIST 0.3, Fashion-MNIST 0.2, CIFAR-10 8/255).
        steps: gradient steps of the inner attack (MNIST 40, CIFAR-10 10).
        relative_step: step size as a share of the radius (MNIST 0.01 of 0.3; CIFAR-10 2/255 of 8/255).
        ce_weight: weight of the cross-entropy L_xent; 0 removes it.
        mse_weight: λ, weight of the reconstruction L_mse (not stated; 10 balances the two); 0 removes it.
        policy: which guides a step uses (section 4: one drawn for each batch).
        patience: epochs without improvement before the learning rate falls (5).
        plateau_factor: factor on the learning rate (not stated; 0.1).
        hold_out: share of the training set for the validation loss (ours).
        epochs: passes over the training set (not stated; 30).
        batch_size: images a step (not stated; 128).
        lr: Adam's learning rate (1e-3).
    """

    roles = ("preprocessor", "guides")
    inner_attack_replaceable = True
    loss_weights = ("ce_weight", "mse_weight")
    default_guides = ("cnn", "tinyresnet")

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

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the autoencoder; the classifiers are frozen."""
        check_guides(networks.guides)
        adam = torch.optim.Adam(weights_of(networks.preprocessor, "AAA", "preprocessor"), self.lr)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, adam, constant)}

    def inner_attack(self) -> PGD:
        """PGD on the cross-entropy, whatever the loss of the weights."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce))

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Attack and train with the same classifiers."""
        guides, seen = (self.policy(networks.guides, batch.rng) for networks in (train, craft))
        x_adv = attack(pipelines(craft.preprocessor, seen), batch.x, batch.y, rng=batch.rng)  # Eq. 2
        yield "preprocessor", self._loss(train.preprocessor, guides, x_adv, batch)

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:
        """Lower the learning rate when the adversarial loss on held-out images no longer falls."""
        g, f_g = craft.preprocessor, pipelines(craft.preprocessor, craft.guides)
        attack, losses = self.inner_attack(), []
        for batch in batches:
            x_adv = attack(f_g, batch.x, batch.y, rng=batch.rng)
            losses.append(self._loss(g, craft.guides, x_adv, batch).detach())
        reduce_lr_on_plateau(state, float(torch.stack(losses).mean()), self.patience, self.plateau_factor)

    def _loss(self, g: nn.Module, guides: Sequence[Guide], x_adv: Tensor, batch: Batch) -> Tensor:
        z = g(x_adv)
        xent = Mean(ce)([f(z) for f in guides], batch.y)
        return (self.ce_weight * xent + self.mse_weight * mse(z, batch.x)).mean()  # L_xent + λ L_mse, Eq. 3
