"""N-FGSM: one gradient step from noise wider than the ball; for training only, as its images leave the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forefend.attacks.base import ThreatField, attacking, input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.base import broadcast_per_image, radius_per_image
from forefend.threat_models.lp import Linf


@dataclass(frozen=True, repr=False)
class NFGSM:
    """One step along the gradient's sign from an image in wide noise, projected onto [0, 1] only.

    Training on it avoids the catastrophic overfitting of training on FGSM. Its images leave the threat model by up
    to `noise + relative_step - 1` radii, so they cannot be used for evaluation.

    Args:
        threat: l∞ threat model, by name or as an object; noise and step are multiples of its radius.
        noise: k, half width of the uniform noise in radii.
        relative_step: α, length of the step in radii (Wong et al.'s fast FGSM takes 1.25).
        loss: loss to maximize, `(prediction, target) -> (B,)`.

    Raises:
        InputError: another norm, or noise below 0.

    Source: de Jorge et al., 2202.01181, Algorithm 1, with the values of the authors' code.
    """

    threat: ThreatField[Linf] = ThreatField(Linf)
    noise: float = 2.0
    relative_step: float = 1.0
    loss: Loss = ce

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise InputError(f"The noise of N-FGSM is {self.noise:g} radii wide: give at least 0.")

    def __str__(self) -> str:
        return (
            f"N-FGSM({self.threat}, noise={self.noise:g}, relative_step={self.relative_step:g}, "
            f"loss={label_of(self.loss)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG | None = None) -> Tensor:
        """Return images for training, `(B, C, H, W)` in [0, 1], some outside the threat model."""
        rng = as_rng(rng, x, str(self))
        radius = broadcast_per_image(radius_per_image(self.threat, x))
        with attacking(f, x, target, self.loss) as (f, x, target):
            noisy = (x + self.noise * radius * (2 * rng.uniform(x) - 1)).clamp(0, 1)
            gradient = input_gradient(f, noisy, target, self.loss, attack=self, index=rng.index)
        return (noisy + self.relative_step * radius * gradient.sign()).clamp(0, 1)
