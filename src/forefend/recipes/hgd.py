"""HGD: the high-level representation guided denoiser (Liao et al., arXiv 1712.02976)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce, mae
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.defense import Knowledge, oblivious, pipelines
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, weights_of
from forefend.recipes.schedules import step_decay
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

Guidance = Callable[[Guide, Tensor, Tensor, Tensor], Tensor]  # (guide, denoised, clean, y) -> (B,)


@labeled("pixel")
def pixel(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error in pixels: the pixel guided denoiser (PGD in the paper's words)."""
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
        threat: where the examples lie (JATP paper: l∞, 8/255).
        steps: gradient steps of the examples' attack (JATP paper: 40).
        relative_step: step size as a share of the radius (JATP paper: 0.007 of 8/255).
        sees: what the examples are made from: oblivious, the classifier alone (as published), or full, the pipeline.
        guidance: the denoiser's loss: pixel, logit, feature or label (the published code's default: feature).
        epochs: passes over the training set (authors' code: 100).
        batch_size: images a step (authors' code: 32).
        lr: Adam's learning rate (authors' code: 0.01).
        milestones: shares of training after which the learning rate falls (authors' code: 60% and 90%).
        decay: factor on the learning rate at each milestone (authors' code: 0.1).
    """

    roles: ClassVar[tuple[str, ...]] = ("preprocessor", "guides")

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

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The denoiser alone; the guide is frozen."""
        check_guides(networks.guides)
        adam = torch.optim.Adam(weights_of(networks.preprocessor, "HGD", "preprocessor"), self.lr)
        schedule = step_decay(self.milestones, self.decay)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, adam, schedule)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """One step; several guides are averaged, as the paper's ensemble is."""
        attack = PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=Mean(ce))
        f = pipelines(self.sees(craft.preprocessor), craft.guides)
        x_adv = attack(f, batch.x, batch.y, rng=batch.rng)
        z = train.preprocessor(x_adv)
        losses = [self.guidance(guide, z, batch.x, batch.y) for guide in train.guides]
        yield "preprocessor", torch.stack(losses).mean()
