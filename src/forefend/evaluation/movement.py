"""How far attacks and a preprocessor move images: the mean |Δ| of JATP. This module does not need torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Movement:
    """Mean absolute differences of pixels in [0, 1], over the images of a trial.

    On clean images `attack` is 0, and the other two are equal. Source: Zhou et al., arXiv 2106.05453, Fig. 2b, which
    gives `attack` and `output` in 8-bit pixel values.

    Args:
        attack: |x_adv - x|, of the last adversarial image x_adv that was evaluated.
        output: |g(x_adv) - x|, from the clean image to the output of the preprocessor g.
        preprocessor: |g(x_adv) - x_adv|, what the preprocessor changes.
        images: the number of images.
    """

    attack: float
    output: float
    preprocessor: float
    images: int


def mean_of(moved: Collection[Sequence[float]]) -> Movement | None:
    """Return the means of the three differences over images; None without images."""
    if not moved:
        return None
    attack, output, preprocessor = (fmean(column) for column in zip(*moved, strict=True))
    return Movement(attack, output, preprocessor, len(moved))


def from_json(held: Mapping[str, Mapping[str, Any]]) -> dict[str, Movement]:
    """Return the movement by label of the attack, from what `asdict` made of it."""
    return {label: Movement(**values) for label, values in held.items()}
