"""APE-GAN: adversarial perturbation elimination with a GAN (Shen et al., arXiv 1707.05474)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce, mse
from forefend.models.defended import Knowledge, oblivious, pipelines
from forefend.models.guide import check_guides
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.schedules import constant
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class APEGAN(Recipe):
    """Train a generator to remove perturbations, as a GAN (Shen et al., arXiv 1707.05474).

    Source: Shen et al., arXiv 1707.05474; the JATP paper's examples (2106.05453, section 4.1).

    Args:
        threat: threat model of the examples (JATP paper: l∞, 8/255).
        steps: gradient steps of the examples' attack (JATP paper: 40; the original: 1).
        relative_step: step size as a share of the radius (JATP paper: 0.007 of 8/255).
        sees: target of the attack: oblivious, the classifier alone (as published), or full, the pipeline.
        pixel_weight: ξ1, weight of the mean squared error in [-1, 1] units (public code: 0.7).
        discriminator_weight: ξ2, weight of the adversarial loss (public code: 0.3).
        generator_steps: generator steps for each discriminator step (public code: 2).
        epochs: passes over the training set (public code: 2).
        batch_size: images a step (public code: 128).
        lr: Adam's learning rate, of both (public code: 2e-4).
        beta1: Adam's first moment, of both (public code: 0.5).
    """

    roles = ("preprocessor", "discriminator", "guides")
    loss_weights = ("pixel_weight", "discriminator_weight")
    default_preprocessor = "ape-gan"

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 40
    relative_step: float = 0.007 * 255 / 8
    sees: Knowledge = oblivious
    pixel_weight: float = 0.7
    discriminator_weight: float = 0.3
    generator_steps: int = 2
    epochs: int = 2
    batch_size: int = 128
    lr: float = 2e-4
    beta1: float = 0.5

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train generator and discriminator, each with Adam; the classifier is frozen."""
        check_guides(networks.guides)
        trainables = {}
        for role, network in (("preprocessor", networks.preprocessor), ("discriminator", networks.discriminator)):
            adam = torch.optim.Adam(weights_of(network, "APE-GAN", role), self.lr, betas=(self.beta1, 0.999))
            trainables[role] = Trainable({role: network}, adam, constant)
        return trainables

    def inner_attack(self) -> PGD:
        """PGD on the mean cross-entropy of the guides."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce))

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take the step of the discriminator, then the steps of the generator."""
        f = pipelines(self.sees(craft.preprocessor), craft.guides)
        x, x_adv = batch.x, attack(f, batch.x, batch.y, rng=batch.rng)
        real, fake = train.discriminator(x), train.discriminator(train.preprocessor(x_adv).detach())
        yield "discriminator", _adversarial_loss(real, 1.0) + _adversarial_loss(fake, 0.0)
        for _ in range(self.generator_steps):
            z = train.preprocessor(x_adv)
            fooled = _adversarial_loss(train.discriminator(z), 1.0)
            # The public code's pixels span [-1, 1]: its squared error is four times ours.
            yield "preprocessor", self.pixel_weight * 4 * mse(z, x).mean() + self.discriminator_weight * fooled


def _adversarial_loss(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy of the discriminator's logits, with the same label for all images."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
