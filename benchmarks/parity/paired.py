"""Paired: two ways judged on the same images, so that what is hard for both does not blur the difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forefend.checks import InputError
from forefend.evaluation.statistics import Z95

Lost = Mapping[int, bool]  # by dataset index, whether the image is misclassified in the end


@dataclass(frozen=True)
class Paired:
    """How much more accurate one way is than another, in shares.

    Args:
        n: images.
        difference: mean over images and pairs; above 0 the first is better.
        low: lower end of its 95% interval, Agresti and Min's.
        high: upper end.
        each: the difference of every pair of runs, in the order of the pairs.
    """

    n: int
    difference: float
    low: float
    high: float
    each: tuple[float, ...]

    def non_inferior(self, margin: float) -> bool:
        """Whether the whole interval lies above `-margin`: the first is worse by less than that, if at all."""
        return self.low > -margin


def paired(first: Sequence[Lost], second: Sequence[Lost]) -> Paired:
    """The difference of two ways' accuracies, from runs in pairs (of one seed, say) on the same images.

    Each image's difference is averaged over the pairs, and the interval is that of their mean over images: it speaks of
    these runs, and how much other seeds would differ, `each` hints at. So that it has a width where the runs agree
    throughout, two images are added, one of them half for the first way and half for the second.

    Args:
        first: verdicts of each run of one way.
        second: of the other, in the same order.

    Raises:
        InputError: no pair, a run without a partner, fewer than two images, or other images than in the first run.

    Source: Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    """
    if len(first) != len(second) or not first:
        raise InputError(f"{len(first)} runs stand beside {len(second)}: give pairs, one at least.")
    images = sorted(first[0])
    if len(images) < 2 or any(sorted(run) != images for run in (*first, *second)):
        raise InputError("The runs were not judged on the same two or more images: judge all on the same ones.")
    pairs = list(zip(first, second, strict=True))
    differences = [math.fsum(theirs[i] - ours[i] for ours, theirs in pairs) / len(pairs) for i in images]
    n = len(images)
    center = math.fsum(differences) / (n + 2)
    variance = (math.fsum(d * d for d in differences) + 1) / (n + 2) - center**2
    spread = Z95 * math.sqrt(variance / (n + 2))
    each = tuple((sum(theirs.values()) - sum(ours.values())) / n for ours, theirs in pairs)
    return Paired(n, math.fsum(differences) / n, center - spread, center + spread, each)
