"""The constants of the corruptions for each severity, for small and for large images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from forefend.checks import InputError

SEVERITIES = (1, 2, 3, 4, 5)
SMALL_SIDE = 96  # up to this shorter side, images use the constants of CIFAR-10-C, others those of ImageNet-C
Constants = TypeVar("Constants")
Five = tuple[Constants, Constants, Constants, Constants, Constants]


@dataclass(frozen=True)
class Scale(Generic[Constants]):
    """The constants of a corruption for five severities, of CIFAR-10-C and of ImageNet-C.

    Source: Hendrycks and Dietterich, 1903.12261, and their programs (hendrycks/robustness).
    """

    small: Five[Constants]
    large: Five[Constants]

    def at(self, severity: int, x: Tensor) -> Constants:
        """Return the constants for images of the size of `x`, `(B, C, H, W)`."""
        check_severity(severity)
        return (self.small if min(x.shape[2:]) <= SMALL_SIDE else self.large)[severity - 1]


def check_severity(severity: int) -> None:
    """Refuse a severity that is not 1, 2, 3, 4 or 5."""
    if severity not in SEVERITIES:
        raise InputError(f"The severity is {severity}, expected a whole number from 1 to 5.")
