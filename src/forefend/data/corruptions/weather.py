"""Snow, fog and brightness.

Source: Hendrycks and Dietterich, 1903.12261.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forefend.data.corruptions.blur import directional_blur
from forefend.data.corruptions.resample import clipped_zoom, luma
from forefend.data.corruptions.severity import Scale
from forefend.runtime.rng import KeyedRNG

LIFT = Scale((0.05, 0.10, 0.15, 0.20, 0.30), (0.1, 0.2, 0.3, 0.4, 0.5))
# Thickness, and the decay of the scale of the fractal from one octave to the next.
FOG = Scale(
    ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
# Mean and deviation of the flakes, their zoom, their threshold, radius and deviation of their
# motion blur, and the weight of the image against its whitened copy.
SNOW = Scale(
    (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)


def snow(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Add motion-blurred flakes, and their copy rotated by 180°, to a whitened image."""
    mean, deviation, zoom, least, radius, sigma, kept = SNOW.at(severity, x)
    flakes = clipped_zoom(mean + deviation * rng.normal(x[:, :1]), zoom)
    flakes = torch.where(flakes < least, 0, flakes.clamp(0, 1))
    flakes = (flakes * 255).floor() / 255  # the authors truncate the flakes to 8 bits
    direction = 90 * rng.fold_in(purpose=f"{rng.purpose}|angle").uniform(x[:, 0, 0, 0]) - 135
    flakes = directional_blur(flakes, radius, sigma, direction)
    whitened = kept * x + (1 - kept) * torch.maximum(x, 1.5 * luma(x) + 0.5)
    return (whitened + flakes + flakes.rot90(2, (2, 3))).clamp(0, 1)


def fog(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Add a fractal pattern; the largest value of an image stays the upper bound."""
    thickness, decay = FOG.at(severity, x)
    height, width = x.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    pattern = plasma(2 * rng.uniform(x.new_empty(len(x), side, side)) - 1, decay)[:, None, :height, :width]
    bound = x.amax((1, 2, 3), keepdim=True)
    return ((x + thickness * pattern) * bound / (bound + thickness)).clamp(0, 1)


def brightness(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Raise the value of each pixel, its largest channel; hue and saturation are unchanged."""
    value = x.amax(1, keepdim=True)
    raised = (value + LIFT.at(severity, x)).clamp_max(1)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-12), raised).clamp(0, 1)


def plasma(noise: Tensor, decay: float) -> Tensor:
    """Return a fractal by the diamond-square algorithm on a torus, values in [0, 1], `(B, M, M)`.

    The scale of the noise, `(B, M, M)` in [-1, 1], falls by `decay` in each octave, its height by
    the square.
    """
    field = torch.zeros_like(noise)
    step, scale = noise.shape[-1], 100.0

    def place(row: int, column: int, sources: list[tuple[int, int]]) -> None:
        """Set every `step`-th entry from (row, column) to the mean of its sources plus noise."""
        mean = torch.stack([field.roll(move, (1, 2)) for move in sources]).mean(0)
        height = mean + scale**2 * noise
        field[:, row::step, column::step] = height[:, row::step, column::step]

    while step > 1:
        half = step // 2
        crossing = [(half, 0), (-half, 0), (0, half), (0, -half)]
        place(half, half, [(half, half), (half, -half), (-half, half), (-half, -half)])
        place(0, half, crossing)
        place(half, 0, crossing)
        step, scale = half, scale / decay
    field -= field.amin((1, 2), keepdim=True)
    return field / field.amax((1, 2), keepdim=True)
