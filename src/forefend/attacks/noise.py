"""Random noise: what an attack must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel


@dataclass(frozen=True, repr=False)
class Noise:
    """A random allowed image, whatever the classifier says.

    Args:
        threat: where it lies.
    """

    threat: ThreatModel
    gradients = 0
    forwards = 0
    averages = True  # it asks the pipeline nothing, so that one which answers at random cannot mislead it

    def __str__(self) -> str:
        return f"Noise({self.threat})"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Noisy images."""
        return self.threat.noise(x, rng)
