"""Natural training of a classifier, such as a guide."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from forefend.attacks.base import Attack
from forefend.losses import ce
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.schedules import cosine
from forefend.recipes.state import TrainState


@dataclass(frozen=True)
class Natural(Recipe):
    """Train a classifier on clean images with cross-entropy.

    Source: ours; the papers do not fix it for our networks, and Adam with a cosine schedule suits all of them.

    Args:
        epochs: passes over the training set (ours).
        batch_size: images a step (ours).
        lr: Adam's largest learning rate (ours).
        weight_decay: decoupled weight decay (ours).
    """

    roles = ("classifier",)

    epochs: int = 10
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-2

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the classifier."""
        weights = weights_of(networks.classifier, "Natural training", "classifier")
        adam = torch.optim.AdamW(weights, self.lr, weight_decay=self.weight_decay)
        return {"classifier": Trainable({"classifier": networks.classifier}, adam, cosine)}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Take a step of empirical risk minimization."""
        yield "classifier", ce(train.classifier(batch.x), batch.y).mean()
