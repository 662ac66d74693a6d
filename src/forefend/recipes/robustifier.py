"""Empirical robustification of pre-trained classifiers (Norouzzadeh et al., ICML 2021 workshop)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import predictions
from forefend.losses import ce, mse
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.defended import Defended
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.ensemble import Policy, sampled
from forefend.recipes.model_selection import keep_best, restore_best
from forefend.recipes.schedules import one_cycle
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class Robustifier(Recipe):
    """Train a U-Net for robustness and fidelity (Norouzzadeh et al., ICML 2021 workshop).

    Source: Norouzzadeh et al., "Empirical robustification of pre-trained classifiers", 2021.

    Args:
        threat: the attacker's threat model (l∞ 0.031, l2 0.5).
        steps: gradient steps of the inner attack (5).
        relative_step: step size as a share of the radius (0.008 of 0.031; for l2 the printed 0.008 is too short to
            cross the ball, and 0.5 works).
        alpha: weight of the cross-entropy (0.005).
        beta: weight of the pixel fidelity, Eq. 4 (15).
        gamma: weight of the activation fidelity, Eq. 5 (30).
        taps: dotted names of the activations h_a; none takes the ends of the classifier's stages (Figure S.6).
        logits_too: also match the final layer, as in Figure S.6c.
        policy: which guides a step uses (S.4: one drawn for each batch).
        hold_out: share of the training set for the robust accuracy that chooses the best epoch (ours).
        epochs: passes over the training set (100, with early stopping: the best epoch is restored).
        batch_size: images a step (not stated; 128).
        lr: the largest learning rate of the one-cycle schedule (0.005).
        warm_up: share of training in which the learning rate rises (0.2).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (5e-4).
    """

    roles = ("preprocessor", "guides")
    inner_attack_replaceable = True
    keeps_best = True
    loss_weights = ("alpha", "beta", "gamma")
    default_guides = ("cnn", "tinyresnet")

    threat: ThreatModel = Linf(0.031)
    steps: int = 5
    relative_step: float = 0.008 / 0.031
    alpha: float = 0.005
    beta: float = 15.0
    gamma: float = 30.0
    taps: tuple[str, ...] = ()
    logits_too: bool = False
    policy: Policy = sampled
    hold_out: float = 0.05
    epochs: int = 100
    batch_size: int = 128
    lr: float = 0.005
    warm_up: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the robustifier; the classifiers are frozen."""
        check_guides(networks.guides)
        return train_alone(self, networks.preprocessor, "preprocessor", one_cycle(self.warm_up))

    def inner_attack(self) -> PGD:
        """PGD on the cross-entropy, without the fidelity terms."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=ce)

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of Eq. 6, averaged over the guides."""
        x, y = batch.x, batch.y
        guides, seen = (self.policy(networks.guides, batch.rng) for networks in (train, craft))
        losses = [
            self._loss(train.preprocessor, guide, attack(Defended(craft.preprocessor, f), x, y, rng=batch.rng), batch)
            for guide, f in zip(guides, seen, strict=True)
        ]
        yield "preprocessor", torch.stack(losses).mean()

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:
        """Keep the weights of the epoch with the best robust accuracy on held-out images, over all guides."""
        attack, right = self.inner_attack(), []
        for batch in batches:
            for guide in craft.guides:
                f = Defended(craft.preprocessor, guide)
                x_adv = attack(f, batch.x, batch.y, rng=batch.rng)
                with torch.no_grad():
                    right.append((predictions(f(x_adv), batch.index) == batch.y).float())
        keep_best(state, float(torch.cat(right).mean()), craft.preprocessor)

    def on_train_end(self, networks: Networks, state: TrainState) -> None:
        """Restore the weights of the best epoch."""
        restore_best(state, networks.preprocessor)

    def _loss(self, g: nn.Module, guide: Guide, x_adv: Tensor, batch: Batch) -> Tensor:
        x, y = batch.x, batch.y
        r = g(x_adv)
        taps = list(self.taps or feature_layers_of(guide.classifier).stages)
        logits, h_r = guide.read(r, taps)
        with torch.no_grad():
            clean_logits, h_x = guide.read(x, taps)
        pairs = [(h_r[tap], h_x[tap]) for tap in taps] + ([(logits, clean_logits)] if self.logits_too else [])
        activations = torch.stack([mse(a, b) for a, b in pairs]).mean(0)  # Eq. 5, each term normalized by its size
        return (self.alpha * ce(logits, y) + self.beta * mse(r, x) + self.gamma * activations).mean()  # Eqs. 4 and 6
