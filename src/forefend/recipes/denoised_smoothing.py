"""Denoised smoothing: a denoiser for randomized smoothing (Salman et al., arXiv 2003.01908)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.checks import predictions
from forefend.losses import ce, mse
from forefend.models.guide import Guide, check_guides
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, weights_of
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.runtime.labels import labeled

Objective = Callable[[Guide, Tensor, Tensor, Tensor], Tensor]  # (guide, denoised, clean, y) -> (B,)


@labeled("reconstruction")
def reconstruction(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error in pixels (Eq. 4, "MSE")."""
    return mse(z, x)


@labeled("stability")
def stability(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the guide's prediction on the clean image (Eq. 5, "Stability")."""
    with torch.no_grad():
        predicted = predictions(guide(x))
    return ce(guide(z), predicted)


@labeled("classification")
def classification(guide: Guide, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with the label."""
    return ce(guide(z), y)


@dataclass(frozen=True)
class DenoisedSmoothing(Recipe):
    """Train a denoiser on Gaussian noise, for smoothing (Salman et al., arXiv 2003.01908).

    Source: Salman et al., arXiv 2003.01908.

    Args:
        sigma: standard deviation of the noise, in [0, 1]-pixel units (0.25).
        objective: the denoiser's loss: reconstruction, stability or classification.
        epochs: passes over the training set (90).
        batch_size: images a step (256).
        lr: Adam's learning rate (1e-3).
        weight_decay: Adam's weight decay (1e-4).
        milestones: shares of training after which the learning rate falls (every 30 of 90 epochs).
        decay: factor on the learning rate at each milestone (0.1).
    """

    roles = ("preprocessor", "guides")

    sigma: float = 0.25
    objective: Objective = reconstruction
    epochs: int = 90
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    decay: float = 0.1

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train the denoiser; the classifier is frozen."""
        check_guides(networks.guides)
        weights = weights_of(networks.preprocessor, "Denoised smoothing", "preprocessor")
        adam = torch.optim.Adam(weights, self.lr, weight_decay=self.weight_decay)
        schedule = step_decay(self.milestones, self.decay)
        return {"preprocessor": Trainable({"preprocessor": networks.preprocessor}, adam, schedule)}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Denoise noisy images, which are not clipped, as in randomized smoothing."""
        noisy = batch.x + self.sigma * batch.rng.normal(batch.x)
        z = train.preprocessor(noisy)
        losses = [self.objective(guide, z, batch.x, batch.y) for guide in train.guides]
        yield "preprocessor", torch.stack(losses).mean()
