"""RTFE: robust transferable feature extractors (Cann, Colbert and Amer, arXiv 2209.06931)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import Loss, Mean, ce, huber_mean, mse
from forefend.models.defended import pipelines
from forefend.models.guide import check_guides
from forefend.recipes.base import BEYOND, Batch, Networks, Recipe, Steps, Trainable, train_alone
from forefend.recipes.ensemble import Policy, every
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class RTFE(Recipe):
    """Train a preprocessor to keep the guides' clean logits (Cann et al., arXiv 2209.06931).

    One guide is the paper's section 3.2, several its section 3.3 (RTFE-ensemble). Source: arXiv 2209.06931; the
    schedule is Madry et al.'s, scaled to 60 epochs.

    Args:
        threat: the attacker's threat model (section 4: l∞, 8/255).
        steps: gradient steps of the inner attack (Madry et al., 1706.06083: 7).
        relative_step: step size α as a share of the radius (Madry et al.: 2/255 of 8/255).
        huber: the logit loss; the three readings of Eq. 6 are huber_mean, huber_sum and huber_vector. A function
            of your own receives the guide's logits for the attacked and the clean image, and returns `(B,)`.
        policy: which guides a step uses: every (Eqs. 8 and 9), sampled or in_turn.
        epochs: passes over the training set (section 4: 60).
        batch_size: images a step (Madry et al.: 128).
        lr: SGD's learning rate (Madry et al.: 0.1).
        momentum: SGD's momentum (Madry et al.: 0.9).
        weight_decay: SGD's weight decay (Madry et al.: 2e-4).
        milestones: shares of training after which the learning rate falls (Madry et al.: half and three quarters).
        decay: factor on the learning rate at each milestone (Madry et al.: 0.1).
        logit_weight: weight of the logit loss (1); 0 removes it.
        ce_weight: weight of the guides' cross-entropy (the footnote's alternative; 0).
        pixel_weight: weight of the mean squared difference from the clean image (likewise; 0).
    """

    roles = ("preprocessor", "guides")
    inner_attack_replaceable = True
    loss_weights = ("logit_weight", "ce_weight", "pixel_weight")
    default_guides = ("cnn", "tinyresnet")

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 7
    relative_step: float = 0.25
    huber: Loss = huber_mean
    policy: Policy = every
    epochs: int = 60
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    logit_weight: float = field(default=1.0, metadata=BEYOND)
    ce_weight: float = field(default=0.0, metadata=BEYOND)
    pixel_weight: float = field(default=0.0, metadata=BEYOND)

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the preprocessor; the guides are frozen."""
        check_guides(networks.guides)
        return train_alone(self, networks.preprocessor, "preprocessor", step_decay(self.milestones, self.decay))

    def inner_attack(self) -> PGD:
        """PGD on the mean cross-entropy of the guides."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce))

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of Figure 2 (one guide) or of Eqs. 8 and 9 (an ensemble)."""
        x, y, rng = batch.x, batch.y, batch.rng
        guides = self.policy(train.guides, rng)
        with torch.no_grad():
            t = [f(x) for f in guides]  # of the clean image x, not of g(x)
        f_g = pipelines(craft.preprocessor, self.policy(craft.guides, rng))
        x_adv = attack(f_g, x, y, rng=rng)  # Eqs. 2, 3 and 8
        g_x = train.preprocessor(x_adv)
        z = [f(g_x) for f in guides]
        loss = self.logit_weight * Mean(self.huber)(z, t)  # Eqs. 5 and 9
        if self.ce_weight:
            loss = loss + self.ce_weight * Mean(ce)(z, y)
        if self.pixel_weight:
            loss = loss + self.pixel_weight * mse(g_x, x)
        yield "preprocessor", loss.mean()
