"""N-FGSM: one step from noise that is wider than the ball. For training alone: its images leave the threat model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forefend.attacks.pgd import input_gradient
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.labels import label_of
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image, radius_per_image


@dataclass(frozen=True, repr=False)
class NFGSM:
    """One step along the gradient's sign from an image in wide noise, and nothing is projected back but the pixels.

    Training on it does not overfit to the single step as training on FGSM does. Its images may leave the threat model
    by `noise + relative_step - 1` radii, so that they measure nothing.

    Args:
        threat: l∞, whose radius the noise and the step are shares of.
        noise: k, half width of the uniform noise in radii (2).
        relative_step: α, length of the step in radii (1; the fast FGSM of Wong et al. takes 1.25).
        loss: what to maximize, `(prediction, target) -> (B,)`.

    Raises:
        InputError: another norm, or noise below 0.

    Source: de Jorge et al., 2202.01181, Algorithm 1, with its authors' code's values.
    """

    threat: ThreatModel
    noise: float = 2.0
    relative_step: float = 1.0
    loss: Loss = ce

    def __post_init__(self) -> None:
        if self.threat.norm != "Linf":
            raise InputError(f"N-FGSM steps in l∞, and the threat model is {self.threat}: use Linf:RADIUS, or PGD.")
        if not self.noise >= 0:
            raise InputError(f"N-FGSM's noise is {self.noise:g} radii wide, expected at least 0.")

    def __str__(self) -> str:
        return (
            f"N-FGSM({self.threat}, noise={self.noise:g}, relative_step={self.relative_step:g}, "
            f"loss={label_of(self.loss)})"
        )

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Images in [0, 1] for training, `(B, C, H, W)`; not all in the threat model.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where the noise comes from.
        """
        radius = broadcast_per_image(radius_per_image(self.threat, x))
        noisy = (x + self.noise * radius * (2 * rng.uniform(x) - 1)).clamp(0, 1)
        with eval_and_no_grad(f):
            gradient = input_gradient(f, noisy, target, self.loss)
        return (noisy + self.relative_step * radius * gradient.sign()).clamp(0, 1)
