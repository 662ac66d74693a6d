"""Collapse: an alarm for catastrophic overfitting, when training on single steps stops to defend against several.

The network then withstands the one step that it is trained on and nothing else, within an epoch and without a sign in
the loss (Wong et al., 2001.03994; Andriushchenko and Flammarion, 2007.02617).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError
from forefend.losses import Mean, ce
from forefend.models.defense import pipelines
from forefend.recipes.base import Batch, Memory, Networks, Recipe
from forefend.threat_models.base import ThreatModel
from forefend.training.batches import FALLEN

BEST = "watch/best"
Answer = Callable[[Memory, str], None]  # what is done about a collapse: the memory, and the sentence that tells of it


def stop(memory: Memory, told: str) -> None:
    """End the training.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{told}: train with more steps, or go on from the checkpoint with --on-collapse fall-back (in Python with "
        "Watch(fall_back)), which goes over to them."
    )


def fall_back(memory: Memory, told: str) -> None:
    """Go on from these weights with the recipe's own attack, or with seven steps of it where it takes but one."""
    memory[FALLEN] = torch.ones((), dtype=torch.float64)
    print(f"{told}: going on with several steps.", flush=True)


ANSWERS: dict[str, Answer] = {"stop": stop, "fall-back": fall_back}


@dataclass(frozen=True)
class Monitor:
    """Looks at some training images after each epoch, under ten steps and under one.

    Args:
        answer: what is done about a collapse: stop or fall_back.
        images: how many are looked at.
        steps: of the PGD that tells, each a quarter of the radius.
        best_share: a collapse is robust accuracy below this share of its best so far ...
        gap: ... that also lies this far below the accuracy under FGSM: a training that merely goes badly loses both.

    Raises:
        InputError: no function for an answer, or a look at nothing.
    """

    answer: Answer = stop
    images: int = 128
    steps: int = 10
    best_share: float = 0.5
    gap: float = 0.3

    def __post_init__(self) -> None:
        if not callable(self.answer):
            raise InputError(
                f"A watch was given the answer {self.answer!r}, expected forefend.collapse.stop or fall_back."
            )
        if self.images < 1 or self.steps < 1:
            raise InputError(
                f"A watch looks at {self.images} images under {self.steps} steps, expected at least 1 each."
            )

    def look(self, networks: Networks, threat: ThreatModel, batch: Batch) -> dict[str, float]:
        """Accuracy under FGSM and under PGD, in [0, 1], over all guides; call it on networks in crafting form."""
        f = pipelines(networks.preprocessor, list(networks.guides) or [networks.classifier])
        attacks = {
            "fgsm": fgsm(threat, Mean(ce)),
            f"pgd-{self.steps}": PGD(threat, self.steps, threat.radius / 4, loss=Mean(ce)),
        }
        return {name: _accuracy(attack, f, batch) for name, attack in attacks.items()}

    def judge(self, memory: Memory, seen: dict[str, float], epoch: int) -> None:
        """Compare with the best epoch so far, and answer a collapse; once it has been answered, say no more.

        Raises:
            InputError: training has collapsed and shall stop.
        """
        single, robust = seen.values()
        best = float(memory.get(BEST, torch.zeros(())))
        memory[BEST] = torch.tensor(max(best, robust), dtype=torch.float64)
        if FALLEN not in memory and robust < self.best_share * best and robust < single - self.gap:
            self.answer(
                memory,
                f"Training collapsed in epoch {epoch}: {robust:.1%} of {self.images} training images withstand "
                f"PGD-{self.steps}, after {best:.1%} at best, while {single:.1%} withstand the single step",
            )


def threat_of(recipe: Recipe) -> ThreatModel:
    """What a recipe trains against.

    Raises:
        InputError: nothing.
    """
    threat = getattr(recipe, "threat", None)
    if not isinstance(threat, ThreatModel):
        raise InputError(f"{type(recipe).__name__} trains against no attack, so there is no collapse to watch for.")
    return threat


def _accuracy(attack: Attack, f: Callable[[Tensor], list[Tensor]], batch: Batch) -> float:
    right: list[Tensor] = []
    for rows in torch.arange(len(batch.x), device=batch.x.device).split(64):
        x, y = batch.x[rows], batch.y[rows]
        x_adv: Any = attack(f, x, y, rng=batch.rng.select(rows))
        with torch.no_grad():
            right += [(logits.argmax(1) == y).double() for logits in f(x_adv)]
    return float(torch.cat(right).mean())
