"""The noise, the numbers of samples and the confidence of randomized smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

from forefend.checks import InputError, check_numbers
from forefend.evaluation.statistics import lower_bound, two_sided


@final
@dataclass(frozen=True)
class SmoothingConfig:
    """The parameters of randomized smoothing with Gaussian noise, under Cohen's names.

    Source: Cohen et al., arXiv 1902.02918, section 3.2.

    Args:
        sigma: standard deviation of the noise, in [0, 1]-pixel units; noisy images are not clipped.
        n: noisy copies of an image whose votes prove the radius (the paper uses 100,000).
        n0: noisy copies whose votes select the class beforehand (the paper uses 100).
        alpha: probability with which a certificate may be wrong, in (0, 1).
        seed: the seed of the noise.

    Raises:
        InputError: a number is out of its range, or the samples are too few to prove any radius.
    """

    sigma: float = 0.25
    n: int = 1000
    n0: int = 100
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"The noise's sigma is {self.sigma:g}, expected a finite number above 0, such as 0.25.")
        if not 0 < self.alpha < 1:
            raise InputError(f"The alpha given is {self.alpha:g}, expected a number between 0 and 1, such as 0.001.")
        if self.n0 < 1:
            raise InputError(f"The number n0 of samples that select the class is {self.n0}, expected at least 1.")
        check_numbers({"seed": self.seed})
        least = max(1 + math.floor(math.log(self.alpha) / math.log(0.5)), self.n0)
        if self.n < least:
            raise InputError(
                f"The number n of samples is {self.n}, expected at least {least}: no fewer than n0 = {self.n0}, and "
                f"enough to certify a radius at alpha {self.alpha:g}."
            )

    def __str__(self) -> str:
        """The identity in certificates, which must not change."""
        return f"sigma={self.sigma!r} first={self.n0} samples={self.n} alpha={self.alpha!r} seed={self.seed}"

    @property
    def largest_radius(self) -> float:
        """The radius that is certified where all samples agree, in [0, 1]-pixel units."""
        return self.radius(self.n) or 0.0

    def radius(self, votes: int) -> float | None:
        """Return the l2 radius that `votes` of the `n` prove; None to abstain.

        With probability at least 1 - alpha, the smoothed classifier gives the voted class to every
        image within it.
        Source: Cohen et al., arXiv 1902.02918, CERTIFY.
        """
        bound = lower_bound(votes, self.n, self.alpha)
        return self.sigma * NormalDist().inv_cdf(bound) if bound > 0.5 else None

    def winner(self, votes: Sequence[int]) -> int | None:
        """Return the class with significantly most votes; None to abstain.

        It is wrong with probability at most alpha, and proves no radius.
        Source: Cohen et al., arXiv 1902.02918, PREDICT.

        Args:
            votes: the number of noisy copies that each of the K classes was given to.
        """
        most, *others = sorted(votes, reverse=True)
        return list(votes).index(most) if two_sided(most, max(others, default=0)) <= self.alpha else None

    def check_radius(self, radius: float) -> None:
        """Refuse a radius at which these samples cannot certify.

        Raises:
            InputError: it is not a finite number of at least 0, or too large.
        """
        if not 0 <= radius < math.inf:
            raise InputError(f"The radius given is {radius:g}, expected a finite number of at least 0.")
        if radius >= self.largest_radius:
            raise InputError(
                f"The radius {radius:g} is out of reach: sigma {self.sigma:g}, {self.n} samples and alpha "
                f"{self.alpha:g} certify less than {self.largest_radius:.4g}; use more samples or a larger sigma."
            )
