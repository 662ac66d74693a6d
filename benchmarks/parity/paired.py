"""Paired comparison of two variants on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forefend.checks import InputError
from forefend.evaluation.statistics import Z95

Verdicts = Mapping[int, bool]  # by dataset index, whether the image is misclassified


@dataclass(frozen=True)
class Paired:
    """The difference of two accuracies, as a share in [-1, 1].

    Args:
        n: number of images.
        difference: mean over images and pairs of runs; positive where the first variant is better.
        low: lower end of its 95% interval.
        high: upper end.
        each: the difference of every pair of runs, in the order of the pairs.
    """

    n: int
    difference: float
    low: float
    high: float
    each: tuple[float, ...]

    def non_inferior(self, margin: float) -> bool:
        """Return whether the whole interval lies above `-margin`."""
        return self.low > -margin


def paired(first: Sequence[Verdicts], second: Sequence[Verdicts]) -> Paired:
    """Compare the accuracies of two variants, from pairs of runs (e.g. with the same seed) on the same images.

    The difference of each image is averaged over the pairs. The interval is that of the mean over images. It describes
    these runs; `each` indicates how much other seeds would differ. Two images are added, on which the variants disagree
    in opposite directions, so that the interval of runs that agree on every image has a width.

    Args:
        first: verdicts of each run of one variant.
        second: verdicts of each run of the other, in the same order.

    Raises:
        InputError: there is no pair, a run has no partner, there are fewer than two images, or the images differ.

    Source: Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    """
    if len(first) != len(second) or not first:
        raise InputError(
            f"{len(first)} and {len(second)} runs were given, expected as many of both and at least one pair."
        )
    images = sorted(first[0])
    if len(images) < 2 or any(sorted(run) != images for run in (*first, *second)):
        raise InputError("The runs have other images, or fewer than two: evaluate all runs on the same images.")
    pairs = list(zip(first, second, strict=True))
    differences = [math.fsum(theirs[i] - ours[i] for ours, theirs in pairs) / len(pairs) for i in images]
    n = len(images)
    center = math.fsum(differences) / (n + 2)
    variance = (math.fsum(d * d for d in differences) + 1) / (n + 2) - center**2
    spread = Z95 * math.sqrt(variance / (n + 2))
    each = tuple((sum(theirs.values()) - sum(ours.values())) / n for ours, theirs in pairs)
    return Paired(n, math.fsum(differences) / n, center - spread, center + spread, each)
