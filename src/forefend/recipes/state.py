"""What a training run keeps from step to step, beside networks and optimizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class TrainState:
    """The state of a training run. A checkpoint stores every field, as JSON values and CPU tensors.

    Args:
        step: number of steps taken.
        threads: number of threads of the arithmetic, on which rounding depends; 0 before the first checkpoint.
        losses: sum of losses and number of losses in this epoch, for each trainable.
        per_image: the recipe's tensors, addressed by dataset index.
        perturbations: the inner attack's warm starts `(N, C, H, W)` int8, addressed by row; None without any.
        lr_factor: factor on every learning rate.
        plateau_loss: lowest validation loss so far.
        plateau_epochs: number of epochs since then.
        best_score: highest validation score so far.
        best_weights: the state dict of that epoch.
        best: the number of that epoch and what was measured after it, if training keeps the best; else empty.
        monitor_best: highest robust accuracy that the monitor measured.
        fallen_back: whether training continues with several steps after catastrophic overfitting.
    """

    step: int = 0
    threads: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    per_image: dict[str, Tensor] = field(default_factory=dict)
    perturbations: Tensor | None = None
    lr_factor: float = 1.0
    plateau_loss: float = float("inf")
    plateau_epochs: int = 0
    best_score: float = -float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    monitor_best: float = 0.0
    fallen_back: bool = False
