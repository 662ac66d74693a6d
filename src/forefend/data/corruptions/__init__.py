"""Corruptions: what light, weather, lenses and files do to pictures, in five severities.

Eighteen of the nineteen of Hendrycks and Dietterich (1903.12261), with their constants; frost is left out, which needs
photographs of frost. Each is a function `(x, severity, *, rng) -> x` from images in [0, 1], `(B, C, H, W)`, to images
of the same shape, which treats every image as if it were alone. Images made here are of the published kind but not the
published images: pixels stay floats where the authors cut them to 8 bits, and other random numbers fall.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from forefend.checks import InputError, check_images, choose
from forefend.data.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from forefend.data.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from forefend.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from forefend.data.corruptions.severity import SEVERITIES, check_severity
from forefend.data.corruptions.spatter import spatter
from forefend.data.corruptions.weather import brightness, fog, snow
from forefend.runtime.rng import KeyedRNG

__all__ = ["COLOR_ONLY", "CORRUPTIONS", "SEVERITIES", "Corruption", "check_severity", "corrupt", "find_corruption"]


class Corruption(Protocol):
    """Images to corrupted images."""

    def __call__(self, x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
        """The same images, `(B, C, H, W)` in [0, 1], corrupted with this severity."""


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "defocus_blur": defocus_blur,
    "gaussian_blur": gaussian_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "spatter": spatter,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "saturate": saturate,
}
COLOR_ONLY = ("saturate",)  # those that mean nothing for gray images


def find_corruption(name: str) -> Corruption:
    """The corruption of that name.

    Raises:
        InputError: there is none, or it is frost.
    """
    if name == "frost":
        raise InputError(
            "Frost cannot be made here, since it needs photographs of frost: leave it out, or read a published set."
        )
    return choose(name, CORRUPTIONS, "corruption")


def corrupt(name: str, x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Images corrupted in the named way.

    Args:
        name: such as "fog".
        x: images, `(B, C, H, W)`, float in [0, 1]; C is 1 or 3.
        severity: 1, 2, 3, 4 or 5.
        rng: where random numbers come from; each corruption and severity draws its own from it.

    Raises:
        InputError: an unknown name, images or a severity that cannot be used.
    """
    corruption = find_corruption(name)
    check_images(x)
    check_severity(severity)
    return corruption(x, severity, rng=rng.fold_in(purpose=f"{rng.purpose}|{name}|{severity}"))
