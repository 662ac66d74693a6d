"""Certificates of randomized smoothing, the counts and the table of them.

A certificate holds for the smoothed classifier alone, in l2, with probability at least 1 - alpha.
All other robustness in this package is measured against the attacks that were tried, and proves
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from forefend.checks import InputError
from forefend.evaluation.certification.smoothing_config import SmoothingConfig
from forefend.evaluation.statistics import wilson
from forefend.runtime.files import DamagedLines, leave, read_records
from forefend.runtime.formatting import percent, text_table

RADII = (0.0, 0.25, 0.5)  # where the papers' tables begin


@dataclass(frozen=True)
class Certificate:
    """What was proved of one image.

    Args:
        name: the name of the smoothed network in tables.
        model: key of the data and the network.
        smoothing: identity of the `SmoothingConfig`.
        index: dataset index of the image.
        image: digest of the image and its label.
        label: the image's true class.
        guess: the class with most of the first votes.
        votes: the number of samples that each class was given to.
        certified: the class that CERTIFY returned; None where it abstained.
        radius: the l2 radius within which that class is proved, in [0, 1]-pixel units; 0 where it
            abstained.
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

    def __post_init__(self) -> None:
        if type(self.radius) not in (int, float) or not 0 <= self.radius < math.inf:
            raise InputError(f"its radius is {self.radius!r:.40}, expected a number of at least 0")
        numbers = [self.index, self.label, self.guess, *self.votes, *filter(None, (self.certified, self.predicted))]
        if any(type(number) is not int for number in numbers):
            raise InputError("its classes and votes are not all integers")

    @property
    def proven(self) -> float:
        """The radius within which the true class is proved; 0 if another was, or none."""
        return self.radius if self.certified == self.label else 0.0


@final
class Certificates(list[Certificate]):
    """The certificates of one or several models; `print` shows the certified accuracy."""

    def __init__(self, certificates: Iterable[Certificate], config: SmoothingConfig) -> None:
        super().__init__(certificates)
        self.config = config

    def __str__(self) -> str:
        return self.table([radius for radius in RADII if radius < self.config.largest_radius])

    def table(self, radii: Sequence[float]) -> str:
        """Return a table for the terminal, and under it what it proves.

        Args:
            radii: where certified accuracy is counted, in [0, 1]-pixel units.
        """
        rows = []
        for name in dict.fromkeys(certificate.name for certificate in self):
            own = [certificate for certificate in self if certificate.name == name]
            counts = [predicted(own), abstained(own), *(certified(own, radius) for radius in radii)]
            shares = [percent(count / len(own), *wilson(count, len(own)), len(own)) for count in counts]
            rows.append([name, *shares, f"{average_radius(own):.3f}"])
        heading = ["smoothed", "clean", "abstained", *(f"L2 {radius:g}" for radius in radii), "ACR"]
        return f"{text_table(heading, rows)}\n{caption(self.config)}"


def caption(config: SmoothingConfig) -> str:
    """Return what a table of certificates proves, and what it does not."""
    return (
        f"certified accuracy in %, [95% Wilson interval over images]; abstentions count as wrong; {config}\n"
        "L2 columns are proved: for the smoothed classifier alone, in l2, for each image with probability at least "
        f"1 - {config.alpha:g}; no radius above {config.largest_radius:.4g} can be.\n"
        "clean is PREDICT's accuracy; ACR the average certified radius. Only certify proves; results of evaluate are "
        "measured."
    )


def read(path: Path, damaged: DamagedLines = leave) -> list[Certificate]:
    """Return all certificates in `path`, oldest first; an incomplete last line is dropped.

    A line that is damaged or edited is left out, and `damaged` receives it.
    """
    return [found for _, found in read_records(path, Certificate, damaged)]


def certified(certificates: Sequence[Certificate], radius: float) -> int:
    """Return how many images provably keep their true class under changes up to `radius`.

    Args:
        certificates: one for each image; abstentions and wrong classes do not count.
        radius: in [0, 1]-pixel units; 0 counts the images whose true class is certified at all.
    """
    return sum(c.proven > radius for c in certificates)  # the proof holds strictly within a certificate's radius


def predicted(certificates: Sequence[Certificate]) -> int:
    """Return how many clean images the smoothed classifier classifies correctly, by PREDICT."""
    return sum(c.predicted == c.label for c in certificates)


def abstained(certificates: Sequence[Certificate]) -> int:
    """Return for how many images CERTIFY abstained."""
    return sum(c.certified is None for c in certificates)


def average_radius(certificates: Sequence[Certificate]) -> float:
    """Return the mean certified radius; a wrong class or an abstention counts as 0.

    Source: average certified radius, Zhai et al., arXiv 2001.02378, Eq. 3.
    """
    return sum(c.proven for c in certificates) / len(certificates)
