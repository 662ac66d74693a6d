"""Random noise: the baseline that an attack must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forefend.attacks.base import ThreatField
from forefend.checks import check_range
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.base import ThreatModel


@dataclass(frozen=True, repr=False)
class Noise:
    """A random image of the threat model; the classifier is not called.

    Args:
        threat: threat model, by name or as an object.
    """

    threat: ThreatField[ThreatModel] = ThreatField()
    gradients = 0
    forwards = 0
    averages = True  # valid for randomized pipelines, as it does not call the pipeline

    def __str__(self) -> str:
        return f"Noise({self.threat})"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG | None = None) -> Tensor:
        """Return noisy images, `(B, C, H, W)`."""
        check_range(x)
        return self.threat.noise(x, as_rng(rng, x, str(self)))
