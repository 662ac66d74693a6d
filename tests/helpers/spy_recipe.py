"""A recipe that keeps what the training loop hands to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from forefend.attacks.base import Attack
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable
from forefend.recipes.state import TrainState


@dataclass(frozen=True)
class Spy(Recipe):
    """Keeps what the loop hands over; its loss is the sum of the preprocessor's weights, plus that of a number."""

    seen: list[Batch]
    rates: list[float]
    epochs: int = 2
    batch_size: int = 16
    bad_step: int = -1

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        sgd = torch.optim.SGD(networks.preprocessor.parameters(), 1.0)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, sgd, self.schedule)}

    def schedule(self, progress: float) -> float:
        self.rates.append(progress)
        return 1e-3

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        self.seen.append(batch)
        loss = sum(p.sum() for p in train.preprocessor.parameters())
        yield "preprocessor", loss * (math.nan if len(self.seen) == self.bad_step else 1.0)
