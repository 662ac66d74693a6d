"""Severity: the constants of the corruptions, of which small images and large ones have their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from forefend.checks import InputError

SEVERITIES = (1, 2, 3, 4, 5)
SMALL_SIDE = 96  # images whose shorter side is no longer take CIFAR-10-C's constants, others ImageNet-C's
Constants = TypeVar("Constants")
Five = tuple[Constants, Constants, Constants, Constants, Constants]


@dataclass(frozen=True)
class Scale(Generic[Constants]):
    """What a corruption's five severities mean.

    Args:
        small: as CIFAR-10-C was made, for 32 × 32 pixels.
        large: as ImageNet-C was made, for 224 × 224 pixels.

    Source: Hendrycks and Dietterich, 1903.12261, and the two programs that made these sets (hendrycks/robustness).
    """

    small: Five[Constants]
    large: Five[Constants]

    def at(self, severity: int, x: Tensor) -> Constants:
        """The constants for images like `x`, `(B, C, H, W)`.

        Raises:
            InputError: the severity is not 1, 2, 3, 4 or 5.
        """
        check_severity(severity)
        return (self.small if min(x.shape[2:]) <= SMALL_SIDE else self.large)[severity - 1]


def check_severity(severity: int) -> None:
    """Refuse a severity that is not 1, 2, 3, 4 or 5."""
    if severity not in SEVERITIES:
        raise InputError(f"The severity is {severity}, expected a whole number from 1 to 5.")
