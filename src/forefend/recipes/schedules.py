"""Learning rate schedules: from progress in [0, 1) to a factor on the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from forefend.checks import InputError


def constant(progress: float) -> float:
    """Keep the learning rate."""
    return 1.0


def stepwise(milestones: Sequence[float], factors: Sequence[float]) -> Callable[[float], float]:
    """Return a schedule that starts at 1 and changes to each of `factors` at its milestone of progress.

    Raises:
        InputError: the numbers of factors and milestones differ.
    """
    if len(factors) != len(milestones):
        raise InputError(f"There are {len(factors)} factors for {len(milestones)} milestones: give one for each.")

    def schedule(progress: float) -> float:
        passed = sum(progress >= milestone for milestone in milestones)
        return (1.0, *factors)[passed]

    return schedule


def one_cycle(warm_up: float) -> Callable[[float], float]:
    """Return a schedule that rises from 1/25 to 1 over the share `warm_up`, then falls to 0, along half cosines.

    Source: Smith and Topin, 1708.07120, in the shape that is usual today, with constant momentum.
    """

    def schedule(progress: float) -> float:
        if progress < warm_up:
            return 1 - (1 - 1 / 25) * cosine(progress / warm_up)
        return cosine((progress - warm_up) / (1 - warm_up))

    return schedule


def step_decay(milestones: Sequence[float], factor: float) -> Callable[[float], float]:
    """Return a schedule that multiplies the learning rate by `factor` at each milestone of progress."""

    def schedule(progress: float) -> float:
        return math.prod(factor for milestone in milestones if progress >= milestone)

    return schedule


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2
