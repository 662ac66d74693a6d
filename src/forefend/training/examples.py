"""Pictures of a training for trackers: a few images, attacked, and what the preprocessor makes of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.models.defended import pipelines
from forefend.training.best_epoch import STEPS
from forefend.training.loop import Loop

COUNT = 4  # images
TIMES = 10  # that pictures are made in a training
SMALLEST = 64  # pixels of a side; smaller images are enlarged


def examples(loop: Loop) -> dict[str, Any]:
    """Return pictures after about ten epochs of a training and after the last, else none.

    The attack is PGD against what is in training, in the recipe's threat model. Nothing of the training changes.

    Args:
        loop: the training, after an epoch.

    Returns:
        By title, pictures as uint8 arrays `(B, H, W, 3)`; those of the preprocessor only where there is one.
    """
    epoch, epochs = loop.state.step // loop.batches.per_epoch, loop.batches.epochs
    if epoch % math.ceil(epochs / TIMES) and epoch < epochs:
        return {}
    networks, attack = loop.evaluated, loop.recipe.inner_attack()
    batch = loop.batches.few(COUNT)
    found = {"examples/clean": batch.x}
    if attack is not None:
        f = pipelines(networks.preprocessor, list(networks.guides) or [networks.classifier])
        pgd = PGD(attack.threat, STEPS, attack.threat.radius / 4, loss=Mean(ce))
        found["examples/attacked"] = pgd(f, batch.x, batch.y, rng=batch.rng)
    if next(networks.preprocessor.parameters(), None) is not None:
        with torch.no_grad():
            found |= {f"{title}, processed": networks.preprocessor(x) for title, x in found.items()}
    return {title: _pixels(x) for title, x in found.items()}


def _pixels(x: Tensor) -> Any:
    """Return images `(B, C, H, W)` in [0, 1] as bytes `(B, H, W, 3)`, enlarged where they are small."""
    scale = max(1, SMALLEST // min(x.shape[-2:]))
    colors = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
    large = colors.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return (255 * large.detach().float().clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
