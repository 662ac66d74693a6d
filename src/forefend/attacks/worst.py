"""The worst of several attempts, image by image: restarts, and different attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.runtime.rng import KeyedRNG


@dataclass(frozen=True, repr=False)
class WorstOf:
    """Run attacks in turn, each on the images that the ones before it did not break.

    Attempt r draws its start as restart r, so restarts of one attack are `WorstOf((attack,) * n, lost)`.

    Args:
        attacks: tried in this order.
        lost: `(x_adv, y) -> (B,)` bool, whether each image is broken; features cannot judge, so this is asked.
    """

    attacks: tuple[Attack, ...]
    lost: Callable[[Tensor, Tensor], Tensor]

    def __str__(self) -> str:
        return " | ".join(map(str, self.attacks))

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        """The first breaking image found for each x, else the last attempt.

        Args:
            f: what the attacker sees.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: labels, `(B,)`.
            rng: where the starts come from.
        """
        x_adv = x.clone()
        standing = torch.arange(len(x), device=x.device)
        for restart, attack in enumerate(self.attacks):
            if not len(standing):
                break
            attempt = attack(f, x[standing], target[standing], rng=rng.select(standing).fold_in(restart=restart))
            x_adv[standing] = attempt
            standing = standing[~self.lost(attempt, target[standing])]
        return x_adv
