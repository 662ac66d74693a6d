from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from forefend.checks import InputError


def constant(progress: float) -> float:
    """A schedule that leaves the learning rate alone."""
    return 1.0


def stepwise(milestones: Sequence[float], factors: Sequence[float]) -> Callable[[float], float]:
    """A schedule that is 1 at first and each of `factors` from its milestone of progress on.

    Raises:
        InputError: there are not as many factors as milestones.
    """
    if len(factors) != len(milestones):
        raise InputError(f"There are {len(factors)} factors for {len(milestones)} milestones: give one for each.")

    def schedule(progress: float) -> float:
        passed = sum(progress >= milestone for milestone in milestones)
        return (1.0, *factors)[passed]

    return schedule


def one_cycle(warm_up: float) -> Callable[[float], float]:
    """A schedule that rises from 1/25 to 1 over the share `warm_up`, then falls to almost 0, along half cosines.

    Source: Smith and Topin, 1708.07120, in the shape that is usual today; momentum stays where it is.
    """

    def schedule(progress: float) -> float:
        if progress < warm_up:
            return 1 - (1 - 1 / 25) * cosine(progress / warm_up)
        return cosine((progress - warm_up) / (1 - warm_up))

    return schedule


def step_decay(milestones: Sequence[float], factor: float) -> Callable[[float], float]:
    """A schedule that multiplies the learning rate by `factor` at each milestone of progress."""

    def schedule(progress: float) -> float:
        return math.prod(factor for milestone in milestones if progress >= milestone)

    return schedule


def cosine(progress: float) -> float:
    """A schedule that falls from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2
