"""HGD: the high-level representation guided denoiser (Liao et al., arXiv 1712.02976)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce, mae
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.defended import Knowledge, oblivious, pipelines
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

Guidance = Callable[[Guide, Tensor, Tensor, Tensor], Tensor]  # (guide, denoised, clean, y) -> (B,)


@labeled("pixel")
def pixel(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error in pixels: the pixel guided denoiser ("PGD" in the paper)."""
    return mae(z, x)


@labeled("logit")
def logit(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error of the guide's logits: the logits guided denoiser (LGD)."""
    with torch.no_grad():
        clean = guide(x)
    return mae(guide(z), clean)


@labeled("feature")
def feature(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error of the guide's last feature map: the feature guided denoiser (FGD)."""
    tap = feature_layers_of(guide.classifier).features
    with torch.no_grad():
        clean = guide.read(x, [tap])[1][tap]
    return mae(guide.read(z, [tap])[1][tap], clean)


@labeled("label")
def label(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The guide's cross-entropy: the class label guided denoiser (CGD)."""
    return ce(guide(z), y)


@dataclass(frozen=True)
class HGD(Recipe):
    """Train a denoiser guided by a classifier's features (Liao et al., arXiv 1712.02976).

    Source: Liao et al., arXiv 1712.02976; the JATP paper's setting (2106.05453, section 4.1) where they differ.

    Args:
        threat: threat model of the examples (JATP paper: l∞, 8/255).
        steps: gradient steps of the examples' attack (JATP paper: 40).
        relative_step: step size as a share of the radius (JATP paper: 0.007 of 8/255).
        sees: target of the attack: oblivious, the classifier alone (as published), or full, the pipeline.
        guidance: the denoiser's loss: pixel, logit, feature or label (the published code's default: feature).
        epochs: passes over the training set (authors' code: 100).
        batch_size: images a step (authors' code: 32).
        lr: Adam's learning rate (authors' code: 0.01).
        milestones: shares of training after which the learning rate falls (authors' code: 60% and 90%).
        decay: factor on the learning rate at each milestone (authors' code: 0.1).
    """

    roles = ("preprocessor", "guides")

    threat: ThreatModel = Linf(8 / 255)
    steps: int = 40
    relative_step: float = 0.007 * 255 / 8
    sees: Knowledge = oblivious
    guidance: Guidance = feature
    epochs: int = 100
    batch_size: int = 32
    lr: float = 0.01
    milestones: tuple[float, ...] = (0.6, 0.9)
    decay: float = 0.1

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the denoiser; the guide is frozen."""
        check_guides(networks.guides)
        adam = torch.optim.Adam(weights_of(networks.preprocessor, "HGD", "preprocessor"), self.lr)
        schedule = step_decay(self.milestones, self.decay)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, adam, schedule)}

    def inner_attack(self) -> PGD:
        """PGD on the mean cross-entropy of the guides."""
        return PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce))

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Denoise adversarial examples; the loss is averaged over the guides, as in the paper's ensemble."""
        f = pipelines(self.sees(craft.preprocessor), craft.guides)
        x_adv = attack(f, batch.x, batch.y, rng=batch.rng)
        z = train.preprocessor(x_adv)
        losses = [self.guidance(guide, z, batch.x, batch.y) for guide in train.guides]
        yield "preprocessor", torch.stack(losses).mean()
