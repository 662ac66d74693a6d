"""A classifier of known robust accuracy, images for it, and an attack that ignores its threat model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forefend import data
from forefend.attacks.pgd import fgsm
from forefend.data import ImageDataset
from forefend.evaluation.trial import Trial
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf


class Threshold(nn.Module):
    """Class 1 exactly where the mean pixel is above the threshold."""

    def __init__(self, at: float = 0.5, scale: float = 30.0) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        above = self.scale * (x.mean((1, 2, 3)) - self.at)
        return torch.stack((-above, above), 1)


def levels(wrong: int = 0) -> ImageDataset:
    """Forty flat images of 2x2 pixels at 0.5 ± 0.01, 0.03 … 0.39, labeled by side; the first few labeled wrongly."""
    offset = torch.arange(20) * 0.02 + 0.01
    level = 0.5 + torch.cat((offset, -offset))
    y = (level > 0.5).long()
    y[:wrong] = 1 - y[:wrong]
    return data.from_tensors("levels", level.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(), y)


def robust_share(radius: float, wrong: int = 0) -> float:
    """The share of `levels` that no attack in l∞ can move across the threshold."""
    kept = [0.02 * i + 0.01 > radius for i in range(20)]
    return (sum(kept[wrong:]) + sum(kept)) / 40


@dataclass(frozen=True)
class Shift:
    """Adds the same to every pixel, whatever the threat model says; tells `calls` how many images it was given."""

    by: float
    calls: list[int]

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        self.calls.append(len(x))
        return (x + self.by).clamp(0, 1)

    def __str__(self) -> str:
        return f"Shift({self.by})"


def curve(radii: tuple[float, ...]) -> list[Trial]:
    """FGSM at each radius; on a threshold it is as strong as any attack."""
    return [Trial("FGSM", fgsm(Linf(radius)), Linf(radius)) for radius in radii]
