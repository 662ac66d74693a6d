"""Detection of catastrophic overfitting: training on single steps no longer defends against several.

The network then resists the step that it is trained on and no other attack, within an epoch and without a sign in the
loss (Wong et al., 2001.03994; Andriushchenko and Flammarion, 2007.02617).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError, predictions
from forefend.losses import Mean, ce
from forefend.models.defended import pipelines
from forefend.recipes.base import Batch, Networks
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel

OnDetection = Callable[[TrainState, str], None]  # from the state and a sentence that describes the detection


def stop(state: TrainState, message: str) -> None:
    """Stop the training.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{message}: train with more steps, or resume with monitor=Monitor(fall_back), "
        "which continues with several steps."
    )


def fall_back(state: TrainState, message: str) -> None:
    """Continue with the recipe's own attack, or with seven steps of it if it takes one."""
    state.fallen_back = True
    print(f"{message}: continuing with several steps.", flush=True)


ON_DETECTION: dict[str, OnDetection] = {"stop": stop, "fall-back": fall_back}


@dataclass(frozen=True)
class Monitor:
    """Measures accuracy on some training images after each epoch, under PGD and under FGSM.

    Overfitting is robust accuracy below a share of the best so far that is also far below the accuracy under FGSM:
    training that fails otherwise loses both.

    Args:
        on_detection: `stop` or `fall_back`.
        images: number of images.
        steps: number of PGD steps, of a quarter of the radius each.
        best_share: share of the best robust accuracy so far.
        gap: smallest difference to the accuracy under FGSM.
        single_steps_only: monitor only where a replaceable inner attack takes single steps.

    Raises:
        InputError: `on_detection` is not a function, or a number is below 1.
    """

    on_detection: OnDetection = stop
    images: int = 128
    steps: int = 10
    best_share: float = 0.5
    gap: float = 0.3
    single_steps_only: bool = True

    def __post_init__(self) -> None:
        if not callable(self.on_detection):
            raise InputError(f"on_detection is {self.on_detection!r}, expected a function: stop or fall_back.")
        if self.images < 1 or self.steps < 1:
            raise InputError(f"A Monitor has {self.images} images and {self.steps} steps, expected at least 1 of each.")

    def measure(self, networks: Networks, threat: ThreatModel, batch: Batch) -> dict[str, float]:
        """Return the accuracy under FGSM and under PGD, in [0, 1], over all guides.

        Args:
            networks: the networks in crafting form.
            threat: the recipe's threat model.
            batch: the images.
        """
        f = pipelines(networks.preprocessor, list(networks.guides) or [networks.classifier])
        attacks = {
            "fgsm": fgsm(threat, Mean(ce)),
            f"pgd-{self.steps}": PGD(threat, self.steps, threat.radius / 4, loss=Mean(ce)),
        }
        return {name: accuracy_under(attack, f, batch) for name, attack in attacks.items()}

    def update(self, state: TrainState, accuracy: dict[str, float], epoch: int) -> None:
        """Compare with the best epoch so far, and call `on_detection` once.

        Raises:
            InputError: overfitting was detected, and `on_detection` is `stop`.
        """
        single, robust = accuracy.values()
        best = state.monitor_best
        state.monitor_best = max(best, robust)
        if not state.fallen_back and robust < self.best_share * best and robust < single - self.gap:
            self.on_detection(
                state,
                f"Catastrophic overfitting in epoch {epoch}: accuracy on {self.images} training images is "
                f"{robust:.1%} under PGD-{self.steps}, after {best:.1%} at best, and {single:.1%} under FGSM",
            )


def accuracy_under(attack: Attack, f: Callable[[Tensor], list[Tensor]], batch: Batch) -> float:
    """Return the accuracy of all pipelines on a batch under an attack, in [0, 1]."""
    right: list[Tensor] = []
    for rows in torch.arange(len(batch.x), device=batch.x.device).split(64):
        x, y = batch.x[rows], batch.y[rows]
        x_adv: Any = attack(f, x, y, rng=batch.rng.select(rows))
        with torch.no_grad():
            right += [(predictions(logits, batch.index[rows]) == y).double() for logits in f(x_adv)]
    return float(torch.cat(right).mean())
