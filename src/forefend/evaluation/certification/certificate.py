"""Certificates: what randomized smoothing proved of each image, appended to disk as it is proved. No torch here.

A certificate holds for the smoothed classifier alone, in l2, with probability at least 1 - alpha. Everything else that
this package reports of robustness is measured against the attacks that were tried, and proves nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import final

from forefend.checks import InputError, check_numbers
from forefend.evaluation.statistics import lower_bound, two_sided
from forefend.runtime.files import complete_lines


@final
@dataclass(frozen=True)
class SmoothingConfig:
    """How a network is smoothed with Gaussian noise, and how surely its radius is to be proved.

    Source: Cohen et al., arXiv 1902.02918, section 3.2.

    Args:
        sigma: standard deviation of the noise, in [0, 1]-pixel units; the noisy image is never clipped.
        samples: noisy copies of an image whose votes prove the radius (Cohen's n; the paper takes 100,000).
        first: noisy copies whose votes guess the class beforehand (Cohen's n0, 100).
        alpha: probability with which a certificate may be wrong, in (0, 1).
        seed: of the noise.

    Raises:
        InputError: a number is out of its range, or the samples are too few to prove any radius.
    """

    sigma: float = 0.25
    samples: int = 1000
    first: int = 100
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"The noise's sigma is {self.sigma:g}, expected a finite number above 0, such as 0.25.")
        if not 0 < self.alpha < 1:
            raise InputError(f"The alpha given is {self.alpha:g}, expected a number between 0 and 1, such as 0.001.")
        if self.first < 1:
            raise InputError(f"The class is to be guessed from {self.first} samples, expected at least 1 (--first).")
        check_numbers({"seed": self.seed})
        self._check_samples()

    def _check_samples(self) -> None:
        least = 1 + math.floor(math.log(self.alpha) / math.log(0.5))
        if self.samples < least:
            raise InputError(
                f"With {self.samples} samples and alpha {self.alpha:g} the largest radius that can be certified is 0, "
                f"even if all of them agreed: take at least {least} samples."
            )
        if self.samples < self.first:
            raise InputError(
                f"The {self.samples} samples that prove a radius are fewer than the {self.first} that guess the class "
                "(first), which proves nothing: give more samples, or a smaller first."
            )

    def __str__(self) -> str:
        """What tells one smoothing's certificates from another's."""
        return f"sigma={self.sigma!r} first={self.first} samples={self.samples} alpha={self.alpha!r} seed={self.seed}"

    @property
    def largest_radius(self) -> float:
        """The radius that is certified where all samples agree, in [0, 1]-pixel units: no image can have a larger."""
        return self.radius(self.samples) or 0.0

    def radius(self, votes: int) -> float | None:
        """The l2 radius that `votes` of the `samples` prove, in [0, 1]-pixel units; None is to abstain.

        The smoothed classifier gives the voted class to every image nearer than that, with probability at least
        1 - alpha. Source: Cohen et al., arXiv 1902.02918, CERTIFY.
        """
        bound = lower_bound(votes, self.samples, self.alpha)
        return self.sigma * NormalDist().inv_cdf(bound) if bound > 0.5 else None

    def winner(self, votes: Sequence[int]) -> int | None:
        """The class that the smoothed classifier gives, from the votes of each class; None is to abstain.

        It is wrong with probability at most alpha, and proves no radius. Source: Cohen et al., arXiv 1902.02918,
        PREDICT.

        Args:
            votes: how often each of the K classes was given to noisy copies of the image.
        """
        most, *others = sorted(votes, reverse=True)
        return list(votes).index(most) if two_sided(most, max(others, default=0)) <= self.alpha else None

    def check_radius(self, radius: float) -> None:
        """Refuse a radius at which these samples can certify nothing.

        Raises:
            InputError: it is no finite number of at least 0, or it is out of reach.
        """
        if not 0 <= radius < math.inf:
            raise InputError(f"The radius given is {radius:g}, expected a finite number of at least 0.")
        if radius >= self.largest_radius:
            raise InputError(
                f"The radius {radius:g} is out of reach: sigma {self.sigma:g}, {self.samples} samples and alpha "
                f"{self.alpha:g} certify less than {self.largest_radius:.4g}; take more samples or a larger sigma."
            )


@dataclass(frozen=True)
class Certificate:
    """What was proved of one image.

    Args:
        name: what tables call the network that was smoothed.
        model: key of what was certified: the data and the network's fingerprint.
        smoothing: the noise, the samples and alpha, as `str(Smoothing)`.
        index: dataset index of the image.
        image: digest of the image and its label, so that a certificate is not taken for another image's.
        label: the image's true class.
        guess: the class guessed from the first votes.
        votes: how often each class was given to the samples.
        certified: the class that CERTIFY returned; None where it abstained.
        radius: the l2 radius within which that class is proved, in [0, 1]-pixel units; 0 where it abstained.
        predicted: the class that PREDICT returned from the same votes; None where it abstained.
    """

    name: str
    model: str
    smoothing: str
    index: int
    image: str
    label: int
    guess: int
    votes: list[int]
    certified: int | None
    radius: float
    predicted: int | None

    @property
    def proven(self) -> float:
        """The radius within which the *true* class is proved; 0 where CERTIFY abstained or returned another class."""
        return self.radius if self.certified == self.label else 0.0


def read(path: Path) -> list[Certificate]:
    """All certificates in `path`, oldest first; none when it does not exist. A line that was cut short is dropped.

    Raises:
        InputError: a whole line is not a certificate.
    """
    return [_certificate(path, number, line) for number, line in enumerate(complete_lines(path), start=1)]


def _certificate(path: Path, number: int, line: bytes) -> Certificate:
    try:
        return Certificate(**json.loads(line))
    except (ValueError, TypeError):
        raise InputError(
            f"Line {number} of {path} is no certificate: the file was edited or damaged; delete it to certify again."
        ) from None


def certified(certificates: Sequence[Certificate], radius: float) -> int:
    """How many images are proved to keep their true class under every l2 change of no more than `radius`.

    Abstentions and wrong classes are not among them. The proof holds strictly inside each certificate's own radius, so
    that must be the larger one.

    Args:
        certificates: one for each image.
        radius: in [0, 1]-pixel units; 0 counts the images whose true class is certified at all.
    """
    return sum(c.proven > radius for c in certificates)


def predicted(certificates: Sequence[Certificate]) -> int:
    """How many clean images the smoothed classifier gets right, by PREDICT; abstentions count as wrong."""
    return sum(c.predicted == c.label for c in certificates)


def abstained(certificates: Sequence[Certificate]) -> int:
    """For how many images CERTIFY abstained."""
    return sum(c.certified is None for c in certificates)


def average_radius(certificates: Sequence[Certificate]) -> float:
    """The mean over all images of the radius certified, in [0, 1]-pixel units; a wrong class or an abstention is 0.

    Source: average certified radius, Zhai et al., arXiv 2001.02378, Eq. 3.
    """
    return sum(c.proven for c in certificates) / len(certificates)
